//! `/ws/deployments/{id}`: a deployment's events from any point on, then live, then its end.
//!
//! A text message holds one or more of the log's lines, verbatim, joined by `\n`; the last message
//! is a [`StreamEnd`]. A reader is a position in the log's file: a slow one is sent nothing until it
//! has taken what it was sent, and misses nothing.

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use sdp_core::{
    DeploymentId,
    api::{StreamEnd, logs::FollowQuery},
};

use super::{
    Path, Query,
    deployments::{DeploymentPath, find_with_log},
    extract,
    socket::{Source, close, feed, reader, send, text},
};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    events::{EventLogError, Subscription},
};

pub(super) async fn follow(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
    Query(query): Query<FollowQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let deployment = find_with_log(&state, path.id).await?;
    let upgrade = reader(extract::upgrade(upgrade)?);
    let subscription = state.logs().subscribe(deployment.id, query.from.unwrap_or(1));
    if !deployment.state.is_active() {
        // Of a deployment that ended before this process began, nobody has said so.
        state.logs().finish(deployment.id);
    }
    Ok(upgrade.on_upgrade(async move |socket| serve(&state, &signed_in, deployment.id, subscription, socket).await))
}

async fn serve(
    state: &AppState,
    signed_in: &SignedIn,
    id: DeploymentId,
    mut subscription: Subscription,
    mut socket: WebSocket,
) {
    if feed(state, &signed_in.ended, &mut socket, &mut subscription).await
        && let Some(end) = end(state, id).await
        && send(&mut socket, Message::Text(end.into())).await
    {
        close(&mut socket, close_code::NORMAL, "").await;
    }
}

impl Source for Subscription {
    type Error = EventLogError;

    async fn next(&mut self) -> Result<Option<Message>, EventLogError> {
        Ok(Subscription::next(self).await?.map(text))
    }
}

async fn end(state: &AppState, id: DeploymentId) -> Option<String> {
    let deployment = state.store().deployment(id).await.ok().flatten()?;
    let last = state.logs().last_seq(id).await.ok()?;
    serde_json::to_string(&StreamEnd::End { state: deployment.state, last }).ok()
}
