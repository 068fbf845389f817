//! A Bitbucket that takes build statuses and comments as the documentation of its REST API says, and sends webhooks.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::bitbucket::BitbucketKind;

/// What it answers in place of doing what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does what it is asked.
    Not,
    /// This status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Nothing.
    Silence,
    /// It does what it is asked, and answers nothing.
    Deaf,
}

/// A Bitbucket on 127.0.0.1. Dropping it ends it.
#[derive(Debug)]
pub struct BitbucketHost {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    kind: BitbucketKind,
    token: String,
    state: Mutex<Host>,
}

#[derive(Debug, Default)]
struct Host {
    statuses: Vec<(String, Value)>,
    comments: BTreeMap<u64, Comment>,
    refusals: VecDeque<Refusal>,
    requests: Vec<String>,
}

#[derive(Debug, Clone)]
struct Comment {
    on: String,
    text: String,
    version: u64,
}

impl BitbucketHost {
    /// Starts one that lets this access token in.
    ///
    /// # Errors
    /// When no socket is to be had.
    pub async fn start(kind: BitbucketKind, token: &str) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { kind, token: token.into(), state: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the Bitbucket ended");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Refuses what is asked next, each of these once.
    pub fn refuse(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.shared.state().refusals.extend(refusals);
    }

    /// The build statuses that were set, in order: commit and body.
    pub fn statuses(&self) -> Vec<(String, Value)> {
        self.shared.state().statuses.clone()
    }

    /// The comments there are: what they are on, and their text.
    pub fn comments(&self) -> Vec<(String, String)> {
        self.shared.state().comments.values().map(|comment| (comment.on.clone(), comment.text.clone())).collect()
    }

    /// Removes every comment, as a person may.
    pub fn remove_comments(&self) {
        self.shared.state().comments.clear();
    }

    /// The requests so far: method, path and status.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }
}

impl Drop for BitbucketHost {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Host> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let refusal = shared.state().refusals.pop_front();
    let response = match refusal {
        Some(Refusal::Status(status, after)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, "out of order").into_response();
            if let Some(after) = after {
                response.headers_mut().insert(header::RETRY_AFTER, after.into());
            }
            response
        }
        Some(Refusal::Silence) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        None | Some(Refusal::Not | Refusal::Deaf) => respond(&shared, &method, &uri, &headers, &body),
    };
    let told = format!("{method} {} {}", uri.path(), response.status().as_u16());
    shared.state().requests.push(told);
    if matches!(refusal, Some(Refusal::Silence | Refusal::Deaf)) {
        // Longer than anybody waits.
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    response
}

fn respond(shared: &Shared, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
    let bearer = format!("Bearer {}", shared.token);
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    if !bool::from(given.ct_eq(bearer.as_bytes())) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let parts: Vec<_> = uri.path().trim_start_matches('/').split('/').collect();
    let host = &mut *shared.state();
    match (shared.kind, method.as_str(), &parts[..]) {
        (BitbucketKind::Cloud, "POST", ["2.0", "repositories", _, _, "commit", commit, "statuses", "build"]) => {
            status(host, commit, body, StatusCode::CREATED)
        }
        (
            BitbucketKind::DataCenter,
            "POST",
            ["rest", "api", "latest", "projects", _, "repos", _, "commits", commit, "builds"],
        ) => status(host, commit, body, StatusCode::NO_CONTENT),
        (
            BitbucketKind::Cloud,
            method,
            ["2.0", "repositories", owner, slug, "pullrequests", number, "comments", id @ ..],
        ) => {
            let on = format!("{owner}/{slug}#{number}");
            let text = body["content"]["raw"].as_str();
            match (method, id, text) {
                ("GET", [], _) => {
                    let values: Vec<_> = host.on(&on).map(|(id, comment)| cloud(*id, comment)).collect();
                    (StatusCode::OK, axum::Json(json!({ "size": values.len(), "values": values }))).into_response()
                }
                ("POST", [], Some(text)) => host.post(on, text, cloud),
                ("PUT", [id], Some(text)) => host.put(id, &on, text, None, cloud),
                _ => StatusCode::BAD_REQUEST.into_response(),
            }
        }
        (
            BitbucketKind::DataCenter,
            method,
            ["rest", "api", "latest", "projects", owner, "repos", slug, "pull-requests", number, rest @ ..],
        ) => {
            let on = format!("{owner}/{slug}#{number}");
            let text = body["text"].as_str();
            match (method, rest, text) {
                ("GET", ["activities"], _) => {
                    let activity = |(id, comment): (&u64, &Comment)| json!({ "id": id + 1000, "action": "COMMENTED", "comment": center(*id, comment) });
                    let mut values = vec![json!({ "id": 1, "action": "OPENED" })];
                    values.extend(host.on(&on).map(activity));
                    (StatusCode::OK, axum::Json(json!({ "isLastPage": true, "values": values }))).into_response()
                }
                ("GET", ["comments", id], _) => match host.find(id, &on) {
                    Some((id, comment)) => axum::Json(center(id, comment)).into_response(),
                    None => StatusCode::NOT_FOUND.into_response(),
                },
                ("POST", ["comments"], Some(text)) => host.post(on, text, center),
                ("PUT", ["comments", id], Some(text)) => match body["version"].as_u64() {
                    Some(version) => host.put(id, &on, text, Some(version), center),
                    None => StatusCode::BAD_REQUEST.into_response(),
                },
                _ => StatusCode::BAD_REQUEST.into_response(),
            }
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Takes a status with the fields and lengths that the documentation asks for.
fn status(host: &mut Host, commit: &str, body: Value, done: StatusCode) -> Response {
    let text = |field: &str, longest: usize| {
        body[field].as_str().is_some_and(|text| !text.is_empty() && text.chars().count() <= longest)
    };
    let is_url = body["url"].as_str().is_some_and(|url| url.starts_with("http"));
    let is_state = matches!(body["state"].as_str(), Some("INPROGRESS" | "SUCCESSFUL" | "FAILED"));
    if !(text("key", 40) && text("name", 255) && text("description", 255) && text("url", 450) && is_url && is_state) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    host.statuses.push((commit.into(), body));
    done.into_response()
}

fn cloud(id: u64, comment: &Comment) -> Value {
    json!({ "id": id, "content": { "raw": comment.text, "markup": "markdown" }, "deleted": false })
}

fn center(id: u64, comment: &Comment) -> Value {
    json!({ "id": id, "version": comment.version, "text": comment.text, "severity": "NORMAL", "state": "OPEN" })
}

impl Host {
    fn on<'a>(&'a self, on: &'a str) -> impl Iterator<Item = (&'a u64, &'a Comment)> {
        self.comments.iter().filter(move |(_, comment)| comment.on == on)
    }

    fn find(&mut self, id: &str, on: &str) -> Option<(u64, &mut Comment)> {
        let id = id.parse().ok()?;
        let comment = self.comments.get_mut(&id).filter(|comment| comment.on == on)?;
        Some((id, comment))
    }

    fn post(&mut self, on: String, text: &str, show: fn(u64, &Comment) -> Value) -> Response {
        let id = self.comments.keys().last().copied().unwrap_or(40) + 1;
        let comment = Comment { on, text: text.into(), version: 0 };
        let shown = show(id, &comment);
        self.comments.insert(id, comment);
        (StatusCode::CREATED, axum::Json(shown)).into_response()
    }

    fn put(
        &mut self,
        id: &str,
        on: &str,
        text: &str,
        version: Option<u64>,
        show: fn(u64, &Comment) -> Value,
    ) -> Response {
        let Some((id, comment)) = self.find(id, on) else { return StatusCode::NOT_FOUND.into_response() };
        if version.is_some_and(|version| version != comment.version) {
            return StatusCode::CONFLICT.into_response();
        }
        comment.text = text.into();
        comment.version += 1;
        axum::Json(show(id, comment)).into_response()
    }
}

/// What a webhook tells of a pull request, in the documented form: `state` is `OPEN`, `MERGED` or `DECLINED`, and
/// `at` when it was changed, in seconds since 1970.
pub fn pull_request(
    kind: BitbucketKind,
    slug: &str,
    number: u64,
    state: &str,
    branch: &str,
    commit: &str,
    at: i64,
) -> Value {
    let (owner, name) = slug.split_once('/').unwrap_or((slug, slug));
    match kind {
        BitbucketKind::Cloud => {
            let updated = jiff::Timestamp::from_second(at).unwrap_or_default();
            let repository = json!({ "type": "repository", "full_name": slug, "name": name });
            let side = |branch: &str, commit: &str| {
                // As Cloud does.
                let short: String = commit.chars().take(12).collect();
                json!({ "branch": { "name": branch }, "commit": { "hash": short }, "repository": repository })
            };
            json!({
                "actor": { "type": "user", "nickname": "ada" },
                "repository": repository,
                "pullrequest": {
                    "id": number, "title": "A change", "state": state, "created_on": updated, "updated_on": updated,
                    "source": side(branch, commit), "destination": side("main", "ce5965ddd289"),
                },
            })
        }
        BitbucketKind::DataCenter => {
            let side = |branch: &str, commit: &str| {
                json!({
                    "id": format!("refs/heads/{branch}"), "displayId": branch, "latestCommit": commit,
                    "repository": { "slug": name, "id": 84, "project": { "key": owner, "id": 84 } },
                })
            };
            json!({
                "date": "2026-09-19T09:58:11+1000",
                "actor": { "name": "ada", "id": 1 },
                "pullRequest": {
                    "id": number, "version": 0, "title": "A change", "state": state,
                    "createdDate": at * 1000, "updatedDate": at * 1000,
                    "fromRef": side(branch, commit),
                    "toRef": side("main", "178864a7d521b6f5e720b386b2c2b0ef8563e0dc"),
                },
            })
        }
    }
}
