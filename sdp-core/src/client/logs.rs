//! A deployment's log as a document.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use http_body_util::BodyExt;

use super::{Client, ClientError, call::Call, deployments::path, exchange::BodyError};
use crate::{
    api::logs::{LogFormat, LogQuery},
    model::{event::Event, ids::DeploymentId},
};

fn call(id: DeploymentId, query: &LogQuery) -> Call {
    Call::get(format!("{}/log", path(id))).query(query).accept("*/*")
}

impl Client {
    /// What a deployment's log has now, as text of the format asked for.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound), also when the log is so old that it was removed.
    pub async fn log_text(&self, id: DeploymentId, query: &LogQuery) -> Result<String, ClientError> {
        Ok(self.send(call(id, query)).await?.text())
    }

    /// What a deployment's log has now, as events.
    ///
    /// # Errors
    /// As [`log_text`](Self::log_text).
    pub async fn log_events(&self, id: DeploymentId, query: &LogQuery) -> Result<Vec<Event>, ClientError> {
        let call = call(id, &LogQuery { format: LogFormat::Ndjson, ..*query });
        let what = call.to_string();
        let answer = self.send(call).await?;
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|source| ClientError::Unreadable {
            server: self.address().to_string(),
            what,
            source,
        })
    }

    /// What a deployment's log has now, as it comes: for logs that are larger than memory ought to be. It is not begun
    /// again when the connection breaks.
    ///
    /// # Errors
    /// As [`log_text`](Self::log_text).
    pub async fn log_stream(
        &self,
        id: DeploymentId,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        self.download(call(id, query)).await
    }

    /// An answer's body as it comes.
    pub(super) async fn download(
        &self,
        call: Call,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let (server, what) = (self.address().to_string(), call.to_string());
        let bytes = self.open(&call).await?.into_data_stream();
        let broken = move |source: BodyError| ClientError::Broken {
            server: server.clone(),
            what: what.clone(),
            source: source.into(),
        };
        Ok(bytes.map_err(broken).boxed())
    }
}
