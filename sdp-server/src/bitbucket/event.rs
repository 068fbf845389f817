//! What webhooks tell, Cloud's and Data Center's in one form. Pure.

use jiff::Timestamp;
use sdp_core::{BranchName, InvalidName};
use serde::{Deserialize, Serialize};

use super::BitbucketKind;

/// What a webhook tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookEvent {
    /// Somebody tests the connection.
    Ping,
    /// Something about a pull request.
    PullRequest {
        /// The repository it is on: `workspace/slug`, `PROJECT/slug`.
        repository: String,
        /// Its number there.
        number: u64,
        /// How it is now.
        told: PullRequest,
    },
    /// Branches that were pushed to. Deleted ones are left out.
    Push {
        /// The repository.
        repository: String,
        /// The branches.
        branches: Vec<PushedBranch>,
    },
    /// Something else.
    Other,
}

/// A pull request as its host tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Whether it is open, or how it was closed.
    pub state: PullRequestState,
    /// Its source branch.
    pub branch: BranchName,
    /// The commit at the tip of its source branch; Cloud tells the first 12 digits only.
    pub commit: String,
    /// Whether its source branch is in another repository.
    pub is_from_elsewhere: bool,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// How a pull request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullRequestState {
    /// It is open.
    Open,
    /// It was merged.
    Merged,
    /// It was declined, or another took its place.
    Declined,
    /// It was deleted.
    Deleted,
}

impl PullRequestState {
    /// Whether nothing is to be deployed for it any more.
    pub fn is_closed(self) -> bool {
        self != Self::Open
    }

    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Merged => "merged",
            Self::Declined => "declined",
            Self::Deleted => "deleted",
        }
    }
}

/// A branch that was pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedBranch {
    /// The branch.
    pub branch: BranchName,
    /// The commit at its tip.
    pub commit: String,
}

/// Why a webhook's body is not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// It is not what the event's documentation says.
    #[error("the body is not that of the event {key:?}: {source}")]
    Body {
        /// The event's key.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A branch that SDP cannot deploy.
    #[error(transparent)]
    Branch(#[from] InvalidName),
    /// A commit that is none.
    #[error("{0:?} is not a commit id")]
    Commit(String),
    /// A repository that is none.
    #[error("{0:?} is not the name of a repository")]
    Repository(String),
    /// A time or a number out of any range.
    #[error("the time or number of the pull request is out of range")]
    Range,
}

impl WebhookEvent {
    /// Reads a body by the key of its event, which is in the header `X-Event-Key`.
    ///
    /// # Errors
    /// [`EventError`].
    pub fn parse(kind: BitbucketKind, key: &str, body: &[u8]) -> Result<Self, EventError> {
        match kind {
            BitbucketKind::Cloud => cloud(key, body),
            BitbucketKind::DataCenter => data_center(key, body),
        }
    }
}

fn read<'a, T: Deserialize<'a>>(key: &str, body: &'a [u8]) -> Result<T, EventError> {
    serde_json::from_slice(body).map_err(|source| EventError::Body { key: key.chars().take(80).collect(), source })
}

/// Cloud abbreviates commit ids in places.
fn commit(text: String) -> Result<String, EventError> {
    let is_hex = text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit));
    if is_hex && (7..=64).contains(&text.len()) { Ok(text) } else { Err(EventError::Commit(cut(&text))) }
}

/// `workspace/slug`, `PROJECT/slug`, `~user/slug`.
fn repository(text: String) -> Result<String, EventError> {
    let is_part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_alphanumeric() || "-_.~".contains(c))
    };
    match text.split_once('/') {
        Some((owner, slug)) if is_part(owner) && is_part(slug) && text.len() <= 250 => Ok(text),
        _ => Err(EventError::Repository(cut(&text))),
    }
}

fn number(number: u64) -> Result<u64, EventError> {
    i64::try_from(number).map(|_| number).map_err(|_| EventError::Range)
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

mod json {
    //! The parts of the documented bodies that are looked at.

    use jiff::Timestamp;
    use serde::Deserialize;

    #[derive(Deserialize)]
    pub(super) struct CloudRepository {
        pub(super) full_name: String,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudPush {
        pub(super) repository: CloudRepository,
        pub(super) push: CloudChanges,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudChanges {
        pub(super) changes: Vec<CloudChange>,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudChange {
        /// None when it was deleted.
        pub(super) new: Option<CloudRef>,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudRef {
        /// `branch`, `tag` and others.
        #[serde(rename = "type")]
        pub(super) kind: String,
        pub(super) name: String,
        pub(super) target: CloudCommit,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudCommit {
        pub(super) hash: String,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudPullRequestEvent {
        pub(super) repository: CloudRepository,
        pub(super) pullrequest: CloudPullRequest,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudPullRequest {
        pub(super) id: u64,
        pub(super) state: String,
        pub(super) source: CloudSide,
        pub(super) updated_on: Timestamp,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudSide {
        pub(super) branch: CloudBranch,
        pub(super) commit: CloudCommit,
        /// None when that repository was deleted.
        pub(super) repository: Option<CloudRepository>,
    }

    #[derive(Deserialize)]
    pub(super) struct CloudBranch {
        pub(super) name: String,
    }

    #[derive(Deserialize)]
    pub(super) struct CenterRepository {
        pub(super) slug: String,
        pub(super) project: CenterProject,
    }

    #[derive(Deserialize)]
    pub(super) struct CenterProject {
        pub(super) key: String,
    }

    #[derive(Deserialize)]
    pub(super) struct CenterPush {
        pub(super) repository: CenterRepository,
        pub(super) changes: Vec<CenterChange>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct CenterChange {
        #[serde(rename = "ref")]
        pub(super) reference: CenterChangedRef,
        pub(super) to_hash: String,
        /// `ADD`, `UPDATE`, `DELETE`.
        #[serde(rename = "type")]
        pub(super) kind: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct CenterChangedRef {
        pub(super) id: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct CenterPullRequestEvent {
        pub(super) pull_request: CenterPullRequest,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct CenterPullRequest {
        pub(super) id: u64,
        pub(super) state: String,
        /// Milliseconds since 1970.
        pub(super) updated_date: i64,
        pub(super) from_ref: CenterRef,
        pub(super) to_ref: CenterRef,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct CenterRef {
        pub(super) id: String,
        pub(super) latest_commit: String,
        pub(super) repository: CenterRepository,
    }
}

/// The state by the event's key, where that says how it ended; else by what the body says.
fn state(key: &str, body: &str) -> PullRequestState {
    match key {
        "pullrequest:fulfilled" | "pr:merged" => PullRequestState::Merged,
        "pullrequest:rejected" | "pr:declined" => PullRequestState::Declined,
        "pr:deleted" => PullRequestState::Deleted,
        _ => match body {
            "MERGED" => PullRequestState::Merged,
            "DECLINED" | "SUPERSEDED" => PullRequestState::Declined,
            _ => PullRequestState::Open,
        },
    }
}

fn cloud(key: &str, body: &[u8]) -> Result<WebhookEvent, EventError> {
    match key {
        "diagnostics:ping" => Ok(WebhookEvent::Ping),
        "repo:push" => {
            let json::CloudPush { repository: of, push } = read(key, body)?;
            let new = push.changes.into_iter().filter_map(|change| change.new);
            let branches = new.filter(|new| matches!(new.kind.as_str(), "branch" | "named_branch"));
            let branches = branches
                .map(|new| Ok(PushedBranch { branch: BranchName::new(new.name)?, commit: commit(new.target.hash)? }));
            let branches = branches.collect::<Result<_, EventError>>()?;
            Ok(WebhookEvent::Push { repository: repository(of.full_name)?, branches })
        }
        "pullrequest:created" | "pullrequest:updated" | "pullrequest:fulfilled" | "pullrequest:rejected" => {
            let json::CloudPullRequestEvent { repository: on, pullrequest: told } = read(key, body)?;
            let from = told.source.repository.map(|from| from.full_name);
            let is_from_elsewhere = from.is_none_or(|from| !from.eq_ignore_ascii_case(&on.full_name));
            let state = state(key, &told.state);
            Ok(WebhookEvent::PullRequest {
                repository: repository(on.full_name)?,
                number: number(told.id)?,
                told: PullRequest {
                    state,
                    branch: BranchName::new(told.source.branch.name)?,
                    commit: commit(told.source.commit.hash)?,
                    is_from_elsewhere,
                    updated_at: told.updated_on,
                },
            })
        }
        _ => Ok(WebhookEvent::Other),
    }
}

fn data_center(key: &str, body: &[u8]) -> Result<WebhookEvent, EventError> {
    let named = |of: &json::CenterRepository| format!("{}/{}", of.project.key, of.slug);
    match key {
        "diagnostics:ping" => Ok(WebhookEvent::Ping),
        "repo:refs_changed" => {
            let json::CenterPush { repository: of, changes } = read(key, body)?;
            let branches = changes.into_iter().filter(|change| change.kind != "DELETE").filter_map(|change| {
                let branch = change.reference.id.strip_prefix("refs/heads/")?.to_owned();
                Some((branch, change.to_hash))
            });
            let branches = branches
                .map(|(branch, hash)| Ok(PushedBranch { branch: BranchName::new(branch)?, commit: commit(hash)? }));
            let branches = branches.collect::<Result<_, EventError>>()?;
            Ok(WebhookEvent::Push { repository: repository(named(&of))?, branches })
        }
        "pr:opened" | "pr:from_ref_updated" | "pr:modified" | "pr:merged" | "pr:declined" | "pr:deleted" => {
            let json::CenterPullRequestEvent { pull_request: told } = read(key, body)?;
            let (from, to) = (named(&told.from_ref.repository), named(&told.to_ref.repository));
            let branch = told.from_ref.id.strip_prefix("refs/heads/").unwrap_or(&told.from_ref.id).to_owned();
            let is_from_elsewhere = !from.eq_ignore_ascii_case(&to);
            Ok(WebhookEvent::PullRequest {
                repository: repository(to)?,
                number: number(told.id)?,
                told: PullRequest {
                    state: state(key, &told.state),
                    branch: BranchName::new(branch)?,
                    commit: commit(told.from_ref.latest_commit)?,
                    is_from_elsewhere,
                    updated_at: Timestamp::from_millisecond(told.updated_date).map_err(|_| EventError::Range)?,
                },
            })
        }
        _ => Ok(WebhookEvent::Other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use BitbucketKind::{Cloud, DataCenter};

    const PUSH: &str = r#"{
        "actor": { "type": "user", "nickname": "ada", "uuid": "{a54f16da}" },
        "repository": { "type": "repository", "full_name": "shop/eredar", "name": "eredar", "uuid": "{b2c5}" },
        "push": { "changes": [
            { "new": { "type": "branch", "name": "feature/x", "target": { "type": "commit",
                "hash": "709d658dc5b6d6afcd46049c2f332ee3f515a67d", "message": "new" } },
              "old": { "type": "branch", "name": "feature/x", "target": { "type": "commit", "hash": "1e65c05c1d5171631d92438a13901ca7dae9618c" } },
              "created": false, "forced": false, "closed": false, "truncated": false },
            { "new": null, "old": { "type": "branch", "name": "gone", "target": { "hash": "1e65c05c1d51" } }, "closed": true },
            { "new": { "type": "tag", "name": "v1", "target": { "hash": "1e65c05c1d51" } }, "old": null, "created": true }
        ] } }"#;

    fn cloud_pr(state: &str, from: &str) -> String {
        format!(
            r#"{{ "actor": {{ "nickname": "ada" }},
            "repository": {{ "full_name": "shop/eredar" }},
            "pullrequest": {{ "id": 7, "title": "x", "state": "{state}",
                "source": {{ "branch": {{ "name": "feature/x" }}, "commit": {{ "hash": "d3022fc0ca3d" }}, "repository": {from} }},
                "destination": {{ "branch": {{ "name": "main" }}, "commit": {{ "hash": "ce5965ddd289" }},
                    "repository": {{ "full_name": "shop/eredar" }} }},
                "created_on": "2026-04-06T15:23:38.179678+00:00", "updated_on": "2026-04-06T15:23:38.205705+00:00" }} }}"#
        )
    }

    fn center_pr(state: &str, from: &str) -> String {
        format!(
            r#"{{ "eventKey": "pr:opened", "date": "2026-09-19T09:58:11+1000", "actor": {{ "name": "ada", "id": 1 }},
            "pullRequest": {{ "id": 7, "version": 0, "title": "x", "state": "{state}", "open": true, "closed": false,
                "createdDate": 1505779091796, "updatedDate": 1505779091796,
                "fromRef": {{ "id": "refs/heads/feature/x", "displayId": "feature/x",
                    "latestCommit": "ef8755f06ee4b28c96a847a95cb8ec8ed6ddd1ca",
                    "repository": {{ "slug": "eredar", "id": 84, "project": {{ "key": "{from}", "id": 84 }} }} }},
                "toRef": {{ "id": "refs/heads/main", "displayId": "main",
                    "latestCommit": "178864a7d521b6f5e720b386b2c2b0ef8563e0dc",
                    "repository": {{ "slug": "eredar", "id": 84, "project": {{ "key": "SHOP", "id": 84 }} }} }} }} }}"#
        )
    }

    fn told(kind: BitbucketKind, key: &str, body: &str) -> (String, u64, PullRequest) {
        match WebhookEvent::parse(kind, key, body.as_bytes()) {
            Ok(WebhookEvent::PullRequest { repository, number, told }) => (repository, number, told),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_push_to_cloud_tells_the_branches_that_are_there_now() {
        let event = WebhookEvent::parse(Cloud, "repo:push", PUSH.as_bytes()).unwrap();
        let branch = "feature/x".parse().unwrap();
        let commit = "709d658dc5b6d6afcd46049c2f332ee3f515a67d".into();
        let branches = vec![PushedBranch { branch, commit }];
        assert_eq!(event, WebhookEvent::Push { repository: "shop/eredar".into(), branches });
    }

    #[test]
    fn a_push_to_data_center_tells_the_branches_that_are_there_now() {
        let body = r#"{ "eventKey": "repo:refs_changed", "date": "2026-09-19T09:45:32+1000", "actor": { "name": "ada" },
            "repository": { "slug": "eredar", "id": 84, "project": { "key": "SHOP", "id": 84, "type": "NORMAL" } },
            "changes": [
                { "ref": { "id": "refs/heads/main", "displayId": "main", "type": "BRANCH" }, "refId": "refs/heads/main",
                  "fromHash": "ecddabb624f6f5ba43816f5926e580a5f680a932", "toHash": "178864a7d521b6f5e720b386b2c2b0ef8563e0dc", "type": "UPDATE" },
                { "ref": { "id": "refs/heads/gone", "displayId": "gone", "type": "BRANCH" }, "refId": "refs/heads/gone",
                  "fromHash": "178864a7d521b6f5e720b386b2c2b0ef8563e0dc", "toHash": "0000000000000000000000000000000000000000", "type": "DELETE" },
                { "ref": { "id": "refs/tags/v1", "displayId": "v1", "type": "TAG" }, "refId": "refs/tags/v1",
                  "fromHash": "0000000000000000000000000000000000000000", "toHash": "178864a7d521b6f5e720b386b2c2b0ef8563e0dc", "type": "ADD" }
            ] }"#;
        let event = WebhookEvent::parse(DataCenter, "repo:refs_changed", body.as_bytes()).unwrap();
        let branch = "main".parse().unwrap();
        let commit = "178864a7d521b6f5e720b386b2c2b0ef8563e0dc".into();
        let branches = vec![PushedBranch { branch, commit }];
        assert_eq!(event, WebhookEvent::Push { repository: "SHOP/eredar".into(), branches });
    }

    #[test]
    fn pull_requests_of_both_are_told_alike() {
        use PullRequestState::{Declined, Deleted, Merged, Open};
        let own = r#"{ "full_name": "shop/eredar" }"#;
        for (key, body, state) in [
            ("pullrequest:created", "OPEN", Open),
            ("pullrequest:updated", "OPEN", Open),
            ("pullrequest:updated", "MERGED", Merged),
            ("pullrequest:fulfilled", "MERGED", Merged),
            ("pullrequest:rejected", "DECLINED", Declined),
        ] {
            let (repository, number, told) = told(Cloud, key, &cloud_pr(body, own));
            assert_eq!((repository.as_str(), number, told.state), ("shop/eredar", 7, state), "{key}");
            assert_eq!((told.branch.as_str(), told.commit.as_str()), ("feature/x", "d3022fc0ca3d"));
            assert!(!told.is_from_elsewhere);
            assert_eq!(told.updated_at.to_string(), "2026-04-06T15:23:38.205705Z");
        }
        for (key, body, state) in [
            ("pr:opened", "OPEN", Open),
            ("pr:from_ref_updated", "OPEN", Open),
            ("pr:modified", "DECLINED", Declined),
            ("pr:merged", "MERGED", Merged),
            ("pr:declined", "DECLINED", Declined),
            ("pr:deleted", "OPEN", Deleted),
        ] {
            let (repository, number, told) = told(DataCenter, key, &center_pr(body, "SHOP"));
            assert_eq!((repository.as_str(), number, told.state), ("SHOP/eredar", 7, state), "{key}");
            assert_eq!(told.commit, "ef8755f06ee4b28c96a847a95cb8ec8ed6ddd1ca");
            assert_eq!((told.branch.as_str(), told.is_from_elsewhere), ("feature/x", false));
            assert_eq!(told.updated_at.as_millisecond(), 1_505_779_091_796);
        }
    }

    #[test]
    fn a_branch_of_another_repository_is_known_as_one() {
        for from in ["null", r#"{ "full_name": "eve/eredar" }"#] {
            assert!(told(Cloud, "pullrequest:created", &cloud_pr("OPEN", from)).2.is_from_elsewhere);
        }
        assert!(told(DataCenter, "pr:opened", &center_pr("OPEN", "~eve")).2.is_from_elsewhere);
    }

    #[test]
    fn other_events_and_tests_of_the_connection_are_told_apart() {
        let parse = |kind, key: &str| WebhookEvent::parse(kind, key, br#"{"test":true}"#).unwrap();
        assert_eq!(parse(DataCenter, "diagnostics:ping"), WebhookEvent::Ping);
        for key in ["", "issue:created", "pullrequest:comment_created", "pr:comment:added"] {
            assert_eq!((parse(Cloud, key), parse(DataCenter, key)), (WebhookEvent::Other, WebhookEvent::Other));
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        let own = r#"{ "full_name": "shop/eredar" }"#;
        let pr = cloud_pr("OPEN", own);
        for (good, bad) in [
            ("\"feature/x\"", "\"--upload-pack=x\""),
            ("\"feature/x\"", "\"a\\nb\""),
            ("\"feature/x\"", "\"../x\""),
            ("d3022fc0ca3d", "d3022fc0ca3d/../x"),
            ("d3022fc0ca3d", "D3"),
            ("\"id\": 7", "\"id\": 18446744073709551615"),
            ("\"id\": 7", "\"id\": -7"),
            (
                "\"full_name\": \"shop/eredar\" },\n            \"pull",
                "\"full_name\": \"../eredar\" },\n            \"pull",
            ),
            (
                "\"full_name\": \"shop/eredar\" },\n            \"pull",
                "\"full_name\": \"a/b/c\" },\n            \"pull",
            ),
        ] {
            let body = pr.replacen(good, bad, 1);
            assert_ne!(body, pr, "{good}");
            assert!(WebhookEvent::parse(Cloud, "pullrequest:created", body.as_bytes()).is_err(), "{bad}");
        }
        let late = center_pr("OPEN", "SHOP").replace("1505779091796", "9223372036854775807");
        assert!(WebhookEvent::parse(DataCenter, "pr:opened", late.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_body_of_any_event_is_read_or_refused_without_a_panic(
            key in prop_oneof![Just("repo:push"), Just("pullrequest:updated"), Just("repo:refs_changed"), Just("pr:merged")],
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in 0..1000usize,
            text in "\\PC{0,10}",
        ) {
            let mut good = cloud_pr("OPEN", "null").into_bytes();
            let at = at % good.len();
            good.splice(at..at, text.into_bytes());
            for kind in [Cloud, DataCenter] {
                let _ = WebhookEvent::parse(kind, key, &bytes);
                let _ = WebhookEvent::parse(kind, key, &good);
            }
        }
    }
}
