//! What a deployment's program prints: as a document, and followed.
//!
//! `/ws/deployments/{id}/output` sends text messages that hold one or more [`LogLine`]s as JSON, joined by `\n`; the last
//! message is an [`OutputEnd`]. Nothing is kept of it: it is fetched from the agent as fast as the reader takes it.

use std::{convert::Infallible, io};

use axum::{
    body::Body,
    extract::{State, WebSocketUpgrade, ws::Message, ws::close_code, ws::rejection::WebSocketUpgradeRejection},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::header;
use sdp_core::{
    Deployment, DeploymentId, DeploymentState, ErrorCode, LogLine, LogOptions,
    api::logs::{LogFormat, OutputEnd, OutputQuery, OutputTail},
    protocol::OutputStep,
};

use super::{
    Path, Query,
    deployments::{self, DeploymentPath},
    extract,
    logs::content_type,
    socket::{Source, close, feed, reader},
};
use crate::{
    ApiError, AppState,
    auth::SignedIn,
    hub::{Piece, Pieces},
};

/// What it has printed.
pub(super) async fn output(
    State(state): State<AppState>,
    Path(path): Path<DeploymentPath>,
    Query(query): Query<OutputQuery>,
) -> Result<Response, ApiError> {
    let pieces = begin(&state, path.id, LogOptions { tail: query.tail, follow: false }).await?;
    let format = query.format;
    let body = stream::try_unfold(pieces, move |mut pieces| async move {
        let piece = pieces.recv().await.ok_or_else(|| io::Error::other("the server is stopping"))?;
        let Piece::Lines(lines) = piece.map_err(io::Error::other)? else { return Ok::<_, io::Error>(None) };
        let text = match format {
            LogFormat::Text => lines.into_iter().map(|line| line.line + "\n").collect(),
            LogFormat::Ndjson => ndjson(&lines),
        };
        Ok(Some((text, pieces)))
    });
    Ok(([(header::CONTENT_TYPE, content_type(format))], Body::from_stream(body)).into_response())
}

/// What it prints, as it does.
pub(super) async fn follow(
    State(state): State<AppState>,
    signed_in: SignedIn,
    Path(path): Path<DeploymentPath>,
    Query(query): Query<OutputTail>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = reader(extract::upgrade(upgrade)?);
    let mut pieces = Followed(Some(begin(&state, path.id, LogOptions { tail: query.tail, follow: true }).await?));
    Ok(upgrade.on_upgrade(async move |mut socket| {
        if feed(&state, &signed_in.ended, &mut socket, &mut pieces).await {
            close(&mut socket, close_code::NORMAL, "").await;
        }
    }))
}

async fn begin(state: &AppState, id: DeploymentId, options: LogOptions) -> Result<Pieces, ApiError> {
    let Deployment { agent, key, state: now, .. } = deployments::find(state, id).await?;
    if !matches!(now, DeploymentState::Running | DeploymentState::Stopped) {
        let sentence = format!(
            "deployment {id} is {now}: no program of it is there whose output could be read; its log has what was told of it"
        );
        return Err(ApiError::new(ErrorCode::Conflict, sentence));
    }
    Ok(state.hub().output(&agent, &key, OutputStep::Begin(options)).await?)
}

/// Lines of JSON, each with its end.
pub(super) fn ndjson(lines: &[LogLine]) -> String {
    lines.iter().filter_map(|line| serde_json::to_string(line).ok()).map(|line| line + "\n").collect()
}

/// What is followed; none once its end was told.
struct Followed(Option<Pieces>);

impl Source for Followed {
    type Error = Infallible;

    async fn next(&mut self) -> Result<Option<Message>, Infallible> {
        let Some(pieces) = &mut self.0 else { return Ok(None) };
        let end = match pieces.recv().await {
            Some(Ok(Piece::Lines(lines))) => return Ok(Some(Message::Text(ndjson(&lines).trim_end().into()))),
            Some(Ok(Piece::End(_))) => OutputEnd::End,
            Some(Err(error)) => OutputEnd::Broken { problem: Box::new((&error).into()) },
            // The socket is closed for the same reason, which is told there.
            None => return std::future::pending().await,
        };
        self.0 = None;
        Ok(serde_json::to_string(&end).ok().map(|end| Message::Text(end.into())))
    }
}
