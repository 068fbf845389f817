//! Sinks that keep events in memory.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::{
    events::{EventSink, SinkError},
    model::{
        deployment::DeploymentState,
        event::{Event, EventKind},
    },
};

/// Keeps every event in memory, for a test to look at. Clones share the events.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use sdp_core::{EventKind, EventSink, Stage, testing::MemorySink};
/// let sink = MemorySink::default();
/// sink.accept(EventKind::note(Stage::Build, "hello")).await?;
/// assert_eq!(sink.lines(), ["hello"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    events: Arc<Mutex<Vec<Event>>>,
}

impl MemorySink {
    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text of the log lines so far.
    pub fn lines(&self) -> Vec<String> {
        let log = |event: Event| match event.kind {
            EventKind::Log { line, .. } => Some(line),
            _ => None,
        };
        self.events().into_iter().filter_map(log).collect()
    }

    /// The states so far.
    pub fn states(&self) -> Vec<DeploymentState> {
        let state = |event: Event| match event.kind {
            EventKind::State { state, .. } => Some(state),
            _ => None,
        };
        self.events().into_iter().filter_map(state).collect()
    }
}

#[async_trait]
impl EventSink for MemorySink {
    async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = events.len() as u64 + 1;
        events.push(Event { seq, at: Timestamp::now(), kind });
        Ok(seq)
    }
}

/// Sends every event into a bounded channel, and waits while it is full.
#[derive(Debug)]
pub struct ChannelSink {
    next: tokio::sync::Mutex<u64>,
    sender: mpsc::Sender<Event>,
}

impl ChannelSink {
    /// A sink and its receiving end; `capacity` events may be under way.
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { next: tokio::sync::Mutex::new(1), sender }, receiver)
    }
}

#[async_trait]
impl EventSink for ChannelSink {
    async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
        let mut next = self.next.lock().await;
        let permit = self.sender.reserve().await.map_err(|_| SinkError::new("the receiver of the events is gone"))?;
        let seq = *next;
        permit.send(Event { seq, at: Timestamp::now(), kind });
        *next += 1;
        Ok(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::deployment::Stage, testing::conformance::events::suite};

    #[tokio::test]
    async fn the_memory_sink_keeps_the_contract() {
        let sink = MemorySink::default();
        suite(&sink, async || sink.events()).await;
    }

    #[tokio::test]
    async fn the_channel_sink_keeps_the_contract() {
        let (sink, mut receiver) = ChannelSink::new(1000);
        let mut kept = Vec::new();
        let received = tokio::sync::Mutex::new((&mut kept, &mut receiver));
        suite(&sink, async || {
            let mut received = received.lock().await;
            let (kept, receiver) = &mut *received;
            while let Ok(event) = receiver.try_recv() {
                kept.push(event);
            }
            kept.clone()
        })
        .await;
    }

    #[tokio::test]
    async fn a_channel_without_a_receiver_refuses_and_skips_no_number() {
        let (sink, receiver) = ChannelSink::new(1);
        assert_eq!(sink.accept(EventKind::note(Stage::Build, "a")).await.unwrap(), 1);
        drop(receiver);
        assert!(sink.accept(EventKind::note(Stage::Build, "b")).await.is_err());
    }
}
