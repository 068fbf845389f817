//! Repos and branches, live through the agents.

use std::collections::BTreeMap;

use axum::extract::State;
use schemars::JsonSchema;
use sdp_core::{
    Branch, ErrorCode, RepoName,
    api::{BranchFilter, Repo},
    protocol::{CredentialsFrame, ReplyBody, RequestBody},
};
use serde::Deserialize;

use super::{Json, Path, Query, check_limit};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    hub::{RequestError, declares},
};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 5000;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct RepoPath {
    repo: RepoName,
}

pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Vec<Repo>>, ApiError> {
    let mut repos = BTreeMap::new();
    for agent in state.hub().agents().await? {
        let Some(inventory) = agent.inventory else { continue };
        for info in &inventory.repos {
            let gateway = inventory.gateway.as_ref().is_some_and(|gateway| gateway.repo == info.name);
            let new = Repo { name: info.name.clone(), service: None, agents: Vec::new(), gateway: false };
            let repo: &mut Repo = repos.entry(info.name.clone()).or_insert(new);
            repo.service = repo.service.take().or_else(|| info.service.clone());
            repo.gateway |= gateway;
            repo.agents.push(agent.name.clone());
        }
    }
    Ok(Json(repos.into_values().collect()))
}

pub(super) async fn branches(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(RepoPath { repo }): Path<RepoPath>,
    Query(filter): Query<BranchFilter>,
) -> Result<Json<Vec<Branch>>, ApiError> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    check_limit(Some(limit), MAX_LIMIT)?;
    let agents = state.hub().agents().await?;
    let mut declaring: Vec<_> = agents.iter().filter(|agent| declares(agent, &repo)).collect();
    declaring.sort_by_key(|agent| !agent.connected);
    let Some(agent) = declaring.first() else {
        let sentence = format!("no agent declares a repo {repo}; GET /api/repos lists those there are");
        return Err(ApiError::new(ErrorCode::UnknownRepo, sentence).field("repo"));
    };
    let credentials = signed_in.session.credentials.map(CredentialsFrame);
    let body = RequestBody::Branches { repo, credentials, query: filter.q, limit };
    match state.hub().request(&agent.name, body).await? {
        ReplyBody::Branches { branches } => Ok(Json(branches)),
        _ => Err(RequestError::Unexpected { agent: agent.name.clone() }.into()),
    }
}
