//! Frames as version 1 wrote them: understood for as long as an agent or a server may be that old.

use sdp_core::protocol::{AgentFrame, Frame, Outcome, ReplyBody, RequestBody, ServerFrame, WireMessage};

fn lines(text: &str) -> impl Iterator<Item = WireMessage> {
    text.lines().map(|line| WireMessage::Text(line.into()))
}

#[test]
fn servers_of_version_1_are_understood() {
    for message in lines(include_str!("frames/v1-server.ndjson")) {
        let frame = ServerFrame::decode(&message).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        let unknown = match &frame {
            ServerFrame::Request(request) => request.body == RequestBody::Unknown,
            frame => *frame == ServerFrame::Unknown,
        };
        assert!(!unknown, "{message:?}");
        assert_eq!(frame.encode(), message, "and written so still");
    }
}

#[test]
fn agents_of_version_1_are_understood() {
    for message in lines(include_str!("frames/v1-agent.ndjson")) {
        let frame = AgentFrame::decode(&message).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        let unknown = match &frame {
            AgentFrame::Reply(reply) => reply.outcome == Outcome::Ok(ReplyBody::Unknown),
            frame => *frame == AgentFrame::Unknown,
        };
        assert!(!unknown, "{message:?}");
        assert_eq!(frame.encode(), message, "and written so still");
    }
}

#[test]
fn events_of_version_1_are_understood() {
    let message = WireMessage::Binary(include_bytes!("frames/v1-events.ndjson").as_slice().into());
    let Ok(AgentFrame::Events(batch)) = AgentFrame::decode(&message) else { panic!("not a batch") };
    let events = batch.events().unwrap_or_else(|error| panic!("{error}"));
    assert!(events.iter().all(|event| event.kind != sdp_core::EventKind::Unknown));
    let written = events.iter().map(|event| serde_json::to_string(event).unwrap_or_default() + "\n");
    assert_eq!(written.collect::<String>().as_bytes(), &**batch.lines());
    assert_eq!(AgentFrame::Events(batch).encode(), message);
}
