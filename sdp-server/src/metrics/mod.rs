//! What `/metrics` tells, in the text format of OpenMetrics that Prometheus reads.
//!
//! Counters and histograms are added to as things happen; gauges are looked up when they are asked for. Labels hold
//! names that operators chose and states, never what users type.

mod deployments;
mod gauges;
mod http;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use sdp_core::ErrorCode;
use tokio::sync::Mutex;

use self::gauges::Gauges;

pub(crate) use self::{deployments::watch, http::observe};

use crate::{ApiError, AppState};

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// For how long a look at what is so at the moment serves.
const FRESH: Duration = Duration::from_secs(1);

/// From half a millisecond to 16 seconds.
const QUICK: (f64, f64, u16) = (0.0005, 2.0, 16);
/// From 50 milliseconds to 27 minutes.
const SLOW: (f64, f64, u16) = (0.05, 2.0, 16);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    repo: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StageLabels {
    stage: String,
    status: String,
}

/// Makes histograms with the buckets of (first, factor, number).
#[derive(Debug, Clone)]
struct Buckets(f64, f64, u16);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(self.0, self.1, self.2))
    }
}

impl From<(f64, f64, u16)> for Buckets {
    fn from((first, factor, number): (f64, f64, u16)) -> Self {
        Self(first, factor, number)
    }
}

/// What the server counts and measures of itself. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Histogram, Buckets>,
    deployments: Family<EndLabels, Histogram, Buckets>,
    stages: Family<StageLabels, Histogram, Buckets>,
    event_bytes: Counter,
    event_batches: Counter,
    append: Histogram,
    lag: Histogram,
    /// The last look at what is so at the moment.
    gauges: Mutex<Option<(Instant, Arc<Gauges>)>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histograms = |buckets: (f64, f64, u16)| Family::new_with_constructor(Buckets::from(buckets));
        let mut inner = Inner {
            registry: Registry::with_prefix("sdp"),
            requests: Family::new_with_constructor(QUICK.into()),
            deployments: histograms(SLOW),
            stages: Family::new_with_constructor(SLOW.into()),
            event_bytes: Counter::default(),
            event_batches: Counter::default(),
            append: Buckets::from(QUICK).new_metric(),
            lag: Buckets::from(QUICK).new_metric(),
            gauges: Mutex::default(),
        };
        let registry = &mut inner.registry;
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "http_request_duration",
            "How long requests of the API took until their answer began",
            seconds.clone(),
            inner.requests.clone(),
        );
        registry.register_with_unit(
            "deployment_duration",
            "How long deployments took from their request to their end, by what they came to",
            seconds.clone(),
            inner.deployments.clone(),
        );
        registry.register_with_unit(
            "stage_duration",
            "How long stages of deployments took, by how they ended",
            seconds.clone(),
            inner.stages.clone(),
        );
        registry.register_with_unit(
            "event_log_append",
            "How long a group of events took until it was durable",
            seconds.clone(),
            inner.append.clone(),
        );
        registry.register_with_unit(
            "event_lag",
            "How long after it happened on its agent a change was durable here; with the difference of the clocks",
            seconds,
            inner.lag.clone(),
        );
        registry.register("event_log_bytes", "Bytes of events made durable", inner.event_bytes.clone());
        registry.register("event_log_batches", "Groups of events made durable", inner.event_batches.clone());
        Self { inner: Arc::new(inner) }
    }
}

impl Metrics {
    /// Counts a group of events that has become durable.
    pub(crate) fn appended(&self, bytes: usize, took: Duration) {
        self.inner.event_bytes.inc_by(bytes as u64);
        self.inner.event_batches.inc();
        self.inner.append.observe(took.as_secs_f64());
    }

    /// Notes how late an event was durable.
    pub(crate) fn lag(&self, lag: Duration) {
        self.inner.lag.observe(lag.as_secs_f64());
    }

    /// Everything, as text. Nobody need be signed in to ask: what costs a look at the disk is looked at once for
    /// all who ask at about the same time.
    ///
    /// # Errors
    /// When the database or the disk cannot be read.
    pub(crate) async fn text(&self, state: &AppState) -> Result<String, ApiError> {
        let gauges = {
            let mut last = self.inner.gauges.lock().await;
            match &*last {
                Some((at, gauges)) if at.elapsed() < FRESH => Arc::clone(gauges),
                _ => {
                    let gauges = Arc::new(Gauges::look(state).await?);
                    *last = Some((Instant::now(), Arc::clone(&gauges)));
                    gauges
                }
            }
        };
        self.encode(&gauges).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))
    }

    fn encode(&self, gauges: &Gauges) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode_registry(&mut text, &self.inner.registry)?;
        gauges.encode(&mut text)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}
