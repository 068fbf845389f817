//! What pull requests are told: a build status on the commit, and one comment that is kept up to date.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sdp_core::{Deployment, DeploymentState, SandboxKey, SandboxName, SandboxState};
use url::Url;

use super::{
    Bitbucket, BitbucketRepo,
    rest::{Rest, Status},
    sandbox_name,
};
use crate::{
    AppState,
    queue::Failure,
    store::{PullRequestKey, PullRequestRecord, SandboxRecord},
};

/// The longest key of a build status.
const LONGEST_KEY: usize = 40;

/// The longest description of a build status.
const LONGEST_DESCRIPTION: usize = 255;

/// How much of a failure's reason a comment shows.
const LONGEST_REASON: usize = 500;

/// A pull request's sandbox, as it is looked at.
#[derive(Debug, Clone)]
struct Sight {
    name: SandboxName,
    /// None when there is none.
    state: Option<SandboxState>,
    expires_at: Option<Timestamp>,
    /// The newest deployment of each repo, by repo.
    deployments: Vec<Deployment>,
    /// Why there is nothing to see, or something is in the way.
    problem: Option<String>,
    request_key: Option<SandboxKey>,
}

/// Tells a pull request how its sandbox is, where that differs from what it was told.
///
/// # Errors
/// When it could not be told.
pub(crate) async fn report(state: &AppState, bitbucket: &Bitbucket, key: &PullRequestKey) -> Result<(), Failure> {
    let Some(record) = state.store().pull_request(key).await? else { return Ok(()) };
    let outgoing = &state.integrations().outgoing;
    let Some(repo) = bitbucket.config.repo(&key.repository) else { return Ok(()) };
    let Some(rest) = Rest::new(outgoing, bitbucket, &key.repository) else { return Ok(()) };
    if record.told.is_from_elsewhere {
        return Ok(());
    }
    let sight = look(state, repo, key, &record).await?;
    let mut reported = record.reported.clone();
    let mut comment_id = record.comment.clone();
    let mut result = Ok(());
    if let Some((commit, status)) = status(&record, repo, &sight, &state.config().public_url()) {
        let told = Some((commit, status.body()));
        if reported.status != told
            && let Some((commit, body)) = &told
        {
            match rest.set_status(commit, body).await {
                Ok(()) => {
                    reported.status = told;
                    state.store().set_reported(key, comment_id.clone(), reported.clone()).await?;
                }
                Err(failure) => result = Err(failure),
            }
        }
    }
    if let Some(text) = comment(&record, &sight)
        && reported.comment.as_ref() != Some(&text)
    {
        match rest.comment(key.number, comment_id.as_deref(), &text, &beginning(&sight.name)).await {
            Ok(id) => {
                comment_id = Some(id);
                reported.comment = Some(text);
                state.store().set_reported(key, comment_id, reported).await?;
            }
            // One that can be told later is to be tried again.
            Err(failure @ Failure::Again { .. }) => result = Err(failure),
            Err(failure) => result = result.and(Err(failure)),
        }
    }
    result
}

async fn look(
    state: &AppState,
    repo: &BitbucketRepo,
    key: &PullRequestKey,
    record: &PullRequestRecord,
) -> Result<Sight, Failure> {
    let name = record.sandbox.clone().unwrap_or_else(|| sandbox_name(&repo.repo, key.number));
    let own = match &record.sandbox {
        Some(name) => state.store().sandbox_record(name).await?,
        None => None,
    };
    let mut sight = Sight {
        name,
        state: None,
        expires_at: None,
        deployments: Vec::new(),
        problem: record.problem.clone(),
        request_key: None,
    };
    let Some(SandboxRecord { sandbox, problem, .. }) = own else { return Ok(sight) };
    let mut seen = BTreeSet::new();
    sight.deployments = state.store().deployments_of(&sandbox, &DeploymentState::ALL).await?;
    sight.deployments.retain(|deployment| seen.insert(deployment.key.repo.clone()));
    sight.deployments.sort_by(|one, other| one.key.repo.cmp(&other.key.repo));
    sight.request_key = state.store().sandbox_key(&sandbox.name).await?;
    sight.problem = sight.problem.or(problem);
    (sight.state, sight.expires_at) = (Some(sandbox.state), Some(sandbox.expires_at));
    Ok(sight)
}

/// The build status, and the commit it is of. None for what was closed.
fn status(record: &PullRequestRecord, repo: &BitbucketRepo, sight: &Sight, public: &Url) -> Option<(String, Status)> {
    if record.told.state.is_closed() {
        return None;
    }
    let own = sight.deployments.iter().find(|deployment| deployment.key.repo == repo.repo);
    let at = |deployment: &Deployment| format!("{} {}", deployment.key.repo, deployment.state);
    let active = sight.deployments.iter().find(|deployment| deployment.state.is_active());
    let failed = sight
        .deployments
        .iter()
        .find(|deployment| matches!(deployment.state, DeploymentState::Failed | DeploymentState::Cancelled));
    let is_missing = sight.state.is_none();
    let (state, description, about) = match (&record.problem, active, failed) {
        (Some(problem), ..) => ("FAILED", problem.clone(), failed.or(own)),
        (None, Some(active), _) => ("INPROGRESS", at(active), Some(active)),
        (None, None, Some(failed)) => {
            let reason = failed.failure.as_ref().map(|failure| format!(": {}", failure.reason)).unwrap_or_default();
            ("FAILED", format!("{}{reason}", at(failed)), Some(failed))
        }
        // It was told how it was while it was there.
        (None, None, None) if is_missing || sight.deployments.is_empty() => return None,
        (None, None, None) => {
            let running: Vec<_> = sight.deployments.iter().map(at).collect();
            ("SUCCESSFUL", running.join(", "), own)
        }
    };
    let running = own.filter(|own| own.state == DeploymentState::Running).and_then(|own| own.url.clone());
    let log = about.map(|about| format!("api/deployments/{}/log?format=text", about.id));
    let more = public.join(&log.unwrap_or_else(|| format!("api/sandboxes/{}", sight.name))).ok();
    let url = running.filter(|_| state == "SUCCESSFUL").or(more.map(String::from)).unwrap_or_default();
    // Cloud abbreviates it; what was deployed is exact.
    let exact = own.and_then(|own| own.commit.as_ref()).map(ToString::to_string);
    let commit = exact.filter(|exact| exact.starts_with(&record.told.commit)).unwrap_or(record.told.commit.clone());
    let status = Status {
        key: key(&sight.name),
        state,
        name: format!("SDP sandbox {}", sight.name),
        description: cut(&description, LONGEST_DESCRIPTION),
        url,
    };
    Some((commit, status))
}

/// The key of a sandbox's build status.
fn key(name: &SandboxName) -> String {
    let key = format!("sdp-{name}");
    if key.len() <= LONGEST_KEY {
        return key;
    }
    // The end has the number, and what tells long names apart.
    format!("sdp-{}", &name.as_str()[name.as_str().len() - (LONGEST_KEY - 4)..])
}

/// How the comment of a sandbox begins: how it is known again.
fn beginning(name: &SandboxName) -> String {
    format!("**SDP sandbox `{name}`**")
}

/// The comment's text. None where there is nothing to say.
fn comment(record: &PullRequestRecord, sight: &Sight) -> Option<String> {
    let beginning = beginning(&sight.name);
    let is_gone = matches!(sight.state, None | Some(SandboxState::Deleting));
    if record.told.state.is_closed() {
        // Nothing was said, so nothing is to be taken back.
        record.reported.comment.as_ref()?;
        let how = record.told.state.as_str();
        return Some(match sight.state {
            None => format!("{beginning} was removed: the pull request is {how}."),
            Some(_) => format!("{beginning} is being removed: the pull request is {how}."),
        });
    }
    let mut text = match (&record.problem, sight.state) {
        (Some(problem), _) => format!("{beginning} could not be made as wanted: {}", line(problem)),
        (None, None) => {
            record.reported.comment.as_ref()?;
            format!("{beginning} has expired or was deleted. The next push makes it again.")
        }
        (None, Some(SandboxState::Deleting)) => format!("{beginning} is being deleted."),
        (None, Some(SandboxState::Asleep)) => format!("{beginning} is asleep; a deployment wakes it."),
        (None, Some(SandboxState::Active)) => match &sight.problem {
            Some(problem) => format!("{beginning}: {}", line(problem)),
            None => beginning,
        },
    };
    if is_gone || sight.deployments.is_empty() {
        return Some(text);
    }
    text.push_str("\n\n| service | branch | commit | state | address |\n| --- | --- | --- | --- | --- |");
    for deployment in &sight.deployments {
        let commit = deployment.commit.as_ref().map(|commit| format!("`{}`", commit.short())).unwrap_or_default();
        let address = match (&deployment.url, deployment.state) {
            (Some(url), DeploymentState::Running) => url.clone(),
            _ => String::new(),
        };
        let (repo, branch) = (&deployment.key.repo, code(deployment.branch.as_str()));
        text.push_str(&format!("\n| {repo} | {branch} | {commit} | {} | {address} |", deployment.state));
    }
    for deployment in &sight.deployments {
        if let Some(failure) = &deployment.failure {
            text.push_str(&format!("\n\n{}: {}", deployment.key.repo, line(&failure.reason)));
        }
    }
    if let Some(key) = &sight.request_key {
        text.push_str(&format!("\n\nRequests with the header `X-SDP-Sandbox: {key}` reach it through the gateway."));
    }
    if let Some(end) = sight.expires_at {
        text.push_str(&format!("\n\nIt expires at {}.", end.strftime("%Y-%m-%d %H:%M UTC")));
    }
    Some(text)
}

/// Text that is shown as it is, within a table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'").replace('|', "\\|"))
}

/// Somebody else's sentence on one line, without anything that Markdown takes for more than text.
fn line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("`{}`", cut(&text.replace('`', "'"), LONGEST_REASON))
}

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(longest - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use sdp_core::{ErrorCode, Failure as DeployFailure};
    use serde_json::json;

    use super::*;
    use crate::bitbucket::{PullRequest, PullRequestState};

    const COMMIT: &str = "ef8755f06ee4b28c96a847a95cb8ec8ed6ddd1ca";

    fn record(state: PullRequestState) -> PullRequestRecord {
        PullRequestRecord {
            told: PullRequest {
                state,
                branch: "feature/x".parse().unwrap(),
                commit: COMMIT[..12].into(),
                is_from_elsewhere: false,
                updated_at: Timestamp::UNIX_EPOCH,
            },
            sandbox: Some("pr-eredar-7".parse().unwrap()),
            deployed: Some(COMMIT[..12].into()),
            problem: None,
            comment: None,
            reported: Default::default(),
        }
    }

    fn repo() -> BitbucketRepo {
        toml::from_str("slug = 'shop/eredar'\nrepo = 'eredar'\ntemplate = 't'").unwrap()
    }

    fn deployment(repo: &str, state: DeploymentState) -> Deployment {
        serde_json::from_value(json!({
            "id": "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55", "sandbox": "pr-eredar-7", "repo": repo, "branch": "feature/x|y",
            "commit": COMMIT, "agent": "micro", "state": state, "url": "http://vm.example:7001", "user": "bitbucket",
            "created_at": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    fn sight(deployments: Vec<Deployment>) -> Sight {
        Sight {
            name: "pr-eredar-7".parse().unwrap(),
            state: Some(SandboxState::Active),
            expires_at: Some("2026-12-24T18:00:00Z".parse().unwrap()),
            deployments,
            problem: None,
            request_key: Some("pr-eredar-7-7f3k9q2m".parse().unwrap()),
        }
    }

    fn told(record: &PullRequestRecord, sight: &Sight) -> Option<(String, Status)> {
        status(record, &repo(), sight, &Url::parse("http://sdp.example/").unwrap())
    }

    #[test]
    fn the_status_follows_the_deployments() {
        use DeploymentState::{Build, Cancelled, Failed, Running};
        let open = record(PullRequestState::Open);
        for (states, wanted, description) in [
            (vec![("eredar", Build)], "INPROGRESS", "eredar build"),
            (vec![("eredar", Running), ("illidan", Build)], "INPROGRESS", "illidan build"),
            (vec![("eredar", Running), ("illidan", Running)], "SUCCESSFUL", "eredar running, illidan running"),
            (vec![("eredar", Failed), ("illidan", Running)], "FAILED", "eredar failed"),
            (vec![("eredar", Cancelled)], "FAILED", "eredar cancelled"),
        ] {
            let sight = sight(states.into_iter().map(|(repo, state)| deployment(repo, state)).collect());
            let (commit, status) = told(&open, &sight).unwrap();
            assert_eq!((commit.as_str(), status.state, status.description.as_str()), (COMMIT, wanted, description));
            match wanted {
                "SUCCESSFUL" => assert_eq!(status.url, "http://vm.example:7001"),
                _ => assert!(status.url.starts_with("http://sdp.example/api/deployments/0197"), "{}", status.url),
            }
            assert_eq!(status.key, "sdp-pr-eredar-7");
        }
        assert_eq!(told(&record(PullRequestState::Merged), &sight(vec![deployment("eredar", Running)])), None);
        let mut gone = sight(Vec::new());
        gone.state = None;
        assert_eq!(told(&open, &gone), None, "what it was told stays");
        let refused = PullRequestRecord { problem: Some("there is no template t".into()), ..open };
        let (commit, status) = told(&refused, &gone).unwrap();
        assert_eq!((commit.as_str(), status.state), (&COMMIT[..12], "FAILED"));
        assert_eq!(status.url, "http://sdp.example/api/sandboxes/pr-eredar-7");
    }

    #[test]
    fn an_older_commit_is_not_taken_for_the_pull_requests() {
        let mut newer = record(PullRequestState::Open);
        newer.told.commit = "0123456789ab".into();
        let (commit, _) = told(&newer, &sight(vec![deployment("eredar", DeploymentState::Running)])).unwrap();
        assert_eq!(commit, "0123456789ab");
    }

    #[test]
    fn keys_and_descriptions_fit() {
        let longest: SandboxName = "x".repeat(63).parse().unwrap();
        assert_eq!(key(&longest).len(), LONGEST_KEY);
        assert_eq!(cut(&"é".repeat(300), LONGEST_DESCRIPTION).chars().count(), LONGEST_DESCRIPTION);
    }

    #[test]
    fn the_comment_says_where_everything_answers_and_hides_no_table() {
        let mut failed = deployment("illidan", DeploymentState::Failed);
        let reason = "exit 1:\n| `rm` <b>".into();
        failed.failure =
            Some(DeployFailure { stage: None, code: ErrorCode::BuildFailed, reason, previous_restored: None });
        let open = record(PullRequestState::Open);
        let text = comment(&open, &sight(vec![deployment("eredar", DeploymentState::Running), failed])).unwrap();
        assert_eq!(
            text,
            "**SDP sandbox `pr-eredar-7`**\n\n\
            | service | branch | commit | state | address |\n| --- | --- | --- | --- | --- |\n\
            | eredar | `feature/x\\|y` | `ef8755f06ee4` | running | http://vm.example:7001 |\n\
            | illidan | `feature/x\\|y` | `ef8755f06ee4` | failed |  |\n\n\
            illidan: `exit 1: | 'rm' <b>`\n\n\
            Requests with the header `X-SDP-Sandbox: pr-eredar-7-7f3k9q2m` reach it through the gateway.\n\n\
            It expires at 2026-12-24 18:00 UTC."
        );
    }

    #[test]
    fn a_closed_pull_request_hears_that_its_sandbox_goes_if_it_heard_of_it() {
        let mut merged = record(PullRequestState::Merged);
        let mut sight = sight(vec![deployment("eredar", DeploymentState::Running)]);
        assert_eq!(comment(&merged, &sight), None);
        merged.reported.comment = Some("before".into());
        sight.state = Some(SandboxState::Deleting);
        assert!(comment(&merged, &sight).unwrap().ends_with("is being removed: the pull request is merged."));
        sight.state = None;
        assert!(comment(&merged, &sight).unwrap().ends_with("was removed: the pull request is merged."));
    }
}
