//! The suite of [`EventSink`].

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::{
    events::EventSink,
    model::{
        deployment::Stage,
        event::{Event, EventKind},
    },
};

/// Runs the whole suite on a sink that has accepted nothing yet. `read` gives the events that the
/// sink has kept so far, in order.
pub async fn suite(sink: &dyn EventSink, read: impl AsyncFn() -> Vec<Event>) {
    numbers_follow_one_another_from_one(sink, &read).await;
    concurrent_events_get_one_order(sink, &read).await;
    lines_come_back_as_they_were(sink, &read).await;
}

async fn numbers_follow_one_another_from_one(sink: &dyn EventSink, read: &impl AsyncFn() -> Vec<Event>) {
    for expected in 1..=20 {
        let seq = sink.accept(EventKind::note(Stage::Source, format!("line {expected}"))).await.expect("accepted");
        assert_eq!(seq, expected, "sequence numbers are consecutive from 1");
    }
    let events = read().await;
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert_eq!(events[4].kind, EventKind::note(Stage::Source, "line 5"));
}

async fn concurrent_events_get_one_order(sink: &dyn EventSink, read: &impl AsyncFn() -> Vec<Event>) {
    let before = read().await.len() as u64;
    let calls = (0..50).map(|n| sink.accept(EventKind::note(Stage::Build, format!("concurrent {n}"))));
    let numbers: BTreeSet<u64> = join_all(calls).await.into_iter().map(|seq| seq.expect("accepted")).collect();
    assert_eq!(numbers, (before + 1..=before + 50).collect(), "every number is given once");
    let events = read().await;
    assert!(events.iter().map(|event| event.seq).eq(1..=before + 50), "and they are kept in order");
}

async fn lines_come_back_as_they_were(sink: &dyn EventSink, read: &impl AsyncFn() -> Vec<Event>) {
    let line = "tab\t quote\" newline\n return\r nul\0 emoji\u{1f980} separator\u{2028} escape\u{1b}[31m";
    let seq = sink.accept(EventKind::note(Stage::Build, line)).await.expect("accepted");
    let events = read().await;
    assert_eq!(events[seq as usize - 1].kind, EventKind::note(Stage::Build, line));
}
