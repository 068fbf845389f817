//! What is done for others later: pull requests followed and told, webhooks sent. It is kept in the database until it
//! is done, so that a restart loses nothing; what fails is tried again with growing pauses, and given up in the end.
//!
//! Something may be done twice, when the server ends between doing it and writing that down.

mod pause;

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use sdp_core::{BranchName, IntegrationName, problem::chain};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use self::pause::pause;
use crate::{
    AppState, bitbucket,
    store::{Happening, NewTask, PullRequestKey, StoreError, Task},
    webhooks::{self, WebhookBody},
};

/// How many lanes are worked on at once.
const AT_ONCE: usize = 8;

/// How long changes of the database are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(20);

/// The pause after the database failed.
const TROUBLE: Duration = Duration::from_secs(1);

/// How often ends that are near are looked for, and old deliveries forgotten.
const UPKEEP: Duration = Duration::from_secs(10);

/// How long a delivery that was taken is known again.
const KNOWN_AGAIN: Duration = Duration::from_secs(30 * 86_400);

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Bring a pull request's sandbox to where the pull request is.
    Follow(PullRequestKey),
    /// Tell a pull request how its sandbox is.
    Report(PullRequestKey),
    /// Deploy a branch that was pushed to.
    Push {
        /// The integration that told of it.
        source: IntegrationName,
        /// Its repository.
        repository: String,
        /// The branch.
        branch: BranchName,
    },
    /// Send something to a webhook.
    Webhook {
        /// Which.
        webhook: IntegrationName,
        /// What.
        body: WebhookBody,
    },
}

/// Why something did not work out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// It may later.
    Again {
        /// Why not now.
        why: String,
        /// When the other side would like to be asked again.
        after: Option<Duration>,
    },
    /// It will not.
    Never(String),
}

impl Failure {
    pub(crate) fn again(why: impl Into<String>) -> Self {
        Self::Again { why: why.into(), after: None }
    }

    pub(crate) fn never(why: impl Into<String>) -> Self {
        Self::Never(why.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::again(chain(&error))
    }
}

/// Something to be done, in its place in the queue.
pub(crate) fn task(work: &Work) -> NewTask {
    let lane = match work {
        Work::Follow(key) => format!("follow {key}"),
        Work::Report(key) => format!("report {key}"),
        Work::Push { source, repository, branch } => format!("push {source}/{repository} {branch}"),
        Work::Webhook { webhook, .. } => format!("webhook {webhook}"),
    };
    let once = !matches!(work, Work::Webhook { .. });
    NewTask { lane, work: serde_json::to_string(work).expect("work is plain data"), once }
}

/// What is to be done because of something that happened.
fn of_happening(state: &AppState, happening: &Happening) -> Vec<NewTask> {
    let integrations = state.integrations();
    let reports = happening
        .pull_request
        .iter()
        .filter(|key| integrations.bitbucket(&key.source).is_some_and(|bitbucket| bitbucket.reports()));
    let reports = reports.map(|key| task(&Work::Report(key.clone())));
    let webhooks = integrations.webhooks.iter().filter_map(|webhook| {
        let body = webhooks::body(&webhook.config, happening)?;
        Some(task(&Work::Webhook { webhook: webhook.config.name.clone(), body }))
    });
    reports.chain(webhooks).collect()
}

/// Works on the queue until the server stops.
pub(crate) async fn run(state: AppState) {
    let mut commits = state.store().commits();
    let mut working: JoinSet<String> = JoinSet::new();
    let mut busy = BTreeSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP.min(state.config().sandboxes.upkeep));
    upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let wait = match pass(&state, &mut working, &mut busy).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(error = chain(&error), "the queue could not be looked at");
                Some(TROUBLE)
            }
        };
        tokio::select! {
            () = state.stopping().cancelled() => break,
            changed = commits.changed() => match changed {
                Ok(()) => tokio::time::sleep(GATHER).await,
                Err(_) => break,
            },
            Some(ended) = working.join_next() => match ended {
                Ok(lane) => drop(busy.remove(&lane)),
                // A panic has been reported where it happened. Which lane it was is not known: none is busy for ever.
                Err(_) => {
                    working.shutdown().await;
                    busy.clear();
                }
            },
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            _ = upkeep.tick() => {
                if let Err(error) = look_after(&state).await {
                    tracing::error!(error = chain(&error), "what is near its end could not be looked for");
                }
            }
        }
    }
    // What was under way is begun again after the next start.
    working.shutdown().await;
}

async fn look_after(state: &AppState) -> Result<(), StoreError> {
    let now = Timestamp::now();
    state.store().announce_near_ends(now, state.config().deliveries.expiring).await?;
    if let Ok(before) = now.checked_sub(KNOWN_AGAIN) {
        state.store().forget_deliveries(before).await?;
    }
    Ok(())
}

/// Begins what is due. Gives how long it is until something more will be.
async fn pass(
    state: &AppState,
    working: &mut JoinSet<String>,
    busy: &mut BTreeSet<String>,
) -> Result<Option<Duration>, StoreError> {
    loop {
        let planning = state.clone();
        if !state.store().announce(move |happening| of_happening(&planning, happening)).await? {
            break;
        }
    }
    let room = AT_ONCE.saturating_sub(busy.len());
    let now = Timestamp::now();
    let (due, next) = state.store().due_tasks(now, busy.clone(), room).await?;
    for task in due.into_iter().take(room) {
        busy.insert(task.lane.clone());
        let (state, lane) = (state.clone(), task.lane.clone());
        working.spawn(async move {
            if let Err(error) = attempt(&state, task).await {
                tracing::error!(error = chain(&error), lane, "what was done could not be written down");
                tokio::time::sleep(TROUBLE).await;
            }
            lane
        });
    }
    Ok(next.map(|next| next.duration_since(now).unsigned_abs()))
}

async fn attempt(state: &AppState, task: Task) -> Result<(), StoreError> {
    let store = state.store();
    if !store.begin_task(task.id).await? {
        return Ok(());
    }
    let Task { id, lane, work, queued_at, attempts, problem } = task;
    let done = match serde_json::from_str::<Work>(&work) {
        Ok(work) => perform(state, work, id, queued_at).await,
        Err(error) => Err(Failure::Never(format!("another version of the server put it here: {error}"))),
    };
    let timing = &state.config().deliveries;
    match done {
        Ok(()) => {
            if problem.is_some() {
                tracing::info!(lane, attempts = attempts + 1, "it worked out in the end");
            }
            store.end_task(id).await
        }
        Err(Failure::Never(why)) => {
            tracing::error!(lane, reason = why, "given up: trying again is of no use");
            store.end_task(id).await
        }
        Err(Failure::Again { why, after }) => {
            let now = Timestamp::now();
            if now.duration_since(queued_at).unsigned_abs() >= timing.give_up {
                tracing::error!(lane, attempts = attempts + 1, reason = why, "given up: it was tried long enough");
                return store.end_task(id).await;
            }
            let pause = pause(attempts, timing.first, timing.longest, after, rand::random());
            // Told once, however often it is tried.
            match problem.as_ref() == Some(&why) {
                true => tracing::debug!(lane, reason = why, ?pause, "trying again later"),
                false => tracing::warn!(lane, reason = why, ?pause, "trying again later"),
            }
            store.put_off_task(id, now.checked_add(pause).unwrap_or(Timestamp::MAX), why).await
        }
    }
}

async fn perform(state: &AppState, work: Work, id: i64, queued_at: Timestamp) -> Result<(), Failure> {
    let integrations = state.integrations();
    let bitbucket = |name: &IntegrationName| {
        let gone = || Failure::Never(format!("no [[bitbucket]] is called {name} any more"));
        integrations.bitbucket(name).ok_or_else(gone)
    };
    match work {
        Work::Follow(key) => bitbucket::follow(state, bitbucket(&key.source)?, &key).await,
        Work::Report(key) => bitbucket::report(state, bitbucket(&key.source)?, &key).await,
        Work::Push { source, repository, branch } => {
            bitbucket::push(state, bitbucket(&source)?, &repository, &branch, queued_at).await
        }
        Work::Webhook { webhook, body } => {
            let Some(webhook) = integrations.webhook(&webhook) else {
                return Err(Failure::Never(format!("no [[webhook]] is called {webhook} any more")));
            };
            webhooks::send(&integrations.outgoing, webhook, &body, id).await
        }
    }
}
