//! `sdp sandbox extend`, `share`, `sleep` and `wake`.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use sdp_core::{SandboxName, UserName, api::ChangeSandbox, model::units::parse_duration};

use crate::{context::Context, error::CliError, output::left};

/// Moves a sandbox's end.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp sandbox extend pay 7d
  sdp sandbox extend pay --until 2026-12-24T18:00:00Z")]
pub(crate) struct Extend {
    /// The sandbox.
    name: SandboxName,
    /// So long from now: 12h, 7d.
    #[arg(value_name = "TIME", value_parser = parse_duration, required_unless_present = "until")]
    expires_in: Option<Duration>,
    /// To this time.
    #[arg(long, conflicts_with = "expires_in", value_name = "TIMESTAMP")]
    until: Option<Timestamp>,
}

/// Says who besides its owner may do with a sandbox what the owner may, in place of those who may now.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp sandbox share pay bob cyd
  sdp sandbox share pay --nobody")]
pub(crate) struct Share {
    /// The sandbox.
    name: SandboxName,
    /// Who.
    #[arg(required_unless_present = "nobody")]
    users: Vec<UserName>,
    /// Nobody besides its owner.
    #[arg(long, conflicts_with = "users")]
    nobody: bool,
}

/// Stops what runs in a sandbox, and keeps it.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox sleep pay")]
pub(crate) struct Sleep {
    /// The sandbox.
    name: SandboxName,
}

/// Starts what a sandbox's sleep had stopped.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp sandbox wake pay")]
pub(crate) struct Wake {
    /// The sandbox.
    name: SandboxName,
}

impl Extend {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let body = ChangeSandbox { expires_in: self.expires_in, expires_at: self.until, ..ChangeSandbox::default() };
        let changed = context.client()?.change_sandbox(&self.name, &body, None).await?.value;
        context.out.answer(&changed, |it, _| {
            let end = it.sandbox.expires_at;
            format!("sandbox {} expires {} ({end})\n", it.sandbox.name, left(end, Timestamp::now()))
        })
    }
}

impl Share {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let body = ChangeSandbox { shared_with: Some(self.users.into_iter().collect()), ..ChangeSandbox::default() };
        let changed = context.client()?.change_sandbox(&self.name, &body, None).await?.value;
        context.out.answer(&changed, |it, _| {
            let users: Vec<_> = it.sandbox.shared_with.iter().map(|user| user.as_str()).collect();
            let users = if users.is_empty() { "nobody".into() } else { users.join(", ") };
            format!("sandbox {} is shared with {users}\n", it.sandbox.name)
        })
    }
}

impl Sleep {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let sandbox = context.client()?.put_sandbox_to_sleep(&self.name).await?;
        context.out.answer(&sandbox, |it, _| {
            format!("sandbox {} is {}; `sdp sandbox wake` starts it again\n", it.sandbox.name, it.sandbox.state)
        })
    }
}

impl Wake {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let sandbox = context.client()?.wake_sandbox(&self.name).await?;
        context.out.answer(&sandbox, |it, _| format!("sandbox {} is {}\n", it.sandbox.name, it.sandbox.state))
    }
}
