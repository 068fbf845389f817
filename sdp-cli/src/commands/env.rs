//! `sdp env …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use sdp_core::{
    AgentName, EnvName, Environment, EnvironmentName, PortRange,
    api::SaveEnvironment,
    model::units::{format_duration, parse_duration},
};

use super::show::maybe;
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Look, Table, Tone, clean},
    values::variable,
};

/// Shows and, for admins, sets up the environments that sandboxes live in.
#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// Lists environments.
    #[command(after_help = "Example:
  sdp env list")]
    List,
    /// Shows an environment.
    #[command(after_help = "Example:
  sdp env show qa")]
    Show {
        /// The environment.
        name: EnvironmentName,
    },
    /// Makes an environment.
    #[command(after_help = "Example:
  sdp env create qa --agent micro-92 --env LOG_LEVEL=debug --ports 21000-21999 --idle-after 12h")]
    Create(Settings),
    /// Changes an environment: what is named here, and nothing else of it.
    #[command(after_help = "Examples:
  sdp env change qa --env LOG_LEVEL=info --unset-env MODE
  sdp env change qa --agent micro-92 --agent micro-93")]
    Change(Change),
    /// Deletes an environment that no sandbox lives in.
    #[command(after_help = "Example:
  sdp env delete qa")]
    Delete {
        /// The environment.
        name: EnvironmentName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The environment.
    name: EnvironmentName,
    /// The agent whose gateway it uses.
    #[arg(long)]
    gateway: Option<AgentName>,
    /// An agent that it may use; all when none is named. Repeatable.
    #[arg(long = "agent")]
    agents: Vec<AgentName>,
    /// An environment variable of everything deployed into it. Repeatable.
    #[arg(long = "env", short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(EnvName, String)>,
    /// The host ports it may use: 21000-21999.
    #[arg(long, value_name = "FIRST-LAST", value_parser = |text: &str| PortRange::try_from(text.to_owned()))]
    ports: Option<PortRange>,
    /// How long its sandboxes live: 12h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    lifetime: Option<Duration>,
    /// After how long without use its sandboxes go to sleep: 12h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    idle_after: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    settings: Settings,
    /// An environment variable to take out. Repeatable.
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<EnvName>,
}

impl Env {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        match self {
            Self::List => {
                let environments = client.environments().await?;
                context.out.list(&environments, "there are no environments", table)
            }
            Self::Show { name } => context.out.answer(&client.environment(&name).await?.value, shown),
            Self::Create(settings) => {
                let name = settings.name.clone();
                let body = settings.over(&Environment::new(name.clone()));
                let made = client.create_environment(&SaveEnvironment { name: Some(name), ..body }).await?;
                context.out.answer(&made.value, |it, _| format!("environment {} is made\n", it.name))
            }
            Self::Change(Change { settings, unset_env }) => {
                let name = settings.name.clone();
                let present = client.environment(&name).await?;
                let mut body = settings.over(&present.value);
                unset_env.iter().for_each(|variable| drop(body.env.remove(variable)));
                // What somebody else changes meanwhile is not written over.
                let changed = client.replace_environment(&name, &body, present.version.as_ref()).await?;
                context.out.answer(&changed.value, shown)
            }
            Self::Delete { name } => {
                client.delete_environment(&name, None).await?;
                let gone = serde_json::json!({ "name": name, "state": "deleted" });
                context.out.answer(&gone, |_, _| format!("environment {name} is deleted\n"))
            }
        }
    }
}

impl Settings {
    /// What is named here over what there is.
    fn over(self, present: &Environment) -> SaveEnvironment {
        let mut env = present.env.clone();
        env.extend(self.env);
        let agents = if self.agents.is_empty() { present.agents.clone() } else { self.agents.into_iter().collect() };
        SaveEnvironment {
            name: None,
            gateway: self.gateway.or_else(|| present.gateway.clone()),
            agents,
            env,
            ports: self.ports.or_else(|| present.ports.clone()),
            sandbox_lifetime: self.lifetime.or(present.sandbox_lifetime),
            idle_after: self.idle_after.or(present.idle_after),
        }
    }
}

fn agents(environment: &Environment) -> String {
    let names: Vec<_> = environment.agents.iter().map(|name| name.as_str()).collect();
    if names.is_empty() { "all".into() } else { names.join(", ") }
}

fn table(environments: &[Environment]) -> Table {
    let mut table = Table::new(["name", "gateway", "agents", "ports", "sandboxes live", "sleep after"]);
    for it in environments {
        table.row([
            Cell::new(Tone::Strong, &it.name),
            maybe(it.gateway.as_ref()),
            agents(it).into(),
            maybe(it.ports.as_ref()),
            maybe(it.sandbox_lifetime.map(format_duration).as_ref()),
            maybe(it.idle_after.map(format_duration).as_ref()),
        ]);
    }
    table
}

fn shown(it: &Environment, look: Look) -> String {
    let mut text = table(std::slice::from_ref(it)).render(look);
    it.env.iter().for_each(|(name, value)| text.push_str(&format!("{name}={}\n", clean(value))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let mut present = Environment::new("qa".parse().unwrap());
        present.env = [("A".parse().unwrap(), "1".into()), ("B".parse().unwrap(), "2".into())].into();
        present.idle_after = Some(Duration::from_secs(60));
        let settings = Settings {
            name: "qa".parse().unwrap(),
            gateway: None,
            agents: vec!["micro-92".parse().unwrap()],
            env: vec![variable("B=3").unwrap()],
            ports: None,
            lifetime: Some(Duration::from_secs(86_400)),
            idle_after: None,
        };
        let body = settings.over(&present);
        assert_eq!(body.env.values().collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!((body.idle_after, body.agents.len()), (Some(Duration::from_secs(60)), 1));
        assert_eq!(body.sandbox_lifetime, Some(Duration::from_secs(86_400)));
    }
}
