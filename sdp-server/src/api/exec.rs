//! Commands that are run where a deployment's program runs.
//!
//! The answer is what the command prints, as it does, and last how it has exited; see [`RunCommand`]. When nobody reads it
//! any more, the command is ended.

use std::{io, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderMap, HeaderName, header};
use sdp_core::{
    AgentName, Deployment, DeploymentState, ErrorCode, Problem,
    api::{
        self,
        audit::AuditAction,
        exec::{ExecEnd, RunCommand},
        logs::LogFormat,
    },
    protocol::OutputStep,
};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    Json, Path,
    deployments::{self, DeploymentPath, deed},
    idempotency,
    logs::content_type,
    output::ndjson,
};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    hub::{Piece, Pieces},
};

/// How often something is sent of a command that prints nothing: what lies between gives up what is silent for a minute.
const PULSE: Duration = Duration::from_secs(15);

/// Has nginx pass on what comes, as it comes.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

pub(super) async fn exec(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
    headers: HeaderMap,
    Json(RunCommand { command }): Json<RunCommand>,
) -> Result<Response, ApiError> {
    if headers.contains_key(idempotency::KEY) {
        let sentence = "what a command prints is not kept, so that it could not be answered again: leave the header \
                        Idempotency-Key out, and look before you send the request once more";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("Idempotency-Key"));
    }
    let deployment = deployments::find(&state, path.id).await?;
    match deployment.state {
        DeploymentState::Running => {}
        DeploymentState::Stopped => {
            let sentence =
                format!("deployment {} is stopped, and commands run where its program does; restart it first", path.id);
            return Err(ApiError::new(ErrorCode::Conflict, sentence));
        }
        now => {
            let sentence =
                format!("deployment {} is {now}: no program of it is there beside which a command could run", path.id);
            return Err(ApiError::new(ErrorCode::Conflict, sentence));
        }
    }
    not_replaced(&state, &deployment).await?;
    allowed(&state, &deployment.agent).await?;
    if let Some(sandbox) = &deployment.key.sandbox {
        state.store().use_sandbox(sandbox, false).await?;
    }
    // Before it runs, and what cannot be written down does not run.
    let deed = deed(&signed_in, AuditAction::Exec, &deployment).detail(command.to_string());
    state.store().append_audit(vec![deed]).await?;
    let pieces = state.hub().output(&deployment.agent, &deployment.key, OutputStep::Exec(command)).await?;
    let told = Told::new(pieces, signed_in.ended.clone());
    let body = stream::try_unfold(Some(told), async |told| {
        let Some(mut told) = told else { return Ok::<_, io::Error>(None) };
        let (text, goes_on) = told.next().await?;
        Ok(Some((text, goes_on.then_some(told))))
    });
    let headers = [(header::CONTENT_TYPE, content_type(LogFormat::Ndjson)), UNBUFFERED];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Refuses while another deployment takes this one's place: the command would run in that one's program.
async fn not_replaced(state: &AppState, deployment: &Deployment) -> Result<(), ApiError> {
    let coming = [DeploymentState::Start, DeploymentState::Health, DeploymentState::Routes];
    let coming = state.store().deployments_in(&coming, Some(&deployment.agent)).await?;
    let Some(other) = coming.into_iter().find(|other| other.key == deployment.key) else { return Ok(()) };
    let sentence = format!(
        "deployment {} is taking the place of {} (it is in {}): wait until it runs, or has failed",
        other.id, deployment.id, other.state
    );
    let mut problem = Problem::new(ErrorCode::Conflict, sentence).holder(other.id.to_string());
    problem.retryable = true;
    Err(ApiError(problem))
}

/// Refuses where the agent's operator has not allowed commands.
async fn allowed(state: &AppState, name: &AgentName) -> Result<(), ApiError> {
    // One that is away may come back with another configuration or version.
    let agent = state.hub().agent(name).await?.filter(|agent| agent.connected);
    let Some(agent) = agent else { return Err(state.hub().away(name).await.into()) };
    match agent.inventory.and_then(|inventory| inventory.exec) {
        Some(true) => Ok(()),
        Some(false) => Err(ApiError(api::exec::not_allowed_by(name))),
        None => {
            let sentence = format!("agent {name} is too old to run commands: install this server's version there");
            Err(ApiError(Problem::new(ErrorCode::Unsupported, sentence).holder(name.as_str())))
        }
    }
}

/// What a command does, as it is told.
struct Told {
    pieces: Pieces,
    signed_out: CancellationToken,
    pulse: Interval,
}

impl Told {
    fn new(pieces: Pieces, signed_out: CancellationToken) -> Self {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pulse.reset();
        Self { pieces, signed_out, pulse }
    }

    /// The next lines of the answer, and whether there are more.
    async fn next(&mut self) -> io::Result<(String, bool)> {
        let piece = tokio::select! {
            piece = self.pieces.recv() => piece.ok_or_else(|| io::Error::other("the server is stopping"))?,
            _ = self.pulse.tick() => return Ok(("\n".into(), true)),
            () = self.signed_out.cancelled() => {
                let sentence = "the session or the token has ended, and with it the command";
                return Ok((broken(Problem::new(ErrorCode::NotSignedIn, sentence)), false));
            }
        };
        Ok(match piece {
            Ok(Piece::Lines(lines)) => (ndjson(&lines), true),
            Ok(Piece::End(Some(code))) => (line(&ExecEnd::Exited { code }), false),
            Ok(Piece::End(None)) => {
                let sentence = "the agent lost sight of the command before it exited; see there whether it still runs";
                (broken(Problem::new(ErrorCode::Internal, sentence)), false)
            }
            Err(error) => (broken((&error).into()), false),
        })
    }
}

fn broken(problem: Problem) -> String {
    line(&ExecEnd::Broken { problem: Box::new(problem) })
}

fn line(end: &ExecEnd) -> String {
    serde_json::to_string(end).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_command_that_prints_nothing_is_told_of_before_anything_gives_it_up() {
        let (sender, pieces) = mpsc::channel(1);
        let mut told = Told::new(pieces, CancellationToken::new());
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(told.next().await.unwrap(), ("\n".into(), true));
        }
        assert_eq!(began.elapsed(), 3 * PULSE);
        sender.send(Ok(Piece::End(Some(0)))).await.unwrap();
        assert_eq!(told.next().await.unwrap(), ("{\"end\":\"exited\",\"code\":0}\n".into(), false));
    }

    #[tokio::test]
    async fn an_answer_that_the_servers_stop_cuts_off_has_no_end() {
        let (sender, pieces) = mpsc::channel(1);
        drop(sender);
        assert!(Told::new(pieces, CancellationToken::new()).next().await.is_err());
    }
}
