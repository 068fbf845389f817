//! The trait [`EventSink`]: where a deployment's events go.

use std::borrow::Cow;

use async_trait::async_trait;

use crate::{
    model::event::EventKind,
    problem::{ErrorCode, Problem, chain},
};

/// The event stream of one deployment.
///
/// # Contract
/// - Accepted events get consecutive sequence numbers from 1 on, in the order in which
///   [`accept`](Self::accept) returned; the number is the answer. Concurrent calls are allowed and
///   are put into one order.
/// - When `accept` returns `Ok`, the event survives the death of this process. (The doubles, which
///   keep events in memory, and sinks that only print say so.)
/// - `accept` may wait, and a waiting sink is how back-pressure reaches a build's output. It does
///   not wait for the control plane.
/// - Dropping the future of `accept` either accepts the event or does not; it never accepts half.
/// - On `Err` the event was not accepted and the sink stays usable; who emitted it may try again.
#[async_trait]
pub trait EventSink: std::fmt::Debug + Send + Sync {
    /// Accepts an event and answers its sequence number.
    ///
    /// # Errors
    /// [`SinkError`] when it cannot be kept.
    async fn accept(&self, kind: EventKind) -> Result<u64, SinkError>;

    /// A text as the sink keeps it. Who cuts a text that may hold a secret asks before: nobody recognizes half a
    /// secret.
    fn masked<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        text
    }
}

/// An event that could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("an event could not be stored{}", hint(.cure))]
#[non_exhaustive]
pub struct SinkError {
    /// What a person can do about it: `free some space on /var/lib/sdp-agent`.
    pub cure: Option<String>,
    /// What went wrong below.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

fn hint(cure: &Option<String>) -> String {
    cure.as_ref().map(|cure| format!(" ({cure})")).unwrap_or_default()
}

impl SinkError {
    /// An error with its cause.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cure: None, source: source.into() }
    }

    /// Says what a person can do about it.
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// The code under which it is told: [`ErrorCode::EventsUnavailable`].
    pub fn code(&self) -> ErrorCode {
        ErrorCode::EventsUnavailable
    }
}

impl From<&SinkError> for Problem {
    fn from(error: &SinkError) -> Self {
        Problem::new(error.code(), chain(error))
    }
}
