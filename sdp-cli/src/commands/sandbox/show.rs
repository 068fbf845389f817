//! `sdp sandbox show`.

use clap::Args;
use jiff::Timestamp;
use sdp_core::{SandboxName, api::SandboxDetail};

use super::super::show::{expiry, maybe, sandbox_state, state};
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Look, Table, Tone, ago, clean},
};

/// Shows a sandbox: what runs in it, the routes it wants, and how requests reach it.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox show pay")]
pub(crate) struct Show {
    /// The sandbox.
    name: SandboxName,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let sandbox = context.client()?.sandbox(&self.name).await?.value;
        context.out.answer(&sandbox, |it, look| shown(it, look, Timestamp::now()))
    }
}

pub(super) fn shown(detail: &SandboxDetail, look: Look, now: Timestamp) -> String {
    let sandbox = &detail.sandbox;
    let mut text = format!("{}\n", look.paint(Tone::Strong, &sandbox.name));
    let mut facts = Table::new(["", ""]);
    let shared: Vec<_> = sandbox.shared_with.iter().map(|user| user.as_str()).collect();
    let shared = if shared.is_empty() { String::new() } else { format!(", shared with {}", shared.join(", ")) };
    let mut fact = |name: &str, value: Cell| facts.row([Cell::new(Tone::Dim, format!("  {name}")), value]);
    fact("state", sandbox_state(sandbox.state));
    fact("owner", format!("{}{shared}, {}", sandbox.owner, ago(sandbox.created_at, now)).into());
    fact("environment", (&sandbox.environment).into());
    fact("expires", expiry(sandbox.expires_at, now));
    if let Some(problem) = &detail.problem {
        fact("problem", Cell::new(Tone::Warn, problem));
    }
    if let Some(gateway) = &detail.routing.gateway {
        let place = gateway.url.as_deref().unwrap_or("not answering yet");
        fact("gateway", format!("its own, on {}: {place}", gateway.agent).into());
    }
    if let Some(key) = &detail.routing.request_key {
        fact("request key", (&key.header).into());
    }
    text.push_str(facts.render(look).split_once('\n').map_or("", |(_, rows)| rows));
    if !detail.shape.services.is_empty() {
        text.push('\n');
        text.push_str(&services(detail).render(look));
    }
    if !detail.shape.routes.is_empty() {
        let mut routes = Table::new(["route", "to"]);
        detail.shape.routes.iter().for_each(|(service, target)| routes.row([service.into(), target.into()]));
        text.push('\n');
        text.push_str(&routes.render(look));
    }
    for lost in &detail.routing.taken {
        let line = format!("{} was taken by sandbox {} ({}, {})", lost.service, lost.by, lost.user, ago(lost.at, now));
        text.push_str(&format!("\n{}\n", look.paint(Tone::Warn, clean(&line))));
    }
    if let Some(curl) =
        detail.routing.request_key.as_ref().filter(|key| key.per_request).and_then(|it| it.curl.as_ref())
    {
        text.push_str(&format!("\nReach it with: {}\n", clean(curl)));
    }
    text
}

fn services(detail: &SandboxDetail) -> Table {
    let mut table = Table::new(["service", "branch", "state", "agent", "port", "url"]);
    for service in detail.shape.services.iter() {
        let newest = detail.deployments.iter().find(|deployment| deployment.key.repo == service.repo);
        table.row([
            (&service.repo).into(),
            (&service.branch).into(),
            newest.map(|it| state(it.state)).unwrap_or_else(|| Cell::new(Tone::Dim, "not deployed")),
            maybe(newest.map(|it| &it.agent)),
            maybe(newest.and_then(|it| it.host_port).as_ref()),
            maybe(newest.and_then(|it| it.url.as_ref())),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_is_shown_with_what_runs_in_it() {
        let detail = serde_json::from_value(serde_json::json!({
            "name": "pay", "environment": "default", "owner": "ada", "shared_with": ["bob"], "state": "active",
            "created_at": "2026-01-02T03:04:05Z", "expires_at": "2026-01-09T03:04:05Z",
            "services": [{ "repo": "eredar", "branch": "feature/greeting" }, { "repo": "illidan", "branch": "main" }],
            "routes": { "eredar": "sandbox", "illidan": { "url": "http://10.0.0.7:1" } },
            "deployments": [{
                "id": "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55", "sandbox": "pay", "repo": "eredar",
                "branch": "feature/greeting", "agent": "micro-92", "state": "running", "host_port": 20001,
                "url": "http://10.0.0.92:20001", "user": "ada", "created_at": "2026-01-02T03:04:05Z",
            }],
            "request_key": {
                "key": "pay-7f3k9q2m", "header": "X-SDP-Sandbox: pay-7f3k9q2m", "cookie": "sdp-sandbox=pay-7f3k9q2m",
                "baggage": "sdp-sandbox=pay-7f3k9q2m", "per_request": true,
                "curl": "curl -H 'X-SDP-Sandbox: pay-7f3k9q2m' 'http://gw/erangel/'",
            },
        }))
        .unwrap();
        let text = shown(&detail, Look::default(), "2026-01-02T04:04:05Z".parse().unwrap());
        assert_eq!(
            text,
            "\
pay
  state        active
  owner        ada, shared with bob, 1h ago
  environment  default
  expires      in 7d
  request key  X-SDP-Sandbox: pay-7f3k9q2m

SERVICE  BRANCH            STATE         AGENT     PORT   URL
eredar   feature/greeting  running       micro-92  20001  http://10.0.0.92:20001
illidan  main              not deployed

ROUTE    TO
eredar   sandbox
illidan  http://10.0.0.7:1

Reach it with: curl -H 'X-SDP-Sandbox: pay-7f3k9q2m' 'http://gw/erangel/'
"
        );
    }
}
