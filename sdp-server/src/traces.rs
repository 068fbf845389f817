//! Traces for OpenTelemetry: one of each deployment, from its request through the stages on its agent.
//!
//! They are made from what the deployment's events told, when it has ended, so that an agent needs no way to the
//! collector and a trace is whole also after reconnects and restarts. A trace has the deployment's own id, without
//! hyphens. Sent as OTLP over HTTP in JSON (<https://opentelemetry.io/docs/specs/otlp/>).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use jiff::Timestamp;
use sdp_core::{Deployment, DeploymentState, StageRecord, StageStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use url::Url;

use crate::{AppState, ended, queue::Failure};

/// How many wait for a collector that is slow or away; what comes then is not traced.
const WAITING: usize = 1000;
/// How often sending is tried, and the pause in between, which doubles.
const TRIES: (u32, Duration) = (4, Duration::from_secs(1));

/// `[traces]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Where a collector takes traces: `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: Url,
}

/// Traces deployments until the server stops.
pub(crate) async fn run(state: AppState) {
    let Some(TracesConfig { endpoint }) = state.config().traces.clone() else { return };
    let (queue, mut queued) = mpsc::channel(WAITING);
    let traced = ended::each(&state, |deployment| {
        if queue.try_send(trace(deployment)).is_err() {
            tracing::warn!(deployment = %deployment.id, "the collector of traces is behind: one is left out");
        }
    });
    let sent = async {
        while let Some(trace) = queued.recv().await {
            if let Err(reason) = send(&state, &endpoint, trace).await {
                tracing::warn!(reason, "a trace was not taken");
            }
        }
    };
    tokio::join!(traced, state.stopping().run_until_cancelled(sent));
}

async fn send(state: &AppState, endpoint: &Url, trace: Value) -> Result<(), String> {
    let body = Bytes::from(trace.to_string());
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let (tries, mut pause) = TRIES;
    for left in (0..tries).rev() {
        let answer = state.integrations().outgoing.send(Method::POST, endpoint, &json, body.clone()).await;
        match answer.and_then(|answer| answer.success("the trace")) {
            Ok(_) => return Ok(()),
            Err(Failure::Again { after, .. }) if left > 0 => {
                tokio::time::sleep(after.unwrap_or(pause).min(Duration::from_secs(60))).await;
                pause *= 2;
            }
            Err(Failure::Again { why, .. } | Failure::Never(why)) => return Err(why),
        }
    }
    Ok(())
}

/// One deployment's trace.
fn trace(deployment: &Deployment) -> Value {
    let end = deployment.finished_at.unwrap_or(deployment.created_at);
    let mut attributes = vec![
        attribute("sdp.deployment", &deployment.id.to_string()),
        attribute("sdp.repo", deployment.key.repo.as_str()),
        attribute("sdp.branch", deployment.branch.as_str()),
        attribute("sdp.agent", deployment.agent.as_str()),
        attribute("sdp.state", deployment.state.as_str()),
    ];
    attributes.extend(deployment.key.sandbox.as_ref().map(|sandbox| attribute("sdp.sandbox", sandbox.as_str())));
    attributes.extend(deployment.commit.as_ref().map(|commit| attribute("sdp.commit", commit.as_str())));
    let failure = deployment.failure.as_ref().map(|failure| failure.reason.as_str());
    let failed = deployment.state == DeploymentState::Failed;
    let whole = span(deployment, "deployment", None, (deployment.created_at, end), attributes, failed, failure);
    let stages = deployment.stages.iter().map(|record| {
        let StageRecord { stage, status, started_at, ended_at } = record;
        let (failed, reason) = match status {
            StageStatus::Failed => (true, failure),
            _ => (false, None),
        };
        let attributes = vec![attribute("sdp.status", &status.to_string())];
        let times = (*started_at, ended_at.unwrap_or(end));
        span(deployment, &stage.to_string(), Some("deployment"), times, attributes, failed, reason)
    });
    let stages: Vec<_> = stages.collect();
    let agent =
        vec![attribute("service.name", "sdp-agent"), attribute("service.instance.id", deployment.agent.as_str())];
    let server = vec![attribute("service.name", "sdp-server"), attribute("service.version", env!("CARGO_PKG_VERSION"))];
    json!({ "resourceSpans": [of(server, vec![whole]), of(agent, stages)] })
}

fn of(resource: Vec<Value>, spans: Vec<Value>) -> Value {
    json!({ "resource": { "attributes": resource }, "scopeSpans": [{ "scope": { "name": "sdp" }, "spans": spans }] })
}

fn span(
    deployment: &Deployment,
    name: &str,
    parent: Option<&str>,
    (start, end): (Timestamp, Timestamp),
    attributes: Vec<Value>,
    failed: bool,
    reason: Option<&str>,
) -> Value {
    let trace = deployment.id.to_string().replace('-', "");
    let id = |name: &str| -> String {
        let hash = Sha256::new().chain_update(&trace).chain_update(name).finalize();
        hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    };
    // Unset, or error; and server, or internal.
    let (status, kind) = (if failed { 2 } else { 0 }, if parent.is_none() { 2 } else { 1 });
    json!({
        "traceId": trace,
        "spanId": id(name),
        "parentSpanId": parent.map(id).unwrap_or_default(),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": start.as_nanosecond().to_string(),
        "endTimeUnixNano": end.max(start).as_nanosecond().to_string(),
        "attributes": attributes,
        "status": { "code": status, "message": reason.unwrap_or_default() },
    })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}
