//! A Bitbucket that the control plane follows, with one pull request of the story's service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sdp_core::{Branch, CommitId};
use sdp_server::{
    bitbucket::{BitbucketKind, sign},
    testing::{BitbucketHost, pull_request},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Failed,
    api::Api,
    content::{FEATURE, SERVICE},
    wait::eventually,
};

/// The sandbox of the pull request.
pub const SANDBOX: &str = "pr-eredar-7";
/// Its number.
const NUMBER: u64 = 7;

/// What becomes of a pull request: the event's key and the pull request's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is opened.
    Opened,
    /// More is pushed.
    Updated,
    /// It is merged.
    Merged,
}

/// The Bitbucket, and the secrets that the control plane shares with it.
#[derive(Debug)]
pub struct Bitbucket {
    host: BitbucketHost,
    secret: String,
    files: TempDir,
    client: reqwest::Client,
}

impl Bitbucket {
    /// Starts one that signs its webhooks with `secret`, and lets `token` in.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(secret: &str, token: &str) -> Result<Self, Failed> {
        let host = BitbucketHost::start(BitbucketKind::DataCenter, token).await?;
        let files = tempfile::tempdir()?;
        let bitbucket =
            Self { host, secret: secret.into(), files, client: reqwest::Client::builder().no_proxy().build()? };
        fs::write(bitbucket.file("secret"), format!("{secret}\n"))?;
        fs::write(bitbucket.file("token"), format!("{token}\n"))?;
        Ok(bitbucket)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The control plane's settings that make it follow this Bitbucket.
    pub fn settings(&self, template: &str) -> String {
        format!(
            "[sandboxes]\nupkeep = \"100ms\"\n[deliveries]\nfirst = \"100ms\"\n\
             [[bitbucket]]\nname = \"corp\"\nkind = \"data-center\"\nurl = \"{}\"\nsecret_file = {:?}\n\
             token_file = {:?}\n\
             [[bitbucket.repo]]\nslug = \"SHOP/eredar\"\nrepo = \"{SERVICE}\"\ntemplate = \"{template}\"\n\
             expires_in = \"1h\"\n",
            self.host.url(),
            self.file("secret"),
            self.file("token"),
        )
    }

    /// What it was told, and what it refuses.
    pub fn host(&self) -> &BitbucketHost {
        &self.host
    }

    /// Tells the control plane what has become of the pull request, as Data Center does.
    ///
    /// # Errors
    /// When it is not taken.
    pub async fn tell(&self, base: &str, turn: Turn, commit: &CommitId) -> Result<(), Failed> {
        let (key, state, at) = match turn {
            Turn::Opened => ("pr:opened", "OPEN", 100),
            Turn::Updated => ("pr:from_ref_updated", "OPEN", 200),
            Turn::Merged => ("pr:merged", "MERGED", 300),
        };
        let kind = BitbucketKind::DataCenter;
        let event = pull_request(kind, "SHOP/eredar", NUMBER, state, FEATURE, commit.as_str(), at);
        match self.deliver(base, key, &at.to_string(), &event).await? {
            (202, answer) if answer == r#"{"status":"queued"}"# => Ok(()),
            (status, answer) => Err(Failed(format!("the webhook was answered with {status}: {answer}"))),
        }
    }

    /// Delivers a webhook, and gives what it is answered with.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn deliver(&self, base: &str, key: &str, id: &str, event: &Value) -> Result<(u16, String), Failed> {
        let body = event.to_string();
        let request = self
            .client
            .post(format!("{base}/api/webhooks/bitbucket/corp"))
            .header("content-type", "application/json")
            .header("x-event-key", key)
            .header("x-request-id", id)
            .header("x-hub-signature", sign(&self.secret.as_str().into(), &[body.as_bytes()]))
            .body(body);
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until it is told that the build of a commit is good, and gives where that answers.
    ///
    /// # Errors
    /// When the build fails, or nothing is told.
    pub async fn good(&self, commit: &CommitId) -> Result<String, Failed> {
        let told = eventually("a build status", async || {
            let last = self.host.statuses().into_iter().rfind(|(of, _)| of == commit.as_str())?.1;
            (last["state"] != "INPROGRESS").then_some(last)
        });
        let told = told.await?;
        match (told["state"].as_str(), told["url"].as_str()) {
            (Some("SUCCESSFUL"), Some(url)) => Ok(url.into()),
            _ => Err(Failed(format!("it was told {told}"))),
        }
    }

    /// Waits until the one comment of the pull request says `word`.
    ///
    /// # Errors
    /// When it does not, or there are several.
    pub async fn comment(&self, word: &str) -> Result<String, Failed> {
        let comments = async || {
            let comments = self.host.comments();
            let says = comments.iter().any(|(_, text)| text.contains(word));
            (says || comments.len() > 1).then_some(comments)
        };
        match &eventually(&format!("a comment with {word:?}"), comments).await?[..] {
            [(_, text)] => Ok(text.clone()),
            several => {
                Err(Failed(format!("there is one comment, which is kept up to date, but not here: {several:?}")))
            }
        }
    }
}

/// The commit that the pull request's branch is at.
///
/// # Errors
/// When the branches cannot be listed.
pub async fn tip(api: &Api) -> Result<CommitId, Failed> {
    let branches: Vec<Branch> = api.get(&format!("/api/repos/{SERVICE}/branches")).await?;
    let tip = branches.into_iter().find(|branch| branch.name.as_str() == FEATURE);
    tip.map(|branch| branch.commit).ok_or_else(|| Failed(format!("there is no branch {FEATURE}")))
}

/// What is at a URL.
///
/// # Errors
/// When nothing answers.
pub async fn ask(url: &str) -> Result<String, Failed> {
    Ok(reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.text().await?)
}

/// Where the worktrees of the pull request's sandbox are, below an agent's folder.
pub fn worktrees(agent: &Path) -> PathBuf {
    agent.join("data/worktrees").join(SANDBOX)
}
