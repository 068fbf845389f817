//! Going back to what ran before.
//!
//! A rollback is a deployment like any other, of whoever asks for it: it takes its turn, can fail and be
//! cancelled, and the next deployment of the branch takes its place. Only its commit is not the
//! branch's tip.

use axum::extract::State;
use jiff::Timestamp;
use sdp_core::{
    Deployment, DeploymentState, ErrorCode,
    api::{CreateDeployment, DeployAgain, audit::AuditAction},
};

use super::{
    Path,
    deployments::{Accepted, DeploymentPath, deploy_exactly, find},
    extract::Optional,
    sandboxes::find_live as find_sandbox,
};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    hub::{Destination, Earlier},
    sandboxes::destination,
};

/// To the deployment named, or from it to the one before when it is what runs.
pub(super) async fn rollback(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
    Optional(DeployAgain { credentials }): Optional<DeployAgain>,
) -> Result<Accepted, ApiError> {
    let named = find(&state, path.id).await?;
    let target = target(&state, named).await?;
    let earlier = earlier(&target)?;
    let destination = match &target.key.sandbox {
        Some(sandbox) => destination(&state, find_sandbox(&state, sandbox).await?).await?,
        None => Destination::default(),
    };
    let host_port = state.store().chosen_port(target.id).await?;
    let Deployment { key, branch, env, agent, .. } = target;
    let body =
        CreateDeployment { host_port, env, agent: Some(agent), credentials, ..CreateDeployment::new(key.repo, branch) };
    deploy_exactly(state, signed_in, AuditAction::Rollback, destination, body, Some(earlier)).await
}

/// What a deployment that repeats a rollback goes back to; none when it is no rollback.
pub(super) async fn repeated(state: &AppState, deployment: &Deployment) -> Result<Option<Earlier>, ApiError> {
    match deployment.rollback_of {
        Some(id) => Ok(Some(earlier(&find(state, id).await?)?)),
        None => Ok(None),
    }
}

/// The deployment to go back to when asked for `named`.
async fn target(state: &AppState, named: Deployment) -> Result<Deployment, ApiError> {
    let since = match &named.key.sandbox {
        Some(sandbox) => find_sandbox(state, sandbox).await?.created_at,
        None => Timestamp::UNIX_EPOCH,
    };
    if named.created_at < since {
        return Err(refused(format!(
            "deployment {} is of an earlier sandbox of that name, which was deleted",
            named.id
        )));
    }
    match named.state {
        DeploymentState::Superseded => Ok(named),
        DeploymentState::Running | DeploymentState::Stopped => {
            let before = state.store().previous_good(&named, since).await?;
            before.ok_or_else(|| {
                let Deployment { id, key, agent, .. } = &named;
                refused(format!("there is nothing to roll back to: nothing else of {key} ran on {agent} before {id}"))
            })
        }
        now if now.is_active() => {
            let sentence =
                format!("deployment {} is {now}: it has not ended yet; cancel it to keep what runs", named.id);
            Err(refused(sentence))
        }
        now => Err(refused(format!(
            "deployment {} is {now}: only one that was replaced, or is what runs or was stopped, can be rolled back to or from",
            named.id
        ))),
    }
}

fn earlier(target: &Deployment) -> Result<Earlier, ApiError> {
    match &target.commit {
        Some(commit) => Ok(Earlier { deployment: target.id, commit: commit.clone() }),
        None => Err(refused(format!("deployment {} was replaced before it began: it never ran", target.id))),
    }
}

fn refused(sentence: String) -> ApiError {
    ApiError::new(ErrorCode::Conflict, sentence)
}
