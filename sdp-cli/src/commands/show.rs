//! How what several commands show is shown.

use jiff::Timestamp;
use sdp_core::{Deployment, DeploymentState, SandboxState, api::ListedSandbox};

use crate::output::{Cell, Table, Tone, ago, left};

/// How a state is to be taken.
pub(crate) fn tone(state: DeploymentState) -> Tone {
    use DeploymentState as S;
    match state {
        S::Running => Tone::Good,
        S::Failed => Tone::Bad,
        S::Cancelled => Tone::Warn,
        S::Stopped | S::Superseded => Tone::Dim,
        _ => Tone::Busy,
    }
}

/// A deployment's state.
pub(crate) fn state(state: DeploymentState) -> Cell {
    Cell::new(tone(state), state)
}

/// A sandbox's state.
pub(crate) fn sandbox_state(state: SandboxState) -> Cell {
    let tone = match state {
        SandboxState::Active => Tone::Good,
        SandboxState::Asleep => Tone::Dim,
        SandboxState::Deleting => Tone::Warn,
    };
    Cell::new(tone, state)
}

/// What is there, or nothing.
pub(crate) fn maybe(value: Option<&impl ToString>) -> Cell {
    value.map(ToString::to_string).unwrap_or_default().into()
}

/// Deployments, a line each.
pub(crate) fn deployments(deployments: &[Deployment], now: Timestamp) -> Table {
    let mut table = Table::new(["id", "what", "branch", "commit", "state", "by", "when", "url"]);
    for deployment in deployments {
        table.row([
            Cell::new(Tone::Dim, deployment.id),
            (&deployment.key).into(),
            (&deployment.branch).into(),
            deployment.commit.as_ref().map(|commit| &commit.short()[..7]).unwrap_or_default().into(),
            state(deployment.state),
            (&deployment.user).into(),
            ago(deployment.created_at, now).into(),
            maybe(deployment.url.as_ref().filter(|_| deployment.state == DeploymentState::Running)),
        ]);
    }
    table
}

/// Sandboxes, a line each.
pub(crate) fn sandboxes(sandboxes: &[ListedSandbox], now: Timestamp) -> Table {
    let mut table = Table::new(["name", "state", "owner", "environment", "made", "expires", "services"]);
    for ListedSandbox { sandbox, branches } in sandboxes {
        let services: Vec<_> = branches.iter().map(|(repo, branch)| format!("{repo}@{branch}")).collect();
        table.row([
            Cell::new(Tone::Strong, &sandbox.name),
            sandbox_state(sandbox.state),
            (&sandbox.owner).into(),
            (&sandbox.environment).into(),
            ago(sandbox.created_at, now).into(),
            expiry(sandbox.expires_at, now),
            services.join(" ").into(),
        ]);
    }
    table
}

/// When something ends, which is told louder when it is soon.
pub(crate) fn expiry(at: Timestamp, now: Timestamp) -> Cell {
    let is_soon = at.duration_since(now).as_secs() < 86_400;
    Cell::new(if is_soon { Tone::Warn } else { Tone::Plain }, left(at, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Look;

    const NOW: &str = "2026-01-02T04:04:05Z";

    fn deployment(state: &str) -> Deployment {
        serde_json::from_value(serde_json::json!({
            "id": "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55", "sandbox": "pay", "repo": "eredar",
            "branch": "feature/greeting", "commit": "cb696477e455e05dc2ff208f81af21f212dc0645",
            "agent": "micro-92", "state": state, "url": "http://10.0.0.92:20001", "user": "ada",
            "created_at": "2026-01-02T03:04:05Z",
        }))
        .unwrap()
    }

    #[test]
    fn history_is_a_line_for_each_deployment() {
        let table = deployments(&[deployment("running"), deployment("superseded")], NOW.parse().unwrap());
        let text = table.render(Look::default());
        assert_eq!(
            text,
            "ID                                    WHAT        BRANCH            COMMIT   STATE       BY   WHEN    URL\n\
             0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55  pay/eredar  feature/greeting  cb69647  running     ada  1h ago  http://10.0.0.92:20001\n\
             0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55  pay/eredar  feature/greeting  cb69647  superseded  ada  1h ago\n"
        );
    }

    #[test]
    fn what_ends_soon_is_told_louder() {
        let sandbox: ListedSandbox = serde_json::from_value(serde_json::json!({
            "name": "pay", "environment": "default", "owner": "ada", "state": "asleep",
            "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-02T14:04:05Z",
            "branches": { "eredar": "feature/greeting" },
        }))
        .unwrap();
        let text = sandboxes(&[sandbox], NOW.parse().unwrap()).render(Look { has_colour: true, width: None });
        assert!(text.contains("\x1b[33min 10h\x1b[0m") && text.contains("eredar@feature/greeting"), "{text:?}");
    }
}
