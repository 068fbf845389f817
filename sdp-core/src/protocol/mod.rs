//! The wire protocol between the control plane and its agents.
//!
//! Version 1, over one WebSocket at `/ws/agent`, which the agent opens:
//!
//! 1. The agent sends [`Hello`]: the versions it speaks, its name and token, its inventory, and
//!    the deployments whose events it still holds. The server answers [`ServerFrame::Welcome`] with
//!    the version to use and how far it has each of those, or [`ServerFrame::Refused`] and closes.
//! 2. The server sends [`Request`]s with an id and a deadline; the agent answers each once with a
//!    [`Reply`] of that id, in any order.
//! 3. The agent sends [`EventBatch`]es; the server answers [`ServerFrame::Ack`] when they are on
//!    its disk. Acknowledgements are cumulative: `seq` covers everything before it.
//! 4. Both sides send WebSocket pings.
//!
//! Where something in between breaks WebSockets, the same messages travel in the bodies of plain HTTP
//! requests and answers, as [`Body`] packs them:
//!
//! - `POST /ws/agent/session` opens a session and answers its [`SessionKey`], which the other requests
//!   carry as `Authorization: Bearer`.
//! - `POST /ws/agent/session/frames?number=N` brings the agent's messages. `N` counts these requests
//!   from 1; one that is repeated because its answer was lost is answered again and changes nothing.
//! - `GET /ws/agent/session/frames?after=N` answers the server's messages as soon as there are any,
//!   or nothing (204) as often as it would ping. `N` is the number of answers with messages so far;
//!   one that was lost is asked for again with the same `N`.
//! - `POST /ws/agent/session/end` ends it. So do silence and a newer connection of the agent; what is
//!   asked of it then is answered 404.
//!
//! `POST /ws/agent/check` with a hello tells whether it would be accepted, and changes nothing.
//!
//! Frames are JSON text messages, but for event batches: binary messages of one JSON header line
//! and then the events' own NDJSON lines, so that the server appends those bytes as they are.
//! Unknown fields are ignored; a frame of an unknown type decodes to `Unknown` and is answered with
//! `Unsupported`, and a request of an unknown kind with a problem of code `unsupported`.

mod batch;
mod codec;
mod frames;
mod output;
mod packing;
mod secrets;

pub use batch::{CheckedBatch, EventBatch};
pub use codec::{CodecError, Frame, WireMessage};
pub use frames::{
    AgentFrame, HeldEvents, Hello, Outcome, OutputStep, Reply, ReplyBody, Request, RequestBody, ServerFrame,
    SessionKey, Welcome,
};
pub use packing::{Body, MAX_BODY_BYTES, unpack};
pub use secrets::{CredentialsFrame, TokenFrame};

/// The newest protocol version this code speaks.
pub const VERSION: u16 = 1;

/// The oldest protocol version this code speaks.
pub const OLDEST_VERSION: u16 = 1;

/// The largest frame either side accepts, in bytes.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// The most event bytes that an agent puts into one batch.
pub const MAX_BATCH_BYTES: usize = 256 * 1024;
