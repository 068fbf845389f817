//! Making a sandbox as its document says: what differs is changed, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use sdp_core::{
    AuditSubject, Change, DeploymentState, ErrorCode, Manifest, PresentSandbox, RepoName, RouteTarget, Sandbox,
    SandboxName, SandboxSpec, SandboxState, Shape,
    api::{DeployedSandbox, audit::AuditAction},
};

use super::{deploy::deploy_each, needs_a_step, step};
use crate::{
    ApiError, AppState, api,
    auth::SignedIn,
    hub::Asker,
    store::{Claim, Deed, Expected, Removal, SandboxRecord},
    turns::Turn,
};

/// How long what follows the changes is waited for: the rest is done later.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be done to a sandbox.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The sandbox as it is; none when it is still to be made.
    pub(crate) record: Option<SandboxRecord>,
    /// As it is to be.
    pub(crate) wanted: SandboxSpec,
    /// What differs.
    pub(crate) changes: Vec<Change>,
    /// When it was found out: a new sandbox is made then, and expires so long after.
    at: Timestamp,
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) changes: Vec<Change>,
    pub(crate) deployed: DeployedSandbox,
}

/// Finds out what has to change for a sandbox to be as its document says.
///
/// # Errors
/// When the document names what there is not, contradicts itself, or asks for what a sandbox cannot become.
pub(crate) async fn plan(state: &AppState, name: &SandboxName, manifest: &Manifest) -> Result<Plan, ApiError> {
    if let Some(other) = manifest.name.as_ref().filter(|other| *other != name) {
        let sentence = format!("the document is of sandbox {other}, and is applied to {name}");
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("name"));
    }
    let template = match &manifest.template {
        Some(template) => {
            let found = state.store().template(template).await?;
            Some(found.ok_or_else(|| ApiError::not_found("template", template).field("template"))?)
        }
        None => None,
    };
    let shape = manifest
        .shape(template.as_ref().map(|template| &template.shape))
        .map_err(|error| ApiError::new(ErrorCode::InvalidInput, error.to_string()).field(error.field()))?;
    let record = state.store().sandbox_record(name).await?;
    let mut lifetime = template.and_then(|template| template.expires_in);
    let environment = match (&manifest.environment, &record) {
        (None, Some(record)) => record.sandbox.environment.clone(),
        (named, _) => {
            let name = named.clone().unwrap_or_default();
            let found = api::find_environment(state, &name).await.map_err(|error| error.field("environment"))?;
            lifetime = lifetime.or(found.sandbox_lifetime);
            name
        }
    };
    let lifetime = lifetime.unwrap_or(state.config().sandbox_lifetime);
    let at = crate::store::now();
    let expires_at = expiry(manifest, record.as_ref().map(|record| &record.sandbox), lifetime, at)?;
    let wanted = SandboxSpec { environment, shape, expires_at };
    let present = match &record {
        Some(record) => {
            record.admit()?;
            Some(present(state, record).await?)
        }
        None => None,
    };
    let changes = sdp_core::changes(present.as_ref(), &wanted)
        .map_err(|error| ApiError::new(ErrorCode::Conflict, format!("sandbox {name}: {error}")).field("environment"))?;
    Ok(Plan { record, wanted, changes, at })
}

/// What a sandbox was made to be.
pub(crate) fn spec(record: &SandboxRecord) -> SandboxSpec {
    let Sandbox { environment, expires_at, .. } = record.sandbox.clone();
    SandboxSpec { environment, shape: record.shape.clone(), expires_at }
}

async fn present(state: &AppState, record: &SandboxRecord) -> Result<PresentSandbox, ApiError> {
    let mut undeployed: BTreeSet<_> = record.shape.services.iter().map(|service| service.repo.clone()).collect();
    let mut seen = BTreeSet::new();
    for deployment in state.store().deployments_of(&record.sandbox, &DeploymentState::ALL).await? {
        let is_newest = seen.insert(deployment.key.repo.clone());
        if is_newest && !matches!(deployment.state, DeploymentState::Failed | DeploymentState::Cancelled) {
            undeployed.remove(&deployment.key.repo);
        }
    }
    Ok(PresentSandbox { spec: spec(record), undeployed })
}

/// When it expires: as the document says; else as it does already, or for a new one after `lifetime`. To the
/// microsecond, as it is kept.
fn expiry(
    manifest: &Manifest,
    sandbox: Option<&Sandbox>,
    lifetime: Duration,
    now: Timestamp,
) -> Result<Timestamp, ApiError> {
    let made = sandbox.map_or(now, |sandbox| sandbox.created_at);
    let (end, field) = match (manifest.expires_at, manifest.expires_in, sandbox) {
        (Some(end), ..) => (Some(end), "expires_at"),
        (None, Some(lifetime), _) => (made.checked_add(lifetime).ok(), "expires_in"),
        (None, None, Some(sandbox)) => return Ok(sandbox.expires_at),
        (None, None, None) => (made.checked_add(lifetime).ok(), "expires_in"),
    };
    let end = end.and_then(|end| Timestamp::from_microsecond(end.as_microsecond()).ok());
    match end {
        // What is over for a sandbox that is there already is no news: it is about to go.
        Some(end) if end > now || sandbox.is_some_and(|sandbox| sandbox.expires_at == end) => Ok(end),
        Some(end) => {
            let sentence = format!("the sandbox would have expired at {end}; give a time to come");
            Err(ApiError::new(ErrorCode::InvalidInput, sentence).field(field))
        }
        None => Err(ApiError::new(ErrorCode::InvalidInput, "that is too far away; write \"7d\"").field(field)),
    }
}

/// In whose name a document is applied.
#[derive(Debug)]
pub(crate) enum By<'a> {
    /// Somebody who is signed in.
    Person(&'a SignedIn),
    /// The platform, for whom the asker names.
    Platform,
}

impl By<'_> {
    fn deed(&self, action: AuditAction, subject: AuditSubject) -> Deed {
        match self {
            Self::Person(signed_in) => signed_in.deed(action, subject),
            Self::Platform => Deed::of_the_platform(action, subject),
        }
    }

    fn signed_in(&self) -> Option<&SignedIn> {
        match self {
            Self::Person(signed_in) => Some(signed_in),
            Self::Platform => None,
        }
    }
}

/// Carries a plan out. What agents that are away keep of it is done when they are back, but for deployments: those are
/// begun when the document is applied again.
///
/// # Errors
/// When a route could not be given back, or the database fails. Applied again, it goes on from there.
pub(crate) async fn apply(
    state: &AppState,
    name: &SandboxName,
    plan: Plan,
    asker: Asker,
    by: By<'_>,
    turn: Turn,
) -> Result<Applied, ApiError> {
    let Plan { record, wanted, changes, at } = plan;
    let store = state.store();
    let routes_left = record.as_ref().is_some_and(|record| record.problem.is_some() && !record.shape.routes.is_empty());
    let sandbox = match record {
        Some(record) => record.sandbox,
        None => {
            let sandbox = Sandbox {
                name: name.clone(),
                environment: wanted.environment.clone(),
                owner: asker.user.clone(),
                shared_with: BTreeSet::new(),
                created_at: at,
                expires_at: wanted.expires_at,
                state: SandboxState::Active,
            };
            store.insert_sandbox(&sandbox, &Shape::default()).await?;
            sandbox
        }
    };
    if !changes.is_empty() {
        let done: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let deed = by.deed(AuditAction::SandboxApply, AuditSubject::sandbox(name)).detail(done.join("; "));
        state.audit(vec![deed]).await;
    }
    let (mut back, mut routes, mut removed) = (api::Wanted::default(), BTreeMap::new(), BTreeSet::new());
    for change in &changes {
        match change {
            Change::SetExpiry { to, .. } => drop(store.change_sandbox(name, &Expected::ANY, Some(*to), None).await?),
            Change::RemoveService { repo } => drop(removed.insert(repo.clone())),
            Change::SetRoute { service, to: RouteTarget::Ocp, .. } => {
                back.routes.insert(service.clone(), (RouteTarget::Ocp, Claim::default()));
            }
            Change::SetRoute { service, to, .. } => drop(routes.insert(service.clone(), to.clone())),
            _ => {}
        }
    }
    // First, so that nobody is sent to what is about to go.
    give_back(state, name, back, &by).await?;
    if !removed.is_empty() {
        take_out(state, &sandbox, removed).await?;
    }
    let routes_due = !routes.is_empty();
    if routes_due {
        store.want_routes(name, routes).await?;
    }
    let services = changes.iter().filter_map(Change::deploys);
    let deployed = deploy_each(state, &asker, sandbox, services).await?;
    let begun = deployed.deployments.iter().map(|deployment| {
        let detail = format!("branch {} on agent {}", deployment.branch, deployment.agent);
        let subject = AuditSubject::instance(&deployment.key);
        by.deed(AuditAction::Deploy, subject).deployment(deployment.id).detail(detail)
    });
    state.audit(begun.collect()).await;
    let has_routes = !wanted.shape.routes.is_empty();
    // A service that is deployed again may have taken its route along when it failed.
    if routes_due || routes_left || (has_routes && !deployed.deployments.is_empty()) {
        store.set_routes_due(name, true).await?;
    }
    follow_up(state, name, turn).await?;
    Ok(Applied { changes, deployed })
}

async fn give_back(state: &AppState, name: &SandboxName, back: api::Wanted, by: &By<'_>) -> Result<(), ApiError> {
    if back.routes.is_empty() {
        return Ok(());
    }
    let targets = back.routes.keys().map(|service| (service.clone(), RouteTarget::Ocp)).collect();
    match api::set_routes(state, by.signed_in(), name, back).await {
        Ok(_) => Ok(()),
        // There is nothing of it on any gateway: only the wish is to be forgotten.
        Err(error)
            if matches!(
                error.0.code,
                ErrorCode::NotFound | ErrorCode::UnknownService | ErrorCode::RouteClaimed | ErrorCode::Conflict
            ) =>
        {
            Ok(state.store().want_routes(name, targets).await?)
        }
        Err(error) => Err(error),
    }
}

async fn take_out(state: &AppState, sandbox: &Sandbox, repos: BTreeSet<RepoName>) -> Result<(), ApiError> {
    let (mut has, mut ids) = (Vec::new(), BTreeSet::new());
    for deployment in state.store().deployments_of(sandbox, &DeploymentState::ALL).await? {
        if repos.contains(&deployment.key.repo) {
            ids.insert(deployment.id);
            let removal = Removal { agent: deployment.agent, repo: deployment.key.repo };
            if !has.contains(&removal) {
                has.push(removal);
            }
        }
    }
    state.store().take_out(&sandbox.name, repos, has, ids).await?;
    Ok(())
}

/// Does at once what can be done, for a while; what is in the way is kept with the sandbox, and tried again.
async fn follow_up(state: &AppState, name: &SandboxName, turn: Turn) -> Result<(), ApiError> {
    if !state.store().sandbox_record(name).await?.is_some_and(|record| needs_a_step(&record)) {
        return Ok(());
    }
    let (stepping, at) = (state.clone(), name.clone());
    let stepped = tokio::spawn(async move {
        let stopping = stepping.stopping().clone();
        stopping.run_until_cancelled(step(&stepping, &at, turn)).await
    });
    let _ = tokio::time::timeout(PATIENCE, stepped).await;
    Ok(())
}
