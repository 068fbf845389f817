//! Cleaning up after an agent that died: every deployment it left is ended truthfully, and what
//! served before serves again.

use std::{sync::Arc, time::Duration};

use sdp_core::{
    DeployError, DeploymentState, ErrorCode, EventKind, EventSink, Failure, Instance, InstanceState, Replacement,
    RouteChanges, Stage, StageStatus, problem::chain,
};

use super::{Inner, journal::Record, retire, tidy};
use crate::outbox::Progress;

/// The first and the longest pause before a deployer that does not answer is asked again.
pub(super) const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

pub(super) async fn recover(inner: &Arc<Inner>) {
    let ended = inner.stopping.run_until_cancelled(inner.parts.deployer.end_left_commands()).await;
    if let Some(Err(error)) = ended {
        tracing::warn!(error = chain(&error), "commands may still run that an earlier agent began");
    }
    let left: Vec<_> = inner.journal.left().iter().map(|record| (record, under_way(inner, record))).collect();
    for (record, _) in &left {
        if let Err(error) = inner.parts.deployer.end_build(record.deployment).await {
            tracing::warn!(deployment = %record.deployment, error = chain(&error), "its build may still run");
        }
    }
    let needed = left.iter().any(|(record, progress)| progress.is_some() || record.untidy);
    let Some(mut instances) = instances(inner, needed).await else {
        return;
    };
    for (record, progress) in left {
        if let Some(progress) = progress {
            end(inner, record, progress, &instances).await;
            instances.retain(|instance| instance.key != record.key);
        } else if record.untidy {
            if let Err(error) = tidy::once(inner, record.deployment, &record.key).await {
                tracing::error!(key = %record.key, error = chain(&error), "what a deployment left stays; restart the agent to try again");
            }
            instances.retain(|instance| instance.key != record.key);
        }
        inner.journal.end(record.deployment);
    }
    // Each that stays parked is told of.
    unpark(inner, &instances).await.ok();
    if let Err(error) = inner.parts.deployer.prune().await {
        tracing::warn!(error = chain(&error), "what nothing needs any more could not be removed");
    }
    end_the_rest(inner).await;
}

/// How far a deployment got, when it was not at its end.
fn under_way(inner: &Inner, record: &Record) -> Option<Progress> {
    inner.parts.outbox.progress(record.deployment).filter(|progress| progress.state.is_active())
}

/// What the deployer has. When it is needed, the deployer is asked until it answers; none when the
/// agent stops first, or it is not needed and not to be had.
async fn instances(inner: &Inner, needed: bool) -> Option<Vec<Instance>> {
    let mut pause = PAUSE.0;
    loop {
        match inner.parts.deployer.list().await {
            Ok(instances) => return Some(instances),
            Err(error) if needed => {
                tracing::warn!(error = chain(&error), "what a crash left cannot be cleaned up yet; trying again");
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "what runs here is not known");
                return None;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = inner.stopping.cancelled() => return None,
        }
    }
}

/// Ends one deployment.
async fn end(inner: &Arc<Inner>, record: &Record, progress: Progress, instances: &[Instance]) {
    let of_key = || instances.iter().filter(|instance| instance.key == record.key);
    let current = of_key().find(|instance| !instance.parked && instance.deployment == record.deployment);
    let previous = of_key().find(|instance| instance.parked);
    let complete = matches!(progress.stage, Some((Stage::Routes, StageStatus::Done | StageStatus::Skipped)));
    let events = match current {
        Some(current) if complete => {
            let on_request = record.retire_on_request;
            if let Err(error) = take_over(inner, current.clone(), previous.cloned(), on_request).await {
                tracing::warn!(key = %record.key, error = chain(&error), "the previous instance could not be removed");
            }
            vec![EventKind::state(DeploymentState::Running)]
        }
        _ => {
            rewind(inner, record).await;
            let restored = revert(inner, record, current, previous).await;
            restarted(progress, restored)
        }
    };
    tracing::warn!(deployment = %record.deployment, key = %record.key, "ended a deployment that a crash had left");
    tell(inner, record.deployment, events).await;
}

/// Has an instance take the place of the previous one. Requests may still be sent to one that serves on a port of its
/// own: it is ended when nobody is sent there any more.
async fn take_over(
    inner: &Arc<Inner>,
    current: Instance,
    previous: Option<Instance>,
    on_request: bool,
) -> Result<(), DeployError> {
    let serves_on =
        |it: &Instance| it.parked && it.state == InstanceState::Running && it.host_port != current.host_port;
    let beside = previous.as_ref().is_some_and(serves_on);
    let replacement = Replacement { current, previous, beside };
    let settled = match beside {
        true => Replacement { previous: None, beside: false, ..replacement.clone() },
        false => replacement.clone(),
    };
    inner.parts.deployer.settle(&settled).await?;
    if beside {
        inner.tasks.spawn(retire::later(Arc::clone(inner), replacement, on_request));
    }
    Ok(())
}

/// Puts the checkout back, and the gateway's overrides into it, as after any failed deployment.
async fn rewind(inner: &Inner, record: &Record) {
    let Some(previous) = &record.previous else { return };
    if let Err(error) = inner.parts.source.rewind(&record.key, previous).await {
        tracing::warn!(key = %record.key, error = chain(&error), "the checkout could not be put back");
        return;
    }
    let Some(gateways) = &inner.parts.gateways else { return };
    if let Ok(Some(routes)) = gateways.routes_of(&record.key)
        && let Err(error) = routes.apply(&RouteChanges::default()).await
    {
        tracing::warn!(error = chain(&error), "the overrides could not be applied again");
    }
}

/// A parked instance as it was before it was parked. Of those that were stopped before, nothing is
/// known any more: to serve again is the safer guess.
pub(super) fn served(parked: &Instance) -> Instance {
    Instance { state: InstanceState::Running, ..parked.clone() }
}

/// Stands for the instance that would have taken the place of a parked one.
pub(super) fn never_made(parked: &Instance) -> Instance {
    let name = parked.key.container_name();
    let id = format!("{name}-never-made");
    Instance { id, name, state: InstanceState::Created, parked: false, ..parked.clone() }
}

/// Puts the previous instance back; whether it serves again, or none when nothing had changed.
async fn revert(
    inner: &Inner,
    record: &Record,
    current: Option<&Instance>,
    previous: Option<&Instance>,
) -> Option<bool> {
    let current = match (current, previous) {
        (Some(current), _) => current.clone(),
        // It died between parking the previous one and making its own.
        (None, Some(previous)) => never_made(previous),
        (None, None) => return None,
    };
    let replacement = Replacement { current, previous: previous.map(served), beside: false };
    match inner.parts.deployer.revert(&replacement).await {
        Ok(restored) => restored.then_some(true),
        Err(error) => {
            tracing::error!(key = %record.key, error = chain(&error), "the previous instance could not be put back");
            previous.map(|_| false)
        }
    }
}

/// The events that end a deployment which got as far as `progress`.
pub(super) fn failed(
    progress: Progress,
    code: ErrorCode,
    reason: impl Into<String>,
    previous_restored: Option<bool>,
) -> Vec<EventKind> {
    if !progress.state.is_active() {
        return Vec::new();
    }
    let mut events = Vec::new();
    if progress.last == 0 {
        events.push(EventKind::state(DeploymentState::Queued));
    }
    if let Some((stage, StageStatus::Started)) = progress.stage {
        events.push(EventKind::Stage { stage, status: StageStatus::Failed });
    }
    let failure = Failure { stage: progress.state.stage(), code, reason: reason.into(), previous_restored };
    events.push(EventKind::State { state: DeploymentState::Failed, failure: Some(failure) });
    events
}

fn restarted(progress: Progress, previous_restored: Option<bool>) -> Vec<EventKind> {
    let place = match progress.state.stage() {
        Some(stage) => format!("was in stage {stage}"),
        None => "waited for its turn".into(),
    };
    let reason = format!("the agent was restarted while this deployment {place}; deploy again");
    failed(progress, ErrorCode::AgentAway, reason, previous_restored)
}

/// Frees what is parked for no deployment under way: with a newer one in its place it is of no use,
/// without one it serves again. Answers the last that could not be.
pub(super) async fn unpark(inner: &Arc<Inner>, instances: &[Instance]) -> Result<(), DeployError> {
    let mut result = Ok(());
    for parked in instances.iter().filter(|instance| instance.parked) {
        let newer = instances.iter().find(|instance| instance.key == parked.key && !instance.parked);
        let waits = |newer: &Instance| inner.table().known.get(&newer.deployment).is_some_and(|known| known.retiring);
        if newer.is_some_and(waits) {
            continue;
        }
        let done = match newer {
            Some(newer) if newer.state == InstanceState::Running => {
                // Whether the control plane has asked for it already, nobody knows any more.
                take_over(inner, newer.clone(), Some(parked.clone()), false).await
            }
            // Somebody stopped it: it is not to be started by the way.
            Some(_) => inner.parts.deployer.retire(parked).await,
            None => {
                let (current, previous) = (never_made(parked), Some(served(parked)));
                let replacement = Replacement { current, previous, beside: false };
                inner.parts.deployer.revert(&replacement).await.map(drop)
            }
        };
        match done {
            Ok(()) => tracing::warn!(key = %parked.key, "put a parked instance in order"),
            Err(error) => {
                tracing::error!(key = %parked.key, error = chain(&error), "a parked instance stays parked");
                result = Err(error);
            }
        }
    }
    result
}

/// Ends what has events and no record, which only a damaged disk leaves.
async fn end_the_rest(inner: &Inner) {
    for held in inner.parts.outbox.unacked().into_iter().filter(|held| held.state.is_active()) {
        let under_way = inner.table().known.get(&held.deployment).is_some_and(|known| !known.ended);
        if let Some(progress) = inner.parts.outbox.progress(held.deployment).filter(|_| !under_way) {
            tell(inner, held.deployment, restarted(progress, None)).await;
        }
    }
}

async fn tell(inner: &Inner, deployment: sdp_core::DeploymentId, events: Vec<EventKind>) {
    let sink = match inner.parts.outbox.sink(deployment) {
        Ok(sink) => sink,
        Err(error) => return tracing::error!(%deployment, error = chain(&error), "its end could not be told"),
    };
    for event in events {
        if let Err(error) = sink.accept(event).await {
            tracing::error!(%deployment, error = chain(&error), "its end could not be told");
        }
    }
}
