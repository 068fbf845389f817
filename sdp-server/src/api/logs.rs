//! A deployment's log as a document.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use sdp_core::{
    Event,
    api::logs::{LogFormat, LogQuery},
};

use super::{
    Path, Query,
    deployments::{DeploymentPath, find_with_log},
};
use crate::{ApiError, AppState};

/// How much is read and sent at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the log has now: from `from` on, or its last `tail` lines.
pub(super) async fn log(
    State(state): State<AppState>,
    Path(path): Path<DeploymentPath>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let id = find_with_log(&state, path.id).await?.id;
    let logs = state.logs().clone();
    let render: fn(Bytes) -> Bytes = match query.format {
        LogFormat::Text => to_text,
        LogFormat::Ndjson => |lines| lines,
    };
    let body = match query.tail {
        Some(lines) => Body::from(render(logs.tail(id, lines).await?)),
        None => {
            let last = logs.last_seq(id).await?;
            let chunks = stream::try_unfold(query.from.unwrap_or(1).max(1), move |next| {
                let logs = logs.clone();
                async move {
                    if next > last {
                        return Ok::<_, crate::events::EventLogError>(None);
                    }
                    let lines = logs.read(id, next, CHUNK_BYTES).await?;
                    let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                    Ok((count > 0).then(|| (render(lines), next + count)))
                }
            });
            Body::from_stream(chunks)
        }
    };
    Ok(([(header::CONTENT_TYPE, content_type(query.format))], body).into_response())
}

pub(super) fn content_type(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text/plain; charset=utf-8",
        LogFormat::Ndjson => "application/x-ndjson",
    }
}

fn to_text(lines: Bytes) -> Bytes {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut text = String::new();
    for line in lines {
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => text.push_str(&event.to_string()),
            Err(_) => text.push_str(&String::from_utf8_lossy(line)),
        }
        text.push('\n');
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_line_per_event_and_keeps_what_it_does_not_understand() {
        let lines = concat!(
            r#"{"seq":1,"at":"2026-01-02T03:04:05Z","type":"log","stage":"build","stream":"stdout","line":"ok"}"#,
            "\n",
            r#"{"seq":2,"at":"2026-01-02T03:04:06Z","type":"state","state":"running"}"#,
            "\nnonsense\n"
        );
        let text = String::from_utf8(to_text(Bytes::from_static(lines.as_bytes())).to_vec()).unwrap();
        assert_eq!(text, "2026-01-02T03:04:05.000Z build  | ok\n2026-01-02T03:04:06.000Z        = running\nnonsense\n");
    }
}
