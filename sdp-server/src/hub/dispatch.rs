//! Deployments on their way to an agent.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{MutexGuard, PoisonError},
};

use sdp_core::{
    Agent, AgentName, CommitId, Credentials, DeployRequest, Deployment, DeploymentId, DeploymentState, EnvName,
    Environment, ErrorCode, HostPort, InstanceKey, Problem, RepoName, Sandbox, UserName,
    api::CreateDeployment,
    problem::chain,
    protocol::{CredentialsFrame, ReplyBody, RequestBody},
};

use super::{Hub, RequestError};
use crate::{error::ApiError, store::PortChoice};

/// Where a deployment goes.
#[derive(Debug, Clone, Default)]
pub struct Destination {
    /// The sandbox; none for a quick deploy.
    pub sandbox: Option<Sandbox>,
    /// The environment the sandbox lives in.
    pub environment: Option<Environment>,
}

impl Destination {
    pub(crate) fn key(&self, repo: RepoName) -> InstanceKey {
        InstanceKey { sandbox: self.sandbox.as_ref().map(|sandbox| sandbox.name.clone()), repo }
    }

    fn allows(&self, agent: &AgentName) -> bool {
        self.environment.as_ref().is_none_or(|environment| environment.allows(agent))
    }

    /// Refuses a host port that the environment does not have.
    fn check_port(&self, port: Option<HostPort>) -> Result<(), ApiError> {
        let environment = self.environment.as_ref();
        let Some((port, (name, ports))) = port.zip(environment.and_then(|it| Some((&it.name, it.ports.as_ref()?))))
        else {
            return Ok(());
        };
        if ports.contains(port) {
            return Ok(());
        }
        let sentence = format!("host port {port} is not one of environment {name}, which has {ports}");
        Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("host_port"))
    }

    /// The environment's variables, and over them those of the request.
    fn env(&self, own: &BTreeMap<EnvName, String>) -> BTreeMap<EnvName, String> {
        let mut env = self.environment.as_ref().map(|environment| environment.env.clone()).unwrap_or_default();
        env.extend(own.clone());
        env
    }
}

/// Who wants a deployment, and the git credentials for it; without any the agent uses those its operator configured.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Who.
    pub user: UserName,
    /// The credentials.
    pub credentials: Option<Credentials>,
}

/// What a rollback goes back to.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    /// The earlier deployment.
    pub(crate) deployment: DeploymentId,
    /// Its exact commit.
    pub(crate) commit: CommitId,
}

/// How a deployment takes the place of the one before.
struct Swap {
    port: PortChoice,
    /// Whether both serve, where their ports allow it, until the routes have followed.
    beside: bool,
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
        asker: Asker,
        destination: Destination,
        body: CreateDeployment,
    ) -> Result<Deployment, ApiError> {
        self.deploy_exactly(asker, destination, body, None).await
    }

    /// As [`deploy`](Self::deploy), but what an earlier deployment was, when one is given.
    ///
    /// # Errors
    /// As `deploy`; [`ErrorCode::Unsupported`] when the agent cannot deploy an exact commit.
    pub(crate) async fn deploy_exactly(
        &self,
        asker: Asker,
        destination: Destination,
        body: CreateDeployment,
        earlier: Option<Earlier>,
    ) -> Result<Deployment, ApiError> {
        let Asker { user, credentials } = asker;
        let credentials = body.credentials.map(|CredentialsFrame(given)| given).or(credentials);
        destination.check_port(body.host_port)?;
        let agent = self.choose(&destination, &body.repo, body.agent.as_ref(), &BTreeMap::new()).await?;
        let key = destination.key(body.repo);
        let env = destination.env(&body.env);
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
            env: body.env,
            user,
            created_at: crate::store::now(),
            finished_at: None,
            rollback_of: earlier.as_ref().map(|earlier| earlier.deployment),
            stages: Vec::new(),
        };
        let request = DeployRequest {
            deployment: id,
            commit: earlier.map(|earlier| earlier.commit),
            host_port: body.host_port,
            force: body.force,
            env,
            ..DeployRequest::new(key, body.branch)
        };
        let swap = self.swap(&agent, &request, destination.environment.as_ref()).await?;
        // A task of its own: a client that hangs up must not leave a row that nobody sends.
        let hub = self.clone();
        let sent = self.shared.tasks.spawn(async move { hub.send(deployment, request, swap, credentials).await });
        sent.await.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Internal, "the deployment could not be sent")))
    }

    async fn send(
        &self,
        deployment: Deployment,
        mut request: DeployRequest,
        swap: Swap,
        credentials: Option<Credentials>,
    ) -> Result<Deployment, ApiError> {
        let (id, agent) = (deployment.id, deployment.agent.clone());
        self.dispatching().insert(id);
        let on_its_way = OnItsWay(self, id);
        if let PortChoice::Picked { range, .. } = &swap.port {
            request.port_range = Some(range.clone());
        }
        let store = &self.shared.store;
        let reserved = store.insert_deployment_with_port(&deployment, swap.port).await?;
        request.retire_on_request = swap.beside && store.await_retirement(&deployment).await?;
        request.picked_port = reserved.filter(|_| request.host_port.is_none());
        self.publish(vec![deployment.clone()]);
        let body = RequestBody::Deploy { request: Box::new(request), credentials: credentials.map(CredentialsFrame) };
        let answer = self.request(&agent, body).await;
        drop(on_its_way);
        match answer {
            Ok(ReplyBody::Done) => Ok(self.shared.store.deployment(id).await?.unwrap_or(deployment)),
            Ok(_) => self.refuse(id, RequestError::Unexpected { agent }).await,
            Err(error @ (RequestError::Lost { .. } | RequestError::Timeout { .. })) => {
                tracing::warn!(deployment = %id, error = chain(&error), "whether a deployment has begun is not known yet");
                // Said to have failed, it would be asked for twice.
                Ok(deployment)
            }
            Err(error) => self.refuse(id, error).await,
        }
    }

    /// How a deployment on `agent` takes the place of the one before. Its port is from the environment's range, or
    /// else the agent's.
    async fn swap(
        &self,
        agent: &AgentName,
        request: &DeployRequest,
        environment: Option<&Environment>,
    ) -> Result<Swap, ApiError> {
        let agents = self.agents().await?;
        let inventory = agents.iter().find(|known| known.name == *agent).and_then(|known| known.inventory.as_ref());
        let chosen = request.host_port.map(PortChoice::Chosen);
        let Some(inventory) = inventory else {
            return Ok(Swap { port: chosen.unwrap_or(PortChoice::Agents), beside: false });
        };
        let repo = inventory.repos.iter().find(|repo| repo.name == request.key.repo);
        let is_routed = request.key.sandbox.is_some() && repo.is_some_and(|repo| repo.service.is_some());
        // Another port only where the routes follow at once: while the gateway's agent is there.
        let gateway = environment.and_then(|environment| environment.gateway.as_ref());
        let follows = agents.iter().any(|known| {
            let has_gateway = known.inventory.as_ref().is_some_and(|inventory| inventory.gateway.is_some());
            known.connected && has_gateway && gateway.is_none_or(|gateway| *gateway == known.name)
        });
        let beside = is_routed && follows && inventory.serves_beside;
        let range = environment.and_then(|environment| environment.ports.clone());
        let picked = range.or_else(|| inventory.port_range.clone());
        let picked = picked.map(|range| PortChoice::Picked { range, anew: beside });
        Ok(Swap { port: chosen.or(picked).unwrap_or(PortChoice::Agents), beside })
    }

    async fn refuse(&self, id: DeploymentId, error: RequestError) -> Result<Deployment, ApiError> {
        let problem = Problem::from(&error);
        self.fail(id, problem.code, problem.detail.clone()).await?;
        Err(ApiError(problem))
    }

    async fn knows_exact_commits(&self, agent: &AgentName) -> Result<bool, ApiError> {
        Ok(self.agent(agent).await?.and_then(|known| known.inventory).is_some_and(|inventory| inventory.exact_commits))
    }

    /// The agent for a deployment: the one asked for, else the one that has the repo there already, else the
    /// connected one with the least to do. `planned` is what is to begin besides.
    pub(crate) async fn choose(
        &self,
        destination: &Destination,
        repo: &RepoName,
        asked: Option<&AgentName>,
        planned: &BTreeMap<AgentName, u32>,
    ) -> Result<AgentName, ApiError> {
        let agents = self.agents().await?;
        let mut candidates: Vec<_> = agents.iter().filter(|agent| declares(agent, repo)).collect();
        if candidates.is_empty() {
            let sentence = format!("no agent declares a repo {repo}; GET /api/repos lists those there are");
            return Err(ApiError::new(ErrorCode::UnknownRepo, sentence).field("repo"));
        }
        if let Some(environment) = &destination.environment {
            candidates.retain(|agent| environment.allows(&agent.name));
            if candidates.is_empty() {
                let sentence = format!("no agent of environment {} declares the repo {repo}", environment.name);
                return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("repo"));
            }
        }
        if let Some(asked) = asked {
            if !agents.iter().any(|agent| agent.name == *asked) {
                return Err(ApiError::not_found("agent", asked).field("agent"));
            }
            candidates.retain(|agent| agent.name == *asked);
            if candidates.is_empty() {
                let sentence = match &destination.environment {
                    Some(environment) if !destination.allows(asked) => {
                        format!("agent {asked} is none of environment {}", environment.name)
                    }
                    _ => format!("agent {asked} does not declare the repo {repo}"),
                };
                return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("agent"));
            }
        } else if let Some(placed) = self.placed(destination, repo).await?
            && candidates.iter().any(|agent| agent.name == placed)
        {
            candidates.retain(|agent| agent.name == placed);
        }
        let load = |agent: &Agent| agent.active_deployments + planned.get(&agent.name).copied().unwrap_or_default();
        let best = candidates.iter().filter(|agent| agent.connected).min_by_key(|agent| load(agent));
        match (best, candidates.first()) {
            (Some(agent), _) => Ok(agent.name.clone()),
            (None, Some(away)) => Err(self.away(&away.name).await.into()),
            (None, None) => Err(ApiError::not_found("agent for repo", repo)),
        }
    }

    /// The agent that has the repo there already: it runs, or it sleeps.
    async fn placed(&self, destination: &Destination, repo: &RepoName) -> Result<Option<AgentName>, ApiError> {
        let store = &self.shared.store;
        let Some(sandbox) = &destination.sandbox else {
            return Ok(store.running(&destination.key(repo.clone())).await?.map(|running| running.agent));
        };
        let placed = store.deployments_of(sandbox, &[DeploymentState::Running, DeploymentState::Stopped]).await?;
        Ok(placed.into_iter().find(|deployment| deployment.key.repo == *repo).map(|deployment| deployment.agent))
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
