//! Follows deployments to their end, as people and programs want to see it.

use std::{io, time::Duration};

use sdp_core::{
    Deployment, DeploymentId, DeploymentState, Event,
    client::{Client, Follow},
};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    error::CliError,
    output::{Output, Tone, clean, short, stages::Stages},
};

/// How often the line that moves does.
const TICK: Duration = Duration::from_millis(100);

/// How what is followed is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// On a terminal its stages, elsewhere its lines.
    Stages,
    /// Its lines.
    Lines,
}

/// The first and the last line with `--json`: types `begin` and `end`.
#[derive(Debug, Serialize)]
struct Mark<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    deployment: &'a Deployment,
}

/// Follows a deployment that has begun, from its beginning.
pub(crate) async fn follow_new(client: &Client, out: &Output, begun: &Deployment) -> Result<Deployment, CliError> {
    if out.is_json() {
        out.json(&Mark { kind: "begin", deployment: begun })?;
    }
    out.note(format!("deploying {} {} as {}", begun.key, begun.branch, begun.id));
    follow(client, out, begun.id, 1, Show::Stages).await
}

/// Follows several deployments, one after another: each is told from its beginning. Fails with the first that did not
/// come to run, when all have ended.
pub(crate) async fn follow_all(client: &Client, out: &Output, deployments: &[Deployment]) -> Result<(), CliError> {
    let mut failed = None;
    for deployment in deployments {
        match follow_new(client, out, deployment).await {
            Err(error @ CliError::Deployment { .. }) => {
                if deployments.len() > 1 {
                    out.error(&error);
                }
                failed = failed.or(Some(error));
            }
            followed => drop(followed?),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Follows a deployment from a line on.
///
/// # Errors
/// [`CliError::Deployment`] when it ends otherwise than running.
pub(crate) async fn follow(
    client: &Client,
    out: &Output,
    id: DeploymentId,
    from: u64,
    show: Show,
) -> Result<Deployment, CliError> {
    let mut followed = client.follow(id, from);
    let told = match show {
        Show::Stages if out.is_live() => stages(&mut followed, out).await,
        _ => lines(&mut followed, out).await,
    };
    told?;
    let deployment = client.deployment(id).await?;
    if out.is_json() {
        out.json(&Mark { kind: "end", deployment: &deployment })?;
    } else if show == Show::Stages {
        out.write(&outcome(&deployment, out))?;
    }
    judge(deployment, show == Show::Stages && out.is_live())
}

/// What came of it, as an error unless it runs or ran. `was_cut` says that not all of the log was shown.
fn judge(deployment: Deployment, was_cut: bool) -> Result<Deployment, CliError> {
    use DeploymentState as S;
    match deployment.state {
        S::Failed | S::Cancelled => {
            let reason = deployment.failure.map(|failure| failure.reason);
            Err(CliError::Deployment { id: deployment.id, state: deployment.state, reason, was_cut })
        }
        _ => Ok(deployment),
    }
}

/// The line that says how it ended, where that is no error.
fn outcome(deployment: &Deployment, out: &Output) -> String {
    let Deployment { key, branch, state, url, .. } = deployment;
    if *state != DeploymentState::Running {
        return String::new();
    }
    let took = deployment.finished_at.map(|end| end.duration_since(deployment.created_at).unsigned_abs());
    let took = took.map(|took| format!(" after {}", short(took))).unwrap_or_default();
    let place = url.as_ref().map(|url| format!(" on {}", clean(url))).unwrap_or_default();
    let mark = out.look().paint(Tone::Good, "✔");
    let mark = if out.is_live() { format!("{mark} ") } else { String::new() };
    format!("{mark}{key} {branch} runs{place}{took}\n")
}

async fn lines(followed: &mut Follow, out: &Output) -> Result<(), CliError> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let event = tokio::select! {
            event = followed.next() => event?,
            signal = &mut interrupted => return Err(interrupt(followed.deployment(), signal)),
        };
        let Some(event) = event else { return Ok(()) };
        write(&event, out)?;
    }
}

/// Writes an event as a line.
pub(crate) fn write(event: &Event, out: &Output) -> Result<(), CliError> {
    if out.is_json() { out.json(event) } else { out.line(clean(&event.to_string())) }
}

async fn stages(followed: &mut Follow, out: &Output) -> Result<(), CliError> {
    let mut shown = Stages::new(out.look());
    let told = tell(followed, out, &mut shown).await;
    out.write(&shown.erased())?;
    told
}

async fn tell(followed: &mut Follow, out: &Output, shown: &mut Stages) -> Result<(), CliError> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            event = followed.next() => match event? {
                Some(event) => out.write(&shown.event(&event))?,
                None => return Ok(()),
            },
            _ = ticks.tick() => out.write(&shown.moved())?,
            signal = &mut interrupted => return Err(interrupt(followed.deployment(), signal)),
        }
    }
}

/// That somebody has seen enough.
fn interrupt(id: DeploymentId, signal: io::Result<()>) -> CliError {
    match signal {
        Ok(()) => CliError::Interrupted(format!(
            "not followed any more; it goes on\n  -> follow it again: sdp logs --follow {id}\n  -> end it: sdp deployment cancel {id}"
        )),
        Err(error) => CliError::Output(error),
    }
}
