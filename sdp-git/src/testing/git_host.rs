//! Git over HTTP with basic authentication: real `git http-backend` behind a small server.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use git2::{Oid, Repository, Signature, build::TreeUpdateBuilder};
use sdp_core::CommitId;
use subtle::ConstantTimeEq;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::cgi;

/// How the host behaves from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// As git hosts do.
    #[default]
    Good,
    /// Every answer is a 500.
    Broken,
    /// Connections are accepted, and nothing is answered.
    Hanging,
    /// Every answer is a web page with status 200.
    NotGit,
}

/// A git host on 127.0.0.1, with its repositories in a temporary directory. Dropping it ends it
/// and removes them.
#[derive(Debug)]
pub struct GitHost {
    root: TempDir,
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    users: Vec<(String, String)>,
    mood: watch::Sender<Mood>,
    requests: Mutex<Vec<String>>,
}

/// Why a host could not be started or filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A socket or directory failed.
    #[error("the git host failed")]
    Io(#[from] std::io::Error),
    /// A repository could not be changed.
    #[error("the git host's repository failed")]
    Git(#[from] git2::Error),
    /// A commit id that is not one.
    #[error("git made a commit id that SDP does not know")]
    Commit(#[from] sdp_core::InvalidName),
}

impl GitHost {
    /// Starts a host that lets these users in, by name and password.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub async fn start(users: &[(&str, &str)]) -> Result<Self, HostError> {
        let root = tempfile::Builder::new().prefix("sdp-git-host-").tempdir()?;
        let users = users.iter().map(|(user, password)| ((*user).to_owned(), (*password).to_owned())).collect();
        let shared = Arc::new(Shared {
            root: root.path().to_owned(),
            users,
            mood: watch::Sender::default(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the git host ended");
            }
        });
        Ok(Self { root, address, shared, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The remote of a repo.
    pub fn url(&self, repo: &str) -> String {
        format!("http://{}/scm/{repo}.git", self.address)
    }

    /// Behaves so from now on.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// The requests so far: method, path and status.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bare repository of a repo, for what no client can bring about.
    pub fn path(&self, repo: &str) -> PathBuf {
        self.root.path().join("scm").join(format!("{repo}.git"))
    }

    /// Makes an empty repository.
    ///
    /// # Errors
    /// [`HostError::Git`].
    pub async fn create_repo(&self, repo: &str) -> Result<(), HostError> {
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).mkpath(true).initial_head("main");
        Repository::init_opts(self.path(repo), &options)?;
        Ok(())
    }

    /// Commits exactly `files` onto `branch`; `parent` is the branch it starts from, which is
    /// `branch` itself for one more commit, and none for history that starts (again) here.
    ///
    /// # Errors
    /// [`HostError::Git`].
    pub async fn commit(
        &self,
        repo: &str,
        branch: &str,
        parent: Option<&str>,
        files: &[(&str, &[u8])],
        message: &str,
    ) -> Result<CommitId, HostError> {
        let repo = Repository::open_bare(self.path(repo))?;
        let mut tree = TreeUpdateBuilder::new();
        for (path, bytes) in files {
            tree.upsert(*path, repo.blob(bytes)?, git2::FileMode::Blob);
        }
        let empty = repo.find_tree(repo.treebuilder(None)?.write()?)?;
        let tree = repo.find_tree(tree.create_updated(&repo, &empty)?)?;
        let parent = match parent {
            Some(name) => Some(repo.find_reference(&format!("refs/heads/{name}"))?.peel_to_commit()?),
            None => None,
        };
        let author = Signature::now("SDP", "sdp@example.invalid")?;
        let parents: Vec<_> = parent.iter().collect();
        let id: Oid = repo.commit(None, &author, &author, message, &tree, &parents)?;
        repo.reference(&format!("refs/heads/{branch}"), id, true, "push")?;
        Ok(CommitId::new(id.to_string())?)
    }

    /// Removes a branch.
    ///
    /// # Errors
    /// [`HostError::Git`].
    pub async fn delete_branch(&self, repo: &str, branch: &str) -> Result<(), HostError> {
        Repository::open_bare(self.path(repo))?.find_reference(&format!("refs/heads/{branch}"))?.delete()?;
        Ok(())
    }
}

impl Drop for GitHost {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    /// The user of a request, when the password is right.
    fn user(&self, request: &Request<Body>) -> Option<String> {
        let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let decoded = BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
        let given = String::from_utf8(decoded).ok()?;
        let (user, password) = given.split_once(':')?;
        let right = self.users.iter().find(|(name, _)| name == user)?.1.as_bytes();
        bool::from(right.ct_eq(password.as_bytes())).then(|| user.to_owned())
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let told = format!("{} {}", request.method(), request.uri().path());
    let response = respond(&shared, request).await;
    let told = format!("{told} {}", response.status().as_u16());
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    response
}

async fn respond(shared: &Shared, request: Request<Body>) -> Response<Body> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    };
    let mut mood = shared.mood.subscribe();
    let now = *mood.borrow();
    match now {
        Mood::Good => {}
        Mood::Broken => return plain(StatusCode::INTERNAL_SERVER_ERROR, "out of order"),
        Mood::NotGit => return plain(StatusCode::OK, "<html>welcome</html>"),
        Mood::Hanging => {
            // Until the mood changes or the host is dropped.
            let _ = mood.wait_for(|mood| *mood != Mood::Hanging).await;
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too late");
        }
    }
    let Some(user) = shared.user(&request) else {
        let mut response = plain(StatusCode::UNAUTHORIZED, "sign in");
        let challenge = header::HeaderValue::from_static("Basic realm=\"git\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    };
    match cgi::serve(&shared.root, &user, request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "git http-backend failed");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "git http-backend failed")
        }
    }
}
