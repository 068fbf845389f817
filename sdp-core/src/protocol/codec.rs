//! Frames to messages and back.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{AgentFrame, EventBatch, MAX_FRAME_BYTES, ServerFrame};

/// A message as a WebSocket carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireMessage {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
}

/// Why a message is not a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// It is larger than [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is larger than the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// It is not JSON of the expected shape.
    #[error("a frame could not be read")]
    Json(#[from] serde_json::Error),
    /// A binary message where none is expected.
    #[error("a binary message came where a text frame was expected")]
    UnexpectedBinary,
    /// A batch of events that breaks the protocol.
    #[error("an event batch is not valid: {0}")]
    Batch(String),
    /// An HTTP body that does not hold messages.
    #[error("a body of messages is not valid: {0}")]
    Body(String),
}

/// A frame that can travel.
pub trait Frame: Sized {
    /// The message that carries this frame.
    fn encode(&self) -> WireMessage;

    /// Reads a frame. One of an unknown type is not an error: see [`Frame::unknown_type`].
    ///
    /// # Errors
    /// [`CodecError`].
    fn decode(message: &WireMessage) -> Result<Self, CodecError>;

    /// The type of a frame that decoded to `Unknown`, for the answer that says so.
    fn unknown_type(message: &WireMessage) -> String {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        match message {
            WireMessage::Text(text) => serde_json::from_str::<Typed>(text).map(|typed| typed.kind).unwrap_or_default(),
            WireMessage::Binary(_) => "binary".into(),
        }
    }
}

fn to_text<T: Serialize>(frame: &T) -> WireMessage {
    let text = serde_json::to_string(frame).expect("frames hold only strings, numbers and maps with text keys");
    WireMessage::Text(text)
}

fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, CodecError> {
    if text.len() > MAX_FRAME_BYTES {
        return Err(CodecError::TooLarge(text.len()));
    }
    Ok(serde_json::from_str(text)?)
}

impl Frame for ServerFrame {
    fn encode(&self) -> WireMessage {
        to_text(self)
    }

    fn decode(message: &WireMessage) -> Result<Self, CodecError> {
        match message {
            WireMessage::Text(text) => from_text(text),
            WireMessage::Binary(_) => Err(CodecError::UnexpectedBinary),
        }
    }
}

impl Frame for AgentFrame {
    fn encode(&self) -> WireMessage {
        match self {
            Self::Events(batch) => WireMessage::Binary(batch.encode()),
            frame => to_text(frame),
        }
    }

    fn decode(message: &WireMessage) -> Result<Self, CodecError> {
        match message {
            WireMessage::Text(text) => from_text(text),
            WireMessage::Binary(bytes) => EventBatch::decode(bytes).map(Self::Events),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Hello, Outcome, Reply, ReplyBody, Request, RequestBody};

    #[test]
    fn frames_of_version_1_are_written_byte_for_byte_so() {
        let text = |message| match message {
            WireMessage::Text(text) => text,
            WireMessage::Binary(_) => panic!("expected text"),
        };
        let reply = AgentFrame::Reply(Reply { id: 7, outcome: Outcome::Ok(ReplyBody::Done) });
        assert_eq!(text(reply.encode()), r#"{"type":"reply","id":7,"ok":{"kind":"done"}}"#);
        let request = Request { id: 7, deadline_ms: 5000, body: RequestBody::Routes { sandbox: None } };
        assert_eq!(
            text(ServerFrame::Request(request).encode()),
            r#"{"type":"request","id":7,"deadline_ms":5000,"body":{"op":"routes"}}"#
        );
    }

    #[test]
    fn a_refusal_travels_with_its_problem() {
        let problem = crate::Problem::new(crate::ErrorCode::NotAllowed, "the token is not valid");
        let frame = ServerFrame::Refused(problem);
        let WireMessage::Text(text) = frame.encode() else { panic!("expected text") };
        assert!(text.starts_with(r#"{"type":"refused","problem":{"type":"urn:sdp:problem:not-allowed","#), "{text}");
        assert_eq!(ServerFrame::decode(&WireMessage::Text(text)).unwrap(), frame);
    }

    #[test]
    fn a_hello_with_fields_of_the_future_is_understood() {
        let text = r#"{"type":"hello","protocol":9,"oldest_protocol":1,"agent":"micro-92","token":"t","mood":"fine",
            "inventory":{"version":"9","advertise":"h","deployer":"docker","repos":[],"gpu":1}}"#;
        let AgentFrame::Hello(hello) = AgentFrame::decode(&WireMessage::Text(text.into())).unwrap() else {
            panic!("not a hello");
        };
        let Hello { protocol, held, .. } = *hello;
        assert_eq!((protocol, held.len()), (9, 0));
    }

    #[test]
    fn an_unknown_frame_is_told_apart_from_a_broken_one() {
        let message = WireMessage::Text(r#"{"type":"telepathy","x":1}"#.into());
        assert_eq!(ServerFrame::decode(&message).unwrap(), ServerFrame::Unknown);
        assert_eq!(ServerFrame::unknown_type(&message), "telepathy");
        assert!(ServerFrame::decode(&WireMessage::Text("{".into())).is_err());
        assert!(AgentFrame::decode(&WireMessage::Binary(Bytes::from_static(b"\xff\xfe"))).is_err());
        let request = r#"{"type":"request","id":1,"deadline_ms":1,"body":{"op":"levitate"}}"#;
        let ServerFrame::Request(request) = ServerFrame::decode(&WireMessage::Text(request.into())).unwrap() else {
            panic!("not a request");
        };
        assert_eq!(request.body, RequestBody::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for message in [WireMessage::Text(text), WireMessage::Binary(bytes.into())] {
                let _ = (AgentFrame::decode(&message), ServerFrame::decode(&message));
            }
        }
    }
}
