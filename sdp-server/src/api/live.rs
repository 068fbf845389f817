//! `/ws/events`: what changes on the platform, from any point on that is kept, then live.
//!
//! A reader is a number in the database's list of changes: a slow one costs nothing and misses nothing, unless so much
//! changes meanwhile that what it has not taken is kept no more. Then it is told.

use std::time::Duration;

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use sdp_core::api::live::{LiveNotice, LiveQuery};
use tokio::{sync::watch, time::timeout};

use super::{
    Query, extract,
    socket::{Source, feed, reader, send},
};
use crate::{ApiError, AppState, auth::SignedIn, store::StoreError};

/// How many events are sent at once.
const AT_ONCE: u32 = 500;

/// How often it is looked for what another process has changed, such as `sdp-server agent`.
const OTHERS: Duration = Duration::from_secs(5);

pub(super) async fn follow(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Query(query): Query<LiveQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = reader(extract::upgrade(upgrade)?);
    // Before the handshake is answered: what changes after that is told.
    let changed = state.store().changed();
    let next = match query.from {
        Some(from) => from.max(1),
        None => state.store().changes_from(u64::MAX, 0).await?.next,
    };
    let follower = Follower { next, changed, state };
    Ok(upgrade.on_upgrade(async move |socket| serve(follower, &signed_in, socket).await))
}

async fn serve(mut follower: Follower, signed_in: &SignedIn, mut socket: WebSocket) {
    let position = notice(LiveNotice::Position { next: follower.next });
    if send(&mut socket, position).await {
        let state = follower.state.clone();
        feed(&state, &signed_in.ended, &mut socket, &mut follower).await;
    }
}

fn notice(notice: LiveNotice) -> Message {
    Message::Text(serde_json::to_string(&notice).unwrap_or_default().into())
}

struct Follower {
    state: AppState,
    /// The number of the next event to send.
    next: u64,
    changed: watch::Receiver<i64>,
}

impl Source for Follower {
    type Error = StoreError;

    async fn next(&mut self) -> Result<Option<Message>, StoreError> {
        loop {
            self.changed.mark_unchanged();
            let changes = self.state.store().changes_from(self.next, AT_ONCE).await?;
            if self.next < changes.oldest || self.next > changes.next {
                let gap = LiveNotice::Gap { from: self.next, oldest: changes.oldest };
                self.next = changes.oldest;
                return Ok(Some(notice(gap)));
            }
            if let Some((last, _)) = changes.lines.last() {
                self.next = last + 1;
                let lines: Vec<_> = changes.lines.into_iter().map(|(_, line)| line).collect();
                return Ok(Some(Message::Text(lines.join("\n").into())));
            }
            // The sender lives as long as the database.
            let _ = timeout(OTHERS, self.changed.changed()).await;
        }
    }
}
