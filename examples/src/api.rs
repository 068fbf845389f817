//! The few calls of the control plane's API that the examples make.

use std::time::Duration;

use futures_util::StreamExt;
use sdp_core::{
    Deployment, DeploymentId, Event, EventKind, Problem, RouteTable, RouteTarget,
    api::{CreateDeployment, LoginResponse, SetRoute, StreamEnd},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};

use crate::Failed;

/// A signed-in user of a control plane.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: SecretString,
}

impl Api {
    /// Signs in with a git user and password.
    ///
    /// # Errors
    /// The server's own sentence when it refuses.
    pub async fn login(base: impl Into<String>, username: &str, password: &str) -> Result<Self, Failed> {
        let base = base.into();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
        let mut api = Self { client, base, token: SecretString::default() };
        let body = serde_json::json!({ "username": username, "password": password });
        let answer: LoginResponse = api.send(reqwest::Method::POST, "/api/login", Some(&body)).await?;
        api.token = answer.token.0;
        Ok(api)
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: token.into().into(), ..self.clone() }
    }

    /// The session's token.
    pub fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// The server's own sentence when it refuses.
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Failed> {
        Ok(self.attempt(method, path, body).await??)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn text(&self, path: &str) -> Result<String, Failed> {
        Ok(self.exchange(reqwest::Method::GET, path, None::<&()>).await??)
    }

    /// Sends a request that may well be refused, and reads its answer or why.
    ///
    /// # Errors
    /// When there is neither.
    pub async fn attempt<B: Serialize, T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Result<T, Problem>, Failed> {
        Ok(match self.exchange(method, path, body).await? {
            Ok(text) => Ok(serde_json::from_str(if text.is_empty() { "null" } else { &text })?),
            Err(problem) => Err(problem),
        })
    }

    async fn exchange<B: Serialize>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Result<String, Problem>, Failed> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if !self.token().is_empty() {
            request = request.bearer_auth(self.token());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let refused = !answer.status().is_success();
        let text = answer.text().await?;
        if refused {
            return serde_json::from_str(&text).map(Err).map_err(|_| Failed(text));
        }
        Ok(Ok(text))
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        self.send(reqwest::Method::GET, path, None::<&()>).await
    }

    /// Posts a body.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failed> {
        self.send(reqwest::Method::POST, path, Some(body)).await
    }

    /// Starts a deployment: into a sandbox, or a quick one.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deploy(&self, sandbox: Option<&str>, body: &CreateDeployment) -> Result<Deployment, Failed> {
        match sandbox {
            Some(name) => self.post(&format!("/api/sandboxes/{name}/deployments"), body).await,
            None => self.post("/api/deployments", body).await,
        }
    }

    /// Reads a deployment.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deployment(&self, id: DeploymentId) -> Result<Deployment, Failed> {
        self.get(&format!("/api/deployments/{id}")).await
    }

    /// Follows a deployment from its first event to its end, and answers it as it is then.
    ///
    /// # Errors
    /// When the stream breaks off before its end.
    pub async fn follow(&self, id: DeploymentId, mut tell: impl FnMut(&EventKind)) -> Result<Deployment, Failed> {
        let url = format!("{}/ws/deployments/{id}", self.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        let bearer =
            HeaderValue::from_str(&format!("Bearer {}", self.token())).map_err(|error| Failed(error.to_string()))?;
        request.headers_mut().insert("authorization", bearer);
        let (mut stream, _) = tokio_tungstenite::connect_async(request).await?;
        while let Some(message) = stream.next().await {
            let Message::Text(text) = message? else { continue };
            for line in text.lines() {
                if serde_json::from_str::<StreamEnd>(line).is_ok() {
                    return self.deployment(id).await;
                }
                tell(&serde_json::from_str::<Event>(line)?.kind);
            }
        }
        Err(Failed(format!("the stream of deployment {id} broke off before its end")))
    }

    /// Points a sandbox's route somewhere.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn route(&self, sandbox: &str, service: &str, target: RouteTarget) -> Result<RouteTable, Failed> {
        let path = format!("/api/sandboxes/{sandbox}/routes/{service}");
        self.send(
            reqwest::Method::PUT,
            &path,
            Some(&SetRoute { target, takeover: false, reason: None, expires_in: None }),
        )
        .await
    }
}
