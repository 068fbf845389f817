//! What the WebSockets that people follow have in common.

use std::time::Duration;

use axum::extract::{
    WebSocketUpgrade,
    ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code},
};
use bytes::Bytes;
use sdp_core::problem::chain;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::AppState;

/// How often an idle reader is pinged.
const PING: Duration = Duration::from_secs(20);

/// How long a reader may take over one message.
const WRITE: Duration = Duration::from_secs(60);

/// Readers have nothing to say.
const MAX_INCOMING_BYTES: usize = 4096;

/// An upgrade for a reader: buffers of the default size would cost every idle one 128 KiB.
pub(super) fn reader(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.max_message_size(MAX_INCOMING_BYTES).read_buffer_size(4096).write_buffer_size(0)
}

/// What a reader follows.
pub(super) trait Source {
    /// Why it cannot be read.
    type Error: std::error::Error + Send + 'static;

    /// The next message, once there is one; none at the end. It may be given up while it waits.
    fn next(&mut self) -> impl Future<Output = Result<Option<Message>, Self::Error>> + Send;
}

/// Sends a reader what there is until the end of it: then true. The connection also ends when the reader does not
/// answer, its session ends, or the server stops.
pub(super) async fn feed(
    state: &AppState,
    signed_out: &CancellationToken,
    socket: &mut WebSocket,
    source: &mut impl Source,
) -> bool {
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut awaiting_pong = false;
    loop {
        let message = tokio::select! {
            message = source.next() => match message {
                Ok(Some(message)) => message,
                Ok(None) => return true,
                Err(error) => {
                    tracing::error!(error = chain(&error), "what a reader follows cannot be read");
                    close(socket, close_code::ERROR, "it cannot be read").await;
                    return false;
                }
            },
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => { awaiting_pong = false; continue }
            },
            _ = pings.tick() => {
                if awaiting_pong {
                    return false;
                }
                awaiting_pong = true;
                Message::Ping(Bytes::new())
            }
            () = signed_out.cancelled() => {
                close(socket, close_code::POLICY, "the session or the token has ended").await;
                return false;
            }
            () = state.stopping().cancelled() => {
                close(socket, close_code::RESTART, "the server is stopping").await;
                return false;
            }
        };
        if !send(socket, message).await {
            return false;
        }
    }
}

/// Lines without the last one's end.
pub(super) fn text(mut lines: Bytes) -> Message {
    lines.truncate(lines.strip_suffix(b"\n").unwrap_or(&lines).len());
    // A log holds JSON, which is UTF-8, unless somebody else wrote into it.
    let text = Utf8Bytes::try_from(lines.clone());
    Message::Text(text.unwrap_or_else(|_| String::from_utf8_lossy(&lines).into_owned().into()))
}

pub(super) async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(WRITE, socket.send(message)).await, Ok(Ok(())))
}

pub(super) async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    send(socket, Message::Close(Some(frame))).await;
}
