//! Whatever comes over a connection is a frame or refused, and a frame survives its own encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdp_core::{
    EventKind,
    protocol::{AgentFrame, Frame, ServerFrame, WireMessage},
};

fn survives<F: Frame + PartialEq + std::fmt::Debug>(message: &WireMessage, unknown: &F) {
    let Ok(frame) = F::decode(message) else { return };
    if frame != *unknown {
        assert_eq!(F::decode(&frame.encode()).expect("what was encoded"), frame);
    } else {
        let _ = F::unknown_type(message);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut messages = vec![WireMessage::Binary(data.to_vec().into())];
    messages.extend(std::str::from_utf8(data).ok().map(|text| WireMessage::Text(text.into())));
    for message in &messages {
        survives(message, &AgentFrame::Unknown);
        survives(message, &ServerFrame::Unknown);
        if let Ok(AgentFrame::Events(batch)) = AgentFrame::decode(message) {
            assert!(batch.lines_after(batch.last()).is_empty());
            let events = batch.events();
            let changes = batch.checked().map(|checked| checked.changes().to_vec());
            assert_eq!(changes.is_err(), events.is_err());
            if let (Ok(changes), Ok(events)) = (changes, events) {
                let told: Vec<_> =
                    events.into_iter().filter(|event| !matches!(event.kind, EventKind::Log { .. })).collect();
                assert_eq!(changes, told);
            }
        }
    }
});
