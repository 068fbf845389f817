//! What can be deployed.

use super::{
    Client, ClientError,
    call::{Call, segment},
};
use crate::{
    api::{BranchFilter, Repo},
    model::{names::RepoName, repo::Branch},
};

impl Client {
    /// The repos, with the agents that can deploy them.
    ///
    /// # Errors
    /// As every request.
    pub async fn repos(&self) -> Result<Vec<Repo>, ClientError> {
        self.json(Call::get("/api/repos")).await
    }

    /// A repo's branches as the remote has them now.
    ///
    /// # Errors
    /// [`UnknownRepo`](crate::ErrorCode::UnknownRepo), [`AgentAway`](crate::ErrorCode::AgentAway).
    pub async fn branches(&self, repo: &RepoName, filter: &BranchFilter) -> Result<Vec<Branch>, ClientError> {
        self.json(Call::get(format!("/api/repos/{}/branches", segment(repo))).query(filter)).await
    }
}
