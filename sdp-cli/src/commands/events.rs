//! `sdp events`.

use clap::Args;
use sdp_core::{
    api::live::{AgentHappened, Change, Happened, LiveEvent},
    client::Live,
};
use serde_json::json;

use crate::{
    context::Context,
    error::CliError,
    output::{Look, Tone, clean},
};

/// Tells what changes on the platform, as it does, until Ctrl-C: deployments, sandboxes, routes, agents.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp events
  sdp events --from 4711 --json | jq -r .type")]
pub(crate) struct Events {
    /// From this event on; from now on when left out.
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
}

impl Events {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut events = context.client()?.events(self.from);
        let out = &context.out;
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let live = tokio::select! {
                live = events.next() => live?,
                _ = &mut interrupted => {
                    let go_on = events.position().map(|next| format!("\n  -> go on here: sdp events --from {next}"));
                    return Err(CliError::Interrupted(format!("not followed any more{}", go_on.unwrap_or_default())));
                }
            };
            match live {
                Live::Event(event) => out.answer(&event, line)?,
                Live::Begins(next) => out.note(format!("following what changes, from event {next} on")),
                Live::Gap { from, oldest } if out.is_json() => {
                    out.json(&json!({ "type": "gap", "from": from, "oldest": oldest }))?;
                }
                Live::Gap { from, oldest } => {
                    out.warn(format!("events {from} to {} are kept no more", oldest.saturating_sub(1)));
                }
            }
        }
    }
}

fn line(event: &LiveEvent, look: Look) -> String {
    let at = look.paint(Tone::Dim, event.at.strftime("%H:%M:%SZ"));
    format!("{at} {}\n", clean(&told(&event.change)))
}

fn happened(change: Happened) -> &'static str {
    match change {
        Happened::Created => "was made",
        Happened::Changed => "was changed",
        Happened::Deleted => "is gone",
    }
}

fn told(change: &Change) -> String {
    match change {
        Change::Deployment { id, sandbox, repo, branch, user, state, url, .. } => {
            let place = sandbox.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
            let url = url.as_ref().map(|url| format!(" on {url}")).unwrap_or_default();
            format!("deployment {place}{repo} {branch} of {user}: {state}{url} ({id})")
        }
        Change::Sandbox { name, change, state, owner } => {
            format!("sandbox {name} of {owner} {}: {state}", happened(*change))
        }
        Change::Route { gateway, sandbox, services, .. } => {
            let of = sandbox.as_ref().map_or_else(|| gateway.to_string(), |name| format!("sandbox {name}"));
            let services: Vec<_> = services.iter().map(|name| name.as_str()).collect();
            let services = if services.is_empty() { String::new() } else { format!(": {}", services.join(", ")) };
            format!("routes of the gateway of {of} were changed{services}")
        }
        Change::Agent { name, change } => {
            let what = match change {
                AgentHappened::Enrolled => "was enrolled",
                AgentHappened::Rotated => "got another token",
                AgentHappened::Revoked => "was revoked",
                AgentHappened::Connected => "connected",
                AgentHappened::Disconnected => "is away",
            };
            format!("agent {name} {what}")
        }
        Change::Environment { name, change } => format!("environment {name} {}", happened(*change)),
        Change::Template { name, change } => format!("template {name} {}", happened(*change)),
        Change::Started { version } => format!("the server was started, version {version}"),
        _ => "something of a newer version".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_in_a_line() {
        let event: LiveEvent = serde_json::from_value(json!({
            "seq": 7, "at": "2026-01-02T03:04:05Z", "type": "deployment",
            "id": "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55", "sandbox": "pay", "repo": "eredar", "branch": "main",
            "agent": "micro-92", "user": "ada", "state": "running", "url": "http://10.0.0.92:20001",
        }))
        .unwrap();
        assert_eq!(
            line(&event, Look::default()),
            "03:04:05Z deployment pay/eredar main of ada: running on http://10.0.0.92:20001 (0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55)\n"
        );
    }
}
