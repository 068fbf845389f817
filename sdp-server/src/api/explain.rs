//! Why a request reaches what it reaches.

use axum::extract::State;
use sdp_core::{
    ErrorCode, Explanation, RouteQuestion, SandboxName,
    api::routing::ExplainQuery,
    protocol::{ReplyBody, RequestBody},
};

use super::{Json, Path, Query, routes::RoutePath, sandboxes::find};
use crate::{
    ApiError, AppState,
    hub::RequestError,
    routing::{Gateway, gateway_of},
};

/// Of any request to the shared gateway.
pub(super) async fn request(
    State(state): State<AppState>,
    Query(query): Query<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    let ExplainQuery { service, key, header, cookie, baggage } = query;
    if key.is_some() && header.is_some() {
        let sentence = "`key` and `header` both say what the header has; give one of them";
        return Err(ApiError::new(ErrorCode::InvalidInput, sentence).field("header"));
    }
    let gateway = gateway_of(&state, None).await?;
    let question = RouteQuestion { service, header: key.or(header), cookie, baggage };
    ask(&state, &gateway, question, None).await.map(Json)
}

/// Of a request that the sandbox's users make: with its key, or to its own gateway.
pub(super) async fn of_sandbox(
    State(state): State<AppState>,
    Path(path): Path<RoutePath>,
) -> Result<Json<Explanation>, ApiError> {
    let sandbox = find(&state, &path.name).await?;
    let gateway = gateway_of(&state, Some(&sandbox)).await?;
    let mut question = RouteQuestion { service: path.service, header: None, cookie: None, baggage: None };
    let Some(own) = &gateway.own else {
        question.header = state.store().sandbox_key(&sandbox.name).await?.map(String::from);
        return ask(&state, &gateway, question, None).await.map(Json);
    };
    let at = own.url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
    let mut explanation = ask(&state, &gateway, question, Some(sandbox.name.clone())).await?;
    explanation.because.insert(0, format!("sandbox `{}` has its own gateway{at}, which needs no key", sandbox.name));
    Ok(Json(explanation))
}

async fn ask(
    state: &AppState,
    gateway: &Gateway,
    question: RouteQuestion,
    sandbox: Option<SandboxName>,
) -> Result<Explanation, ApiError> {
    let agent = &gateway.agent;
    match state.hub().request(agent, RequestBody::Explain { question, sandbox }).await? {
        ReplyBody::Explanation { explanation } => Ok(explanation),
        _ => Err(RequestError::Unexpected { agent: agent.clone() }.into()),
    }
}
