//! `/ws/deployments/{id}`: a deployment's events from any point on, then live, then its end.
//!
//! A text message holds one or more of the log's lines, verbatim, joined by `\n`; the last message
//! is a [`StreamEnd`]. A reader is a position in the log's file: a slow one is sent nothing until it
//! has taken what it was sent, and misses nothing.

use std::time::Duration;

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use sdp_core::{DeploymentId, api::StreamEnd, problem::chain};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    Path, Query,
    deployments::{DeploymentPath, find_with_log},
    extract,
};
use crate::{ApiError, AppState, auth::SignedIn, events::Subscription};

/// How often an idle reader is pinged.
const PING: Duration = Duration::from_secs(20);

/// How long a reader may take over one message.
const WRITE: Duration = Duration::from_secs(60);

/// Readers have nothing to say.
const MAX_INCOMING_BYTES: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    from: Option<u64>,
}

pub(super) async fn follow(
    State(state): State<AppState>,
    _: SignedIn,
    Path(path): Path<DeploymentPath>,
    Query(query): Query<From>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let deployment = find_with_log(&state, path.id).await?;
    let upgrade = extract::upgrade(upgrade)?;
    let subscription = state.logs().subscribe(deployment.id, query.from.unwrap_or(1));
    if !deployment.state.is_active() {
        // Of a deployment that ended before this process began, nobody has said so.
        state.logs().finish(deployment.id);
    }
    let upgrade = upgrade.max_message_size(MAX_INCOMING_BYTES).read_buffer_size(4096).write_buffer_size(0);
    Ok(upgrade.on_upgrade(async move |socket| serve(&state, deployment.id, subscription, socket).await))
}

async fn serve(state: &AppState, id: DeploymentId, mut subscription: Subscription, mut socket: WebSocket) {
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut awaiting_pong = false;
    loop {
        let message = tokio::select! {
            lines = subscription.next() => match lines {
                Ok(Some(lines)) => text(lines),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(deployment = %id, error = chain(&error), "a log cannot be read");
                    close(&mut socket, close_code::ERROR, "the log cannot be read").await;
                    return;
                }
            },
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => { awaiting_pong = false; continue }
            },
            _ = pings.tick() => {
                if awaiting_pong {
                    return;
                }
                awaiting_pong = true;
                Message::Ping(Bytes::new())
            }
            () = state.stopping().cancelled() => {
                close(&mut socket, close_code::RESTART, "the server is stopping").await;
                return;
            }
        };
        if !send(&mut socket, message).await {
            return;
        }
    }
    if let Some(end) = end(state, id).await
        && send(&mut socket, Message::Text(end.into())).await
    {
        close(&mut socket, close_code::NORMAL, "").await;
    }
}

/// Log lines without the last one's end.
fn text(mut lines: Bytes) -> Message {
    lines.truncate(lines.strip_suffix(b"\n").unwrap_or(&lines).len());
    // A log holds JSON, which is UTF-8, unless somebody else wrote into it.
    let text = Utf8Bytes::try_from(lines.clone());
    Message::Text(text.unwrap_or_else(|_| String::from_utf8_lossy(&lines).into_owned().into()))
}

async fn end(state: &AppState, id: DeploymentId) -> Option<String> {
    let deployment = state.store().deployment(id).await.ok().flatten()?;
    let last = state.logs().last_seq(id).await.ok()?;
    serde_json::to_string(&StreamEnd::End { state: deployment.state, last }).ok()
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(WRITE, socket.send(message)).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    send(socket, Message::Close(Some(frame))).await;
}
