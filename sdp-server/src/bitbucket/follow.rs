//! What is done for pull requests and pushes. Each is brought to where it should be, from wherever it is, so that it
//! can be done again after a failure or a restart.

use jiff::Timestamp;
use sdp_core::{
    AuditSubject, BranchName, DeploymentState, InstanceKey, Manifest, Problem, SandboxState, ServiceSpec,
    api::{DeployedSandbox, audit::AuditAction},
};

use super::{Bitbucket, BitbucketRepo, sandbox_name};
use crate::{
    ApiError, AppState,
    hub::Asker,
    queue::{Failure, Work, task},
    sandboxes::{self, By},
    store::{Deed, Expected, PullRequestKey, PullRequestRecord, SandboxRecord},
};

/// How a pull request's sandbox came out.
#[derive(Debug, Default)]
struct Done {
    sandbox: Option<sdp_core::SandboxName>,
    deployed: Option<String>,
    problem: Option<String>,
}

/// Brings a pull request's sandbox to where the pull request is, and has it told.
///
/// # Errors
/// When it can work out later.
pub(crate) async fn follow(state: &AppState, bitbucket: &Bitbucket, key: &PullRequestKey) -> Result<(), Failure> {
    let Some(record) = state.store().pull_request(key).await? else { return Ok(()) };
    let Some(repo) = bitbucket.config.repo(&key.repository) else {
        return Err(Failure::never(format!("{} is not configured any more", key.repository)));
    };
    let done = match record.told.state.is_closed() {
        true => close(state, bitbucket, &record).await,
        false => open(state, bitbucket, repo, key, &record).await,
    };
    let failure = match done {
        Ok(Done { sandbox, deployed, problem }) => {
            state.store().set_pull_request_done(key, sandbox, deployed, problem).await?;
            None
        }
        Err(Failure::Never(why)) => {
            // As it was claimed meanwhile.
            let sandbox = state.store().pull_request(key).await?.and_then(|record| record.sandbox);
            let deployed = Some(record.told.commit.clone());
            state.store().set_pull_request_done(key, sandbox, deployed, Some(why.clone())).await?;
            Some(Failure::Never(why))
        }
        Err(later) => Some(later),
    };
    if bitbucket.reports() {
        state.store().enqueue(task(&Work::Report(key.clone()))).await?;
    }
    failure.map_or(Ok(()), Err)
}

async fn close(state: &AppState, bitbucket: &Bitbucket, record: &PullRequestRecord) -> Result<Done, Failure> {
    let Some(name) = record.sandbox.clone() else { return Ok(Done::default()) };
    let present = state.store().sandbox_record(&name).await?;
    if present.is_some_and(|present| present.sandbox.owner != bitbucket.config.owner) {
        tracing::warn!(sandbox = %name, "this sandbox was made by hand: it stays when its pull request is closed");
        return Ok(Done::default());
    }
    if state.store().begin_delete(&name).await?.is_some() {
        tracing::info!(sandbox = %name, pull_request = record.told.state.as_str(), "sandbox is being deleted");
        let subject = AuditSubject::sandbox(&name);
        let detail = format!("its pull request is {}", record.told.state.as_str());
        state.audit(vec![Deed::of_the_platform(AuditAction::SandboxDelete, subject).detail(detail)]).await;
        let turn = state.turns().take(&name).await;
        // What is in the way is kept with the sandbox, and it is tried again.
        let stopping = state.stopping().clone();
        let _ = stopping.run_until_cancelled(sandboxes::step(state, &name, turn)).await;
    }
    Ok(Done { sandbox: Some(name), deployed: None, problem: None })
}

async fn open(
    state: &AppState,
    bitbucket: &Bitbucket,
    repo: &BitbucketRepo,
    key: &PullRequestKey,
    record: &PullRequestRecord,
) -> Result<Done, Failure> {
    let told = &record.told;
    if told.is_from_elsewhere {
        let problem = "its branch is in another repository, and what others push there is not run here";
        return Ok(Done { problem: Some(problem.into()), ..Done::default() });
    }
    let Some(template) = &repo.template else {
        return Err(Failure::never("there is no template for pull requests any more"));
    };
    let name = sandbox_name(&repo.repo, key.number);
    let asker = Asker { user: bitbucket.config.owner.clone(), credentials: None };
    let turn = state.turns().take(&name).await;
    let present = state.store().sandbox_record(&name).await?;
    if let Some(present) = &present
        && (record.sandbox.as_ref() != Some(&name) || present.sandbox.owner != asker.user)
    {
        let owner = &present.sandbox.owner;
        return Err(Failure::never(format!("a sandbox {name} of {owner} is there already, made by hand; delete it")));
    }
    // Before it is made: after a crash it is known whose it is.
    state.store().set_pull_request_done(key, Some(name.clone()), record.deployed.clone(), None).await?;
    let done =
        |problem: Option<String>| Done { sandbox: Some(name.clone()), deployed: Some(told.commit.clone()), problem };
    let is_complete = record.deployed.is_some() && record.problem.is_none();
    if let Some(present) = &present {
        keep(state, repo, present).await?;
    }
    // How long it lives from when it was made is for a new one.
    let expires_in = repo.expires_in.filter(|_| present.is_none());
    let Some(present) = present.filter(|_| is_complete) else {
        let manifest = Manifest {
            environment: repo.environment.clone(),
            template: Some(template.clone()),
            branches: [(repo.repo.clone(), told.branch.clone())].into(),
            expires_in,
            ..Manifest::default()
        };
        let plan = sandboxes::plan(state, &name, &manifest).await?;
        let applied = sandboxes::apply(state, &name, plan, asker, By::Platform, turn).await?;
        return Ok(done(refusal(applied.deployed)?));
    };
    if record.deployed.as_ref() == Some(&told.commit)
        && present.shape.services.get(&repo.repo).is_some_and(|service| service.branch == told.branch)
    {
        return Ok(done(None));
    }
    let service = ServiceSpec {
        branch: told.branch.clone(),
        ..present.shape.services.get(&repo.repo).cloned().unwrap_or_else(|| ServiceSpec {
            repo: repo.repo.clone(),
            branch: told.branch.clone(),
            host_port: None,
            env: Default::default(),
        })
    };
    let deployed = deploy(state, asker, present, service).await?;
    Ok(done(refusal(deployed)?))
}

/// Has a sandbox live as long again from now, unless it lives longer anyway.
async fn keep(state: &AppState, repo: &BitbucketRepo, present: &SandboxRecord) -> Result<(), Failure> {
    let sandbox = &present.sandbox;
    let lifetime = repo.expires_in.unwrap_or(sandbox.expires_at.duration_since(sandbox.created_at).unsigned_abs());
    let lifetime = lifetime.min(state.config().sandbox_lifetime.max(repo.expires_in.unwrap_or_default()));
    if let Ok(end) = Timestamp::now().checked_add(lifetime)
        && end > sandbox.expires_at
    {
        state.store().change_sandbox(&sandbox.name, &Expected::ANY, Some(end), None).await?;
    }
    Ok(())
}

async fn deploy(
    state: &AppState,
    asker: Asker,
    present: SandboxRecord,
    service: ServiceSpec,
) -> Result<DeployedSandbox, Failure> {
    let name = present.sandbox.name.clone();
    let deployed = sandboxes::deploy_each(state, &asker, present.sandbox, std::iter::once(&service)).await?;
    let begun = deployed.deployments.iter().map(|deployment| {
        let subject = AuditSubject::instance(&deployment.key);
        let detail = format!("branch {} on agent {}", deployment.branch, deployment.agent);
        Deed::of_the_platform(AuditAction::Deploy, subject).deployment(deployment.id).detail(detail)
    });
    state.audit(begun.collect()).await;
    if !present.shape.routes.is_empty() && !deployed.deployments.is_empty() {
        state.store().set_routes_due(&name, true).await?;
    }
    Ok(deployed)
}

/// Why not all could be deployed, when trying again is of no use.
///
/// # Errors
/// When it is.
fn refusal(deployed: DeployedSandbox) -> Result<Option<String>, Failure> {
    let told = |problem: &Problem| problem.detail.clone();
    if let Some(later) = deployed.refused.iter().find(|refused| refused.problem.retryable) {
        return Err(Failure::again(told(&later.problem)));
    }
    Ok(deployed.refused.first().map(|refused| format!("{}: {}", refused.repo, told(&refused.problem))))
}

/// Deploys a branch again in every sandbox that has it, but for those of its own pull requests: they are told apart.
///
/// # Errors
/// When it can work out later.
pub(crate) async fn push(
    state: &AppState,
    bitbucket: &Bitbucket,
    repository: &str,
    branch: &BranchName,
    pushed_at: Timestamp,
) -> Result<(), Failure> {
    let Some(repo) = bitbucket.config.repo(repository).filter(|repo| repo.follow_pushes) else { return Ok(()) };
    let asker = Asker { user: bitbucket.config.owner.clone(), credentials: None };
    let mut later = None;
    let service_of = |record: &SandboxRecord| {
        let service = record.shape.services.get(&repo.repo).filter(|service| service.branch == *branch).cloned();
        service.filter(|_| record.sandbox.state == SandboxState::Active)
    };
    for listed in state.store().sandbox_records().await?.iter().filter(|listed| service_of(listed).is_some()) {
        // As it is once nobody else changes it: the service may be taken out meanwhile.
        let _turn = state.turns().take(&listed.sandbox.name).await;
        let Some(record) = state.store().sandbox_record(&listed.sandbox.name).await? else { continue };
        let Some(service) = service_of(&record) else { continue };
        let own = state.store().pull_request_of(&record.sandbox.name).await?;
        if own.is_some_and(|own| own.source == bitbucket.config.name && own.repository == repo.slug) {
            continue;
        }
        // One that was begun since then has what was pushed.
        let key = InstanceKey::in_sandbox(record.sandbox.name.clone(), repo.repo.clone());
        let deployments = state.store().deployments_of(&record.sandbox, &DeploymentState::ALL).await?;
        if deployments.iter().any(|deployment| deployment.key == key && deployment.created_at >= pushed_at) {
            continue;
        }
        let name = record.sandbox.name.clone();
        match deploy(state, asker.clone(), record, service).await.and_then(refusal) {
            Ok(None) => {}
            Ok(Some(problem)) => tracing::warn!(sandbox = %name, problem, "what was pushed is not deployed here"),
            Err(failure) => later = Some(failure),
        }
    }
    later.map_or(Ok(()), Err)
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        use sdp_core::ErrorCode::{Conflict, Internal};
        let ApiError(problem) = error;
        // A sandbox that is being deleted, or a database in trouble, is not so for ever.
        match problem.retryable || matches!(problem.code, Conflict | Internal) {
            true => Self::again(problem.detail),
            false => Self::Never(problem.detail),
        }
    }
}
