//! The control plane itself.

use serde_json::{Map, Value};

use super::{Client, ClientError, call::Call};
use crate::api::health::Health;

impl Client {
    /// Whether the server lives.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.json(Call::get("/healthz").unsigned()).await
    }

    /// Whether the server can do its work.
    ///
    /// # Errors
    /// [`EventsUnavailable`](crate::ErrorCode::EventsUnavailable) and others when it cannot.
    pub async fn readiness(&self) -> Result<Health, ClientError> {
        self.json(Call::get("/readyz").unsigned()).await
    }

    /// Its metrics, in the text format of Prometheus.
    ///
    /// # Errors
    /// As every request.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        Ok(self.send(Call::get("/metrics").unsigned().accept("*/*")).await?.text())
    }

    /// The description of its API, OpenAPI 3.1.
    ///
    /// # Errors
    /// As every request.
    pub async fn openapi(&self) -> Result<Map<String, Value>, ClientError> {
        self.json(Call::get("/api/openapi.json").unsigned()).await
    }
}
