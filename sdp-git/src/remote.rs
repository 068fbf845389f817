//! Talking to a remote: address, credentials, listing, fetching.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, RemoteCallbacks,
    Repository,
};
use sdp_core::Credentials;
use tokio_util::sync::CancellationToken;

/// Where a remote is: what can be told of it without user or path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteAddress {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl RemoteAddress {
    /// Reads `https://…`, `http://…`, `ssh://…` or `user@host:path`.
    pub(crate) fn parse(remote: &str) -> Result<Self, &'static str> {
        const FORMS: &str = "write https://host/path.git, http://…, ssh://user@host/path.git or user@host:path.git";
        if remote.chars().any(|c| c.is_control() || c == ' ') {
            return Err("it has spaces or control characters");
        }
        if !remote.contains("://") {
            let (user_host, path) = remote.split_once(':').ok_or(FORMS)?;
            let (user, host) = user_host.split_once('@').ok_or(FORMS)?;
            let plain =
                |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains('/') && !text.contains('@');
            let good = plain(user) && plain(host) && !path.is_empty() && !path.starts_with('-');
            return if good { Ok(Self { host: host.into(), port: 22 }) } else { Err(FORMS) };
        }
        let url = url::Url::parse(remote).map_err(|_| FORMS)?;
        if url.password().is_some() {
            return Err("a password in a remote ends up in files and logs; sign in, or configure a credential");
        }
        let default_port = match url.scheme() {
            "https" => 443,
            "http" => 80,
            "ssh" => 22,
            _ => return Err(FORMS),
        };
        let host = url.host_str().filter(|host| !host.is_empty() && !host.starts_with('-')).ok_or(FORMS)?;
        Ok(Self { host: host.trim_matches(['[', ']']).into(), port: url.port().unwrap_or(default_port) })
    }
}

impl std::fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a call authenticates with.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) host: String,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) ssh_key: Option<PathBuf>,
}

/// Where progress goes: at most a few lines a second, from libgit2's thread.
pub(crate) type Progress = Arc<dyn Fn(String) + Send + Sync>;

fn refused() -> git2::Error {
    git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, "the credentials were refused")
}

/// Callbacks that answer each way of authentication once: libgit2 asks for ever otherwise.
fn callbacks<'a>(login: &'a Login, cancel: &'a CancellationToken, progress: Option<Progress>) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    let mut tried = CredentialType::empty();
    callbacks.credentials(move |url, user_in_url, allowed| {
        // A redirect must not carry the password to another host.
        if RemoteAddress::parse(url).is_ok_and(|address| address.host != login.host) {
            return Err(refused());
        }
        let given = login.credentials.as_ref();
        let user = user_in_url.or(given.map(|given| given.username().as_str())).unwrap_or("git");
        let mut first = |kind: CredentialType| {
            let first = allowed.contains(kind) && !tried.contains(kind);
            tried.set(kind, true);
            first
        };
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(user);
        }
        if allowed.contains(CredentialType::SSH_KEY) && first(CredentialType::SSH_KEY) {
            return match &login.ssh_key {
                Some(key) => Cred::ssh_key(user, None, key, None),
                None => Cred::ssh_key_from_agent(user),
            };
        }
        if first(CredentialType::USER_PASS_PLAINTEXT)
            && let Some(given) = given
        {
            return Cred::userpass_plaintext(given.username().as_str(), given.expose_password());
        }
        Err(refused())
    });
    let told = Mutex::new(Instant::now());
    let tell = move |line: String| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = &progress
            && told.elapsed() >= Duration::from_millis(500)
        {
            *told = Instant::now();
            progress(line);
        }
    };
    callbacks.transfer_progress(move |stats| {
        let (got, total) = (stats.received_objects(), stats.total_objects());
        tell(format!("receiving objects: {got} of {total}, {} KiB", stats.received_bytes() / 1024));
        !cancel.is_cancelled()
    });
    callbacks.sideband_progress(move |_| !cancel.is_cancelled());
    callbacks
}

/// The branches of the remote `url`, with the commits at their tips.
pub(crate) fn list(url: &str, login: &Login, cancel: &CancellationToken) -> Result<Vec<(String, Oid)>, git2::Error> {
    let mut remote = git2::Remote::create_detached(url)?;
    let connection = remote.connect_auth(Direction::Fetch, Some(callbacks(login, cancel, None)), None)?;
    Ok(connection.list()?.iter().filter_map(branch_head).collect())
}

fn branch_head(head: &git2::RemoteHead<'_>) -> Option<(String, Oid)> {
    let name = head.name().strip_prefix("refs/heads/")?;
    Some((name.to_owned(), head.oid()))
}

/// Brings the commit at the tip of the remote's `branch` into `repo`; none when there is no such
/// branch. Fetches that branch only, into `into`, a ref of our own, so that no two branch names
/// (`a` and `a/b`) can be in each other's way.
pub(crate) fn fetch(
    repo: &Repository,
    url: &str,
    branch: &str,
    into: &str,
    login: &Login,
    cancel: &CancellationToken,
    progress: Progress,
) -> Result<Option<Oid>, git2::Error> {
    let mut remote = repo.remote_anonymous(url)?;
    let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks(login, cancel, None)), None)?;
    let heads: Vec<_> = connection.list()?.iter().filter_map(branch_head).collect();
    let Some((_, tip)) = heads.into_iter().find(|(name, _)| name == branch) else { return Ok(None) };
    // The commit alone says little after an interrupted fetch; that the ref points at it, enough.
    let have = repo.refname_to_id(into).is_ok_and(|id| id == tip) && repo.find_commit(tip).is_ok();
    if !have {
        let mut options = FetchOptions::new();
        options.download_tags(AutotagOption::None).remote_callbacks(callbacks(login, cancel, Some(progress)));
        let refspec = format!("+refs/heads/{branch}:{into}");
        connection.remote().fetch(&[refspec], Some(&mut options), None)?;
    }
    repo.refname_to_id(into).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_every_form_of_remote() {
        for (remote, host, port) in [
            ("https://git.example/scm/a.git", "git.example", 443),
            ("http://127.0.0.1:7990/a.git", "127.0.0.1", 7990),
            ("ssh://git@git.example:7999/a.git", "git.example", 7999),
            ("git@git.example:shop/a.git", "git.example", 22),
            ("https://[::1]:8443/a.git", "::1", 8443),
        ] {
            assert_eq!(RemoteAddress::parse(remote), Ok(RemoteAddress { host: host.into(), port }), "{remote}");
        }
        for remote in [
            "",
            "/srv/a.git",
            "file:///srv/a.git",
            "a",
            "-oProxyCommand=x@h:p",
            "git@-x:p",
            "git@h:-p",
            "ssh:///x",
            "ext::sh -c x",
            "https://h/a b",
        ] {
            assert!(RemoteAddress::parse(remote).is_err(), "{remote:?} was accepted");
        }
    }
}
