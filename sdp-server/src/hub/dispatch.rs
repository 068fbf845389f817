//! Deployments on their way to an agent.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use jiff::Timestamp;
use sdp_core::{
    Agent, AgentName, CommitId, Credentials, DeployRequest, Deployment, DeploymentId, DeploymentState, ErrorCode,
    InstanceKey, Problem, RepoName,
    api::CreateDeployment,
    problem::chain,
    protocol::{CredentialsFrame, ReplyBody, RequestBody},
};

use super::{Hub, RequestError};
use crate::error::ApiError;

/// What a rollback goes back to.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    /// The earlier deployment.
    pub(crate) deployment: DeploymentId,
    /// Its exact commit.
    pub(crate) commit: CommitId,
}

/// Takes a deployment off the list of those on their way, however the sending ends.
struct OnItsWay<'a>(&'a Hub, DeploymentId);

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.0.dispatching().remove(&self.1);
    }
}

impl Hub {
    pub(super) fn dispatching(&self) -> MutexGuard<'_, HashSet<DeploymentId>> {
        self.shared.dispatching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a deployment on the agent asked for, or on the best one.
    ///
    /// # Errors
    /// The agent's own problem, and then the deployment is kept as failed. When the agent goes away
    /// before it answers, the deployment stays queued until it is back and tells.
    pub async fn deploy(
        &self,
        credentials: Credentials,
        sandbox: Option<sdp_core::SandboxName>,
        body: CreateDeployment,
    ) -> Result<Deployment, ApiError> {
        self.deploy_exactly(credentials, sandbox, body, None).await
    }

    /// As [`deploy`](Self::deploy), but what an earlier deployment was, when one is given.
    ///
    /// # Errors
    /// As `deploy`; [`ErrorCode::Unsupported`] when the agent cannot deploy an exact commit.
    pub(crate) async fn deploy_exactly(
        &self,
        credentials: Credentials,
        sandbox: Option<sdp_core::SandboxName>,
        body: CreateDeployment,
        earlier: Option<Earlier>,
    ) -> Result<Deployment, ApiError> {
        let key = InstanceKey { sandbox, repo: body.repo };
        let agent = self.choose(&key, body.agent.as_ref()).await?;
        if earlier.is_some() && !self.knows_exact_commits(&agent).await? {
            let sentence = format!(
                "agent {agent} is too old to deploy an exact commit: it would deploy what is on the branch now; install this server's version there"
            );
            return Err(ApiError(Problem::new(ErrorCode::Unsupported, sentence).holder(agent.as_str())));
        }
        let id = DeploymentId::new();
        let deployment = Deployment {
            id,
            key: key.clone(),
            branch: body.branch.clone(),
            commit: None,
            agent: agent.clone(),
            state: DeploymentState::Queued,
            failure: None,
            host_port: body.host_port,
            url: None,
            env: body.env.clone(),
            user: credentials.username().clone(),
            created_at: Timestamp::now(),
            finished_at: None,
            rollback_of: earlier.as_ref().map(|earlier| earlier.deployment),
            stages: Vec::new(),
        };
        let request = DeployRequest {
            deployment: id,
            key,
            branch: body.branch,
            commit: earlier.map(|earlier| earlier.commit),
            host_port: body.host_port,
            env: body.env,
        };
        // A task of its own: a client that hangs up must not leave a row that nobody sends.
        let hub = self.clone();
        let sent = self.shared.tasks.spawn(async move { hub.send(deployment, request, credentials).await });
        sent.await.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Internal, "the deployment could not be sent")))
    }

    async fn send(
        &self,
        deployment: Deployment,
        request: DeployRequest,
        credentials: Credentials,
    ) -> Result<Deployment, ApiError> {
        let (id, agent) = (deployment.id, deployment.agent.clone());
        self.dispatching().insert(id);
        let on_its_way = OnItsWay(self, id);
        self.shared.store.insert_deployment(&deployment).await?;
        self.publish(vec![deployment.clone()]);
        let body = RequestBody::Deploy { request: Box::new(request), credentials: Some(CredentialsFrame(credentials)) };
        let answer = self.request(&agent, body).await;
        drop(on_its_way);
        match answer {
            Ok(ReplyBody::Done) => Ok(self.shared.store.deployment(id).await?.unwrap_or(deployment)),
            Ok(_) => self.refuse(id, RequestError::Unexpected { agent }).await,
            Err(error @ (RequestError::Lost { .. } | RequestError::Timeout { .. })) => {
                tracing::warn!(deployment = %id, error = chain(&error), "whether a deployment has begun is not known yet");
                let mut problem = Problem::from(&error);
                problem.detail = format!("{}; deployment {id} stays queued until the agent tells", problem.detail);
                Err(ApiError(problem))
            }
            Err(error) => self.refuse(id, error).await,
        }
    }

    async fn refuse(&self, id: DeploymentId, error: RequestError) -> Result<Deployment, ApiError> {
        let problem = Problem::from(&error);
        self.fail(id, problem.code, problem.detail.clone()).await?;
        Err(ApiError(problem))
    }

    async fn knows_exact_commits(&self, agent: &AgentName) -> Result<bool, ApiError> {
        let inventory = self.agents().await?.into_iter().find(|known| known.name == *agent);
        Ok(inventory.and_then(|known| known.inventory).is_some_and(|inventory| inventory.exact_commits))
    }

    /// The agent for a deployment: the one asked for, else the one that runs the key already, else
    /// the connected one with the least to do.
    async fn choose(&self, key: &InstanceKey, asked: Option<&AgentName>) -> Result<AgentName, ApiError> {
        let agents = self.agents().await?;
        let mut candidates: Vec<_> = agents.iter().filter(|agent| declares(agent, &key.repo)).collect();
        if candidates.is_empty() {
            let sentence = format!("no agent declares a repo {}; GET /api/repos lists those there are", key.repo);
            return Err(ApiError::new(ErrorCode::UnknownRepo, sentence).field("repo"));
        }
        if let Some(asked) = asked {
            if !agents.iter().any(|agent| agent.name == *asked) {
                return Err(ApiError::not_found("agent", asked).field("agent"));
            }
            candidates.retain(|agent| agent.name == *asked);
            if candidates.is_empty() {
                let sentence = format!("agent {asked} does not declare the repo {}", key.repo);
                return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("agent"));
            }
        } else if let Some(running) = self.shared.store.running(key).await?
            && candidates.iter().any(|agent| agent.name == running.agent)
        {
            candidates.retain(|agent| agent.name == running.agent);
        }
        let best = candidates.iter().filter(|agent| agent.connected).min_by_key(|agent| agent.active_deployments);
        match (best, candidates.first()) {
            (Some(agent), _) => Ok(agent.name.clone()),
            (None, Some(away)) => Err(self.away(&away.name).await.into()),
            (None, None) => Err(ApiError::not_found("agent for repo", &key.repo)),
        }
    }

    /// Changes a deployment's state after its agent did what was asked.
    pub(crate) async fn set_state(&self, id: DeploymentId, state: DeploymentState) -> Result<Deployment, ApiError> {
        let changed = self.shared.store.set_state(id, state, None).await?;
        let changed = changed.ok_or_else(|| ApiError::not_found("deployment", id))?;
        self.publish(vec![changed.clone()]);
        Ok(changed)
    }
}

/// Whether an agent can deploy a repo.
pub(crate) fn declares(agent: &Agent, repo: &RepoName) -> bool {
    agent.inventory.as_ref().is_some_and(|inventory| inventory.repos.iter().any(|known| known.name == *repo))
}
