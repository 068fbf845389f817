//! Deployments.

use futures_util::{StreamExt, stream::BoxStream};

use super::{
    Client, ClientError,
    call::{Call, segment},
    paging,
    sandboxes::again,
};
use crate::{
    api::{CreateDeployment, DeploymentFilter, Page, vitals::RunningStats},
    model::{credentials::Credentials, deployment::Deployment, ids::DeploymentId},
};

pub(super) fn path(id: DeploymentId) -> String {
    format!("/api/deployments/{}", segment(id.to_string()))
}

impl Client {
    /// One page of the history, the newest first.
    ///
    /// # Errors
    /// As every request.
    pub async fn deployments(&self, filter: &DeploymentFilter) -> Result<Page<Deployment>, ClientError> {
        self.json(Call::get("/api/deployments").query(filter)).await
    }

    /// Every deployment that the filter lets through, the newest first, page by page; its `limit` is the size of a
    /// page.
    pub fn all_deployments(&self, filter: DeploymentFilter) -> BoxStream<'static, Result<Deployment, ClientError>> {
        let client = self.clone();
        let ask = move |filter| {
            let client = client.clone();
            async move { client.deployments(&filter).await }
        };
        paging::items(filter, ask).boxed()
    }

    /// Deploys a branch outside any sandbox. Answers when the deployment is accepted; [`follow`](Self::follow) it.
    ///
    /// # Errors
    /// [`UnknownRepo`](crate::ErrorCode::UnknownRepo), [`AgentAway`](crate::ErrorCode::AgentAway) and others.
    pub async fn deploy(&self, body: &CreateDeployment) -> Result<Deployment, ClientError> {
        self.json(Call::create("/api/deployments").json(body)).await
    }

    /// A deployment.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn deployment(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        self.json(Call::get(path(id))).await
    }

    /// What a deployment that runs uses of its machine now.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when it does not run.
    pub async fn deployment_stats(&self, id: DeploymentId) -> Result<RunningStats, ClientError> {
        self.json(Call::get(format!("{}/stats", path(id)))).await
    }

    /// Cancels a deployment that has not ended.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when it has.
    pub async fn cancel_deployment(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        self.act(id, "cancel").await
    }

    /// Stops what a deployment runs.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when it runs nothing.
    pub async fn stop_deployment(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        self.act(id, "stop").await
    }

    /// Starts it again.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when there is nothing to start.
    pub async fn restart_deployment(&self, id: DeploymentId) -> Result<Deployment, ClientError> {
        self.act(id, "restart").await
    }

    /// Deploys the same once more, for whoever asks.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub async fn retry_deployment(
        &self,
        id: DeploymentId,
        credentials: Option<&Credentials>,
    ) -> Result<Deployment, ClientError> {
        self.json(Call::create(format!("{}/retry", path(id))).json(&again(credentials))).await
    }

    /// Deploys exactly what an earlier deployment was: this one if it was replaced, the last that was something else
    /// if it is what runs.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when there is none to go back to.
    pub async fn roll_back_deployment(
        &self,
        id: DeploymentId,
        credentials: Option<&Credentials>,
    ) -> Result<Deployment, ClientError> {
        self.json(Call::create(format!("{}/rollback", path(id))).json(&again(credentials))).await
    }

    async fn act(&self, id: DeploymentId, what: &str) -> Result<Deployment, ClientError> {
        self.json(Call::post(format!("{}/{what}", path(id)))).await
    }
}
