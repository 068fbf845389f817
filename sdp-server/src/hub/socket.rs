//! The WebSocket of one agent.

use std::future::ready;

use axum::{
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::Response,
};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use sdp_core::{
    Transport,
    protocol::{Frame, MAX_FRAME_BYTES, WireMessage},
};

use super::{
    Hub,
    session::{self, Incoming, Outgoing},
};

/// Upgrades a request of an agent, and runs its connection.
pub(crate) fn accept(hub: Hub, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES);
    // Buffers of the default size would cost every idle connection 128 KiB.
    let upgrade = upgrade.read_buffer_size(3072).write_buffer_size(0);
    upgrade.on_upgrade(|socket| {
        let tasks = hub.shared.tasks.clone();
        let (mut incoming, mut outgoing) = frames(socket);
        // Boxed, or each future around it would have room for it once more.
        tasks.track_future(Box::pin(async move {
            session::run(&hub, Transport::WebSocket, &mut incoming, &mut outgoing).await;
        }))
    })
}

/// A socket's two directions, in frames.
fn frames(
    socket: WebSocket,
) -> (impl Stream<Item = Result<Incoming, axum::Error>> + Unpin, impl Sink<Outgoing, Error = axum::Error> + Unpin) {
    let (sink, stream) = socket.split();
    let incoming = stream.take_while(|message| ready(!matches!(message, Ok(Message::Close(_))))).map(|message| {
        message.map(|message| match message {
            Message::Text(text) => Incoming::Frame(WireMessage::Text(text.as_str().into())),
            Message::Binary(bytes) => Incoming::Frame(WireMessage::Binary(bytes)),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Incoming::SignOfLife,
        })
    });
    let outgoing = sink.with(|outgoing: Outgoing| {
        ready(Ok::<_, axum::Error>(match outgoing {
            Outgoing::Ping => Message::Ping(bytes::Bytes::new()),
            Outgoing::Frame(frame) => match frame.encode() {
                WireMessage::Text(text) => Message::Text(text.into()),
                WireMessage::Binary(bytes) => Message::Binary(bytes),
            },
        }))
    });
    (incoming, outgoing)
}
