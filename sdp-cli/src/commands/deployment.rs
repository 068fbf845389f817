//! `sdp deployment …`.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sdp_core::{Deployment as Record, client::Client};

use super::show::tone;
use crate::{
    context::Context,
    error::CliError,
    follow::follow_new,
    output::{Look, Tone, ago, clean, short},
    which::WhichDeployment,
};

/// Shows one deployment, and acts on it.
#[derive(Debug, Subcommand)]
pub(crate) enum Deployment {
    /// Shows a deployment with its stages.
    #[command(after_help = "Examples:
  sdp deployment show eredar --sandbox pay
  sdp deployment show 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55")]
    Show(Which),
    /// Cancels a deployment that has not ended; what served before serves again.
    #[command(after_help = "Example:
  sdp deployment cancel eredar --sandbox pay")]
    Cancel(Which),
    /// Stops what a deployment runs.
    #[command(after_help = "Example:
  sdp deployment stop eredar --sandbox pay")]
    Stop(Which),
    /// Starts again what was stopped.
    #[command(after_help = "Example:
  sdp deployment restart eredar --sandbox pay")]
    Restart(Which),
    /// Deploys the same once more.
    #[command(after_help = "Example:
  sdp deployment retry eredar --sandbox pay --follow")]
    Retry(Again),
    /// Goes back to what an earlier deployment was: the one named if it was replaced, the last that was something else
    /// if it is what runs.
    #[command(after_help = "Example:
  sdp deployment rollback eredar --sandbox pay --follow")]
    Rollback(Again),
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    #[command(flatten)]
    which: WhichDeployment,
}

#[derive(Debug, Args)]
pub(crate) struct Again {
    #[command(flatten)]
    which: WhichDeployment,
    /// Follows it to its end, and fails if it does.
    #[arg(long, short)]
    follow: bool,
}

impl Deployment {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        match self {
            Self::Show(Which { which }) => {
                let deployment = which.find(&client).await?;
                context.out.answer(&deployment, |it, look| shown(it, look, Timestamp::now()))
            }
            Self::Cancel(Which { which }) => {
                let id = which.find_to_change(&client).await?.id;
                done(context, &client.cancel_deployment(id).await?)
            }
            Self::Stop(Which { which }) => {
                let id = which.find_to_change(&client).await?.id;
                done(context, &client.stop_deployment(id).await?)
            }
            Self::Restart(Which { which }) => {
                let id = which.find_to_change(&client).await?.id;
                done(context, &client.restart_deployment(id).await?)
            }
            Self::Retry(Again { which, follow }) => {
                let id = which.find_to_change(&client).await?.id;
                begun(context, &client, client.retry_deployment(id, None).await?, follow).await
            }
            Self::Rollback(Again { which, follow }) => {
                let id = which.find_to_change(&client).await?.id;
                begun(context, &client, client.roll_back_deployment(id, None).await?, follow).await
            }
        }
    }
}

fn done(context: &Context, deployment: &Record) -> Result<(), CliError> {
    context.out.answer(deployment, |it, look| {
        format!("{} {} is {}\n", it.key, it.branch, look.paint(tone(it.state), it.state))
    })
}

async fn begun(context: &Context, client: &Client, deployment: Record, wait: bool) -> Result<(), CliError> {
    if wait {
        return follow_new(client, &context.out, &deployment).await.map(drop);
    }
    context.out.answer(&deployment, |it, _| {
        format!("deploying {} {} as {}\n  follow it with: sdp logs --follow {}\n", it.key, it.branch, it.id, it.id)
    })
}

fn shown(it: &Record, look: Look, now: Timestamp) -> String {
    let mut text = format!("{}\n", look.paint(Tone::Strong, it.id));
    let mut field = |name: &str, value: String| {
        text.push_str(&format!("  {} {}\n", look.paint(Tone::Dim, format!("{name:<8}")), clean(&value)));
    };
    field("what", it.key.to_string());
    let commit = it.commit.as_ref().map(|commit| format!(" at {}", commit.short())).unwrap_or_default();
    field("branch", format!("{}{commit}", it.branch));
    field("agent", it.agent.to_string());
    field("by", format!("{}, {}", it.user, ago(it.created_at, now)));
    if let Some(url) = &it.url {
        field("url", url.clone());
    }
    if !it.env.is_empty() {
        let pairs: Vec<_> = it.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        field("env", pairs.join(" "));
    }
    if let Some(earlier) = it.rollback_of {
        field("as", format!("{earlier}, which it goes back to"));
    }
    text.push_str(&format!(
        "  {} {}\n",
        look.paint(Tone::Dim, format!("{:<8}", "state")),
        look.paint(tone(it.state), it.state)
    ));
    if let Some(failure) = &it.failure {
        text.push_str(&format!("  {} {}\n", look.paint(Tone::Dim, format!("{:<8}", "why")), clean(&failure.reason)));
    }
    for stage in &it.stages {
        let took = stage.ended_at.map(|end| short(end.duration_since(stage.started_at).unsigned_abs()));
        let line = format!("    {:<7} {:<8} {}", stage.stage, stage.status, took.unwrap_or_default());
        text.push_str(&format!("{}\n", line.trim_end()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_shown_with_what_it_is_and_how_it_went() {
        let deployment = serde_json::from_value(serde_json::json!({
            "id": "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55", "sandbox": "pay", "repo": "eredar", "branch": "main",
            "commit": "cb696477e455e05dc2ff208f81af21f212dc0645", "agent": "micro-92", "state": "failed",
            "failure": { "stage": "build", "code": "build-failed", "reason": "go build ended with 1" },
            "env": { "MODE": "test" }, "user": "ada", "created_at": "2026-01-02T03:04:05Z",
            "stages": [
                { "stage": "source", "status": "done", "started_at": "2026-01-02T03:04:05Z", "ended_at": "2026-01-02T03:04:06.5Z" },
                { "stage": "build", "status": "failed", "started_at": "2026-01-02T03:04:07Z" },
            ],
        }))
        .unwrap();
        let text = shown(&deployment, Look::default(), "2026-01-02T03:14:05Z".parse().unwrap());
        assert_eq!(
            text,
            "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55\n  what     pay/eredar\n  branch   main at cb696477e455\n  agent    micro-92\n  \
             by       ada, 10m ago\n  env      MODE=test\n  state    failed\n  why      go build ended with 1\n    \
             source  done     1.5s\n    build   failed\n"
        );
    }
}
