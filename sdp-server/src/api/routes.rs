//! Routes of the gateway, read and set for a sandbox: of its own gateway if it brings one, of the shared one otherwise.

use std::{collections::BTreeMap, time::Duration};

use axum::extract::State;
use jiff::Timestamp;
use schemars::JsonSchema;
use sdp_core::{
    Agent, AuditSubject, ErrorCode, InstanceKey, Override, OverrideKind, RouteChanges, RouteTable, RouteTarget,
    Sandbox, SandboxName, ServiceName, ServiceUrl, TakenRoute,
    api::{SetRoute, SetRoutes, audit::AuditAction, routing::LostRoute},
};
use serde::Deserialize;

use super::{
    Json, Path, in_full,
    sandboxes::{SandboxPath, find, find_live},
};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    routing::{gateway_among, gateway_of},
    store::{Claim, Deed, RoutesSet},
};

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RoutePath {
    pub(super) name: SandboxName,
    pub(super) service: ServiceName,
}

pub(super) async fn table(
    State(state): State<AppState>,
    Path(path): Path<SandboxPath>,
) -> Result<Json<RouteTable>, ApiError> {
    let sandbox = find(&state, &path.name).await?;
    let gateway = gateway_of(&state, Some(&sandbox)).await?;
    let own = gateway.own.map(|_| sandbox.name);
    Ok(Json(state.routing().table(state.hub(), &gateway.agent, own).await?))
}

pub(super) async fn set_one(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<RoutePath>,
    Json(body): Json<SetRoute>,
) -> Result<Json<RouteTable>, ApiError> {
    let SetRoute { target, takeover, reason, expires_in } = body;
    let claim = Claim { reason, expires_at: end(expires_in)? };
    let routes = BTreeMap::from([(path.service, (target, claim))]);
    set_by(state, signed_in, path.name, Wanted { routes, takeover }).await
}

pub(super) async fn set_many(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<SandboxPath>,
    Json(body): Json<SetRoutes>,
) -> Result<Json<RouteTable>, ApiError> {
    let SetRoutes { routes, takeover, reason, expires_in } = body;
    if routes.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidInput, "name at least one service").field("routes"));
    }
    let claim = Claim { reason, expires_at: end(expires_in)? };
    let routes = routes.into_iter().map(|(service, target)| (service, (target, claim.clone()))).collect();
    set_by(state, signed_in, path.name, Wanted { routes, takeover }).await
}

/// What somebody wants routes to be.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Where services are to be sent, and the claims that come with it.
    pub(crate) routes: BTreeMap<ServiceName, (RouteTarget, Claim)>,
    /// Whether what others hold is taken.
    pub(crate) takeover: bool,
}

async fn set_by(
    state: AppState,
    signed_in: SignedIn,
    sandbox: SandboxName,
    wanted: Wanted,
) -> Result<Json<RouteTable>, ApiError> {
    in_full(async move { set(&state, Some(&signed_in), &sandbox, wanted).await.map(Json) }).await
}

/// Sets routes of a sandbox: for who is signed in, or for the platform, which does what the sandbox is wanted to be.
pub(crate) async fn set(
    state: &AppState,
    signed_in: Option<&SignedIn>,
    sandbox: &SandboxName,
    wanted: Wanted,
) -> Result<RouteTable, ApiError> {
    let _turn = state.routing().turn().await;
    let sandbox = find_live(state, sandbox).await?;
    let agents = state.hub().agents().await?;
    let gateway = gateway_among(state, &agents, Some(&sandbox)).await?;
    let own = gateway.own.is_some();
    let has_end = wanted.routes.values().any(|(_, claim)| claim.expires_at.is_some());
    if own && has_end && signed_in.is_some() {
        let sentence =
            "the routes of a sandbox's own gateway are nobody else's, so that they need no end; leave it out";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("expires_in"));
    }
    let mut services = BTreeMap::new();
    for (service, (target, claim)) in &wanted.routes {
        let (url, kind) = match target {
            RouteTarget::Ocp => {
                services.insert(service.clone(), None);
                continue;
            }
            RouteTarget::Sandbox => (own_url(state, &agents, &sandbox.name, service).await?, OverrideKind::Sandbox),
            RouteTarget::Url(url) => (url.clone(), OverrideKind::Custom),
        };
        let target = Override::new(url, kind, sandbox.name.clone());
        // Claims keep others off as long as the sandbox lives, or less if that was asked for.
        let expires_at = claim.expires_at.map_or(sandbox.expires_at, |end| end.min(sandbox.expires_at));
        let expires_at = Some(expires_at).filter(|_| !own);
        services.insert(service.clone(), Some(Override { reason: claim.reason.clone(), expires_at, ..target }));
    }
    let by = Some(sandbox.name.clone());
    let changes = RouteChanges { services, by, takeover: wanted.takeover, ..RouteChanges::default() };
    let whose = own.then(|| sandbox.name.clone());
    let table = state.routing().apply(state.hub(), &gateway.agent, whose, changes).await?;
    let user = signed_in.map_or(&sandbox.owner, |signed_in| signed_in.user()).clone();
    let lost = table.taken.iter().map(|taken| {
        let TakenRoute { service, was, .. } = taken.clone();
        let (by, user, at) = (sandbox.name.clone(), user.clone(), crate::store::now());
        (was.owner, LostRoute { service, url: was.url, by, user, at })
    });
    let (lost, deeds) = (lost.collect(), deeds(signed_in, &sandbox, &wanted, &table.taken));
    let (mut targets, mut claims) = (BTreeMap::new(), BTreeMap::new());
    for (service, (target, claim)) in wanted.routes {
        targets.insert(service.clone(), target);
        claims.insert(service, claim);
    }
    let set = RoutesSet { targets, claims, is_own: own, lost, deeds };
    state.store().routes_were_set(&sandbox.name, set).await?;
    Ok(table)
}

/// When a claim with this lifetime ends.
fn end(lifetime: Option<Duration>) -> Result<Option<Timestamp>, ApiError> {
    let Some(lifetime) = lifetime else { return Ok(None) };
    let end = Timestamp::now().checked_add(lifetime).ok().filter(|_| !lifetime.is_zero());
    let refused =
        || ApiError::new(ErrorCode::InvalidInput, "expires_in must be some time, such as \"2h\"").field("expires_in");
    end.ok_or_else(refused).map(Some)
}

/// What was set, in the name of the sandbox, and what was taken, where who lost it looks for it.
fn deeds(signed_in: Option<&SignedIn>, sandbox: &Sandbox, wanted: &Wanted, taken: &[TakenRoute]) -> Vec<Deed> {
    let deed = |action, subject| match signed_in {
        Some(signed_in) => signed_in.deed(action, subject),
        None => Deed::of_the_platform(action, subject),
    };
    let set = wanted.routes.iter().map(|(service, (target, claim))| {
        let target = match target {
            RouteTarget::Ocp => "to the stable cluster".to_owned(),
            RouteTarget::Sandbox => "to the sandbox's own deployment".into(),
            RouteTarget::Url(url) => format!("to {url}"),
        };
        let reason = claim.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let subject = AuditSubject::route(&sandbox.name, service);
        deed(AuditAction::RouteSet, subject).detail(format!("{target}{reason}"))
    });
    let taken = taken.iter().map(|TakenRoute { service, was, expired }| {
        let claim = if *expired { ", after its claim had expired" } else { "" };
        let detail = format!("by sandbox {}; it led to {}{claim}", sandbox.name, was.url);
        deed(AuditAction::RouteTakeover, AuditSubject::route(&was.owner, service)).detail(detail)
    });
    set.chain(taken).collect()
}

/// Where the sandbox's own deployment of a service answers, which one of these agents runs.
pub(crate) async fn own_url(
    state: &AppState,
    agents: &[Agent],
    sandbox: &SandboxName,
    service: &ServiceName,
) -> Result<ServiceUrl, ApiError> {
    let infos = agents.iter().filter_map(|agent| agent.inventory.as_ref()).flat_map(|inventory| &inventory.repos);
    let mut repos: Vec<_> =
        infos.filter(|info| info.service.as_ref() == Some(service)).map(|info| &info.name).collect();
    repos.sort();
    repos.dedup();
    for repo in repos {
        let key = InstanceKey::in_sandbox(sandbox.clone(), repo.clone());
        if let Some(url) = state.store().running(&key).await?.and_then(|deployment| deployment.url) {
            return ServiceUrl::new(url).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()));
        }
    }
    let sentence =
        format!("sandbox {sandbox} has no running deployment of service {service}; deploy its repo there first");
    Err(ApiError::new(ErrorCode::Conflict, sentence).field("target"))
}
