//! `sdp agents …`.

use clap::Subcommand;
use jiff::Timestamp;
use sdp_core::{Agent, AgentName, client::IssuedAgentToken};
use secrecy::ExposeSecret;

use super::show::maybe;
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Look, Table, Tone, ago},
};

/// Shows the agents and, for admins, enrols and revokes them.
#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    /// Lists every enrolled agent.
    #[command(after_help = "Example:
  sdp agents list")]
    List,
    /// Shows an agent, and what it can deploy.
    #[command(after_help = "Example:
  sdp agents show micro-92")]
    Show {
        /// The agent.
        name: AgentName,
    },
    /// Enrols an agent and prints its token, once.
    #[command(after_help = "Example:
  (umask 077; sdp agents enrol micro-92 > agent.token)")]
    Enrol {
        /// Its name: lower-case letters, digits and hyphens.
        name: AgentName,
    },
    /// Gives an agent another token and prints it, once; its connection ends.
    #[command(after_help = "Example:
  sdp agents rotate micro-92 > agent.token")]
    Rotate {
        /// The agent.
        name: AgentName,
    },
    /// Revokes an agent's token; its connection ends.
    #[command(after_help = "Example:
  sdp agents revoke micro-92")]
    Revoke {
        /// The agent.
        name: AgentName,
    },
}

impl Agents {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        match self {
            Self::List => {
                let agents = client.agents().await?;
                let none = "no agent is enrolled; an admin does it with `sdp agents enrol NAME`";
                context.out.list(&agents, none, |items| table(items, Timestamp::now()))
            }
            Self::Show { name } => {
                context.out.answer(&client.agent(&name).await?, |it, look| shown(it, look, Timestamp::now()))
            }
            Self::Enrol { name } => issued(context, &client.enrol_agent(&name).await?),
            Self::Rotate { name } => issued(context, &client.rotate_agent(&name).await?),
            Self::Revoke { name } => {
                client.revoke_agent(&name).await?;
                let gone = serde_json::json!({ "name": name, "state": "revoked" });
                context.out.answer(&gone, |_, _| format!("the token of agent {name} is revoked\n"))
            }
        }
    }
}

/// The token alone on standard output, so that it can go into a file.
fn issued(context: &Context, issued: &IssuedAgentToken) -> Result<(), CliError> {
    let (name, token) = (&issued.name, issued.token.expose_secret());
    context.out.note(format!("the token of agent {name}, for its token_file; it is shown this once:"));
    context.out.answer(&serde_json::json!({ "name": name, "token": token }), |_, _| format!("{token}\n"))
}

fn connection(agent: &Agent, now: Timestamp) -> Cell {
    match (agent.connected, agent.transport, agent.last_seen) {
        (true, Some(transport), _) => Cell::new(Tone::Good, format!("by {transport}")),
        (true, None, _) => Cell::new(Tone::Good, "yes"),
        (false, _, Some(seen)) => Cell::new(Tone::Bad, format!("no, last {}", ago(seen, now))),
        (false, _, None) => Cell::new(Tone::Bad, "never was"),
    }
}

fn table(agents: &[Agent], now: Timestamp) -> Table {
    let mut table =
        Table::new(["agent", "connected", "version", "runs", "host", "repos", "gateway", "exec", "at work"]);
    for agent in agents {
        let inventory = agent.inventory.as_ref();
        table.row([
            Cell::new(Tone::Strong, &agent.name),
            connection(agent, now),
            maybe(inventory.map(|it| &it.version)),
            maybe(inventory.map(|it| &it.deployer)),
            maybe(inventory.map(|it| &it.advertise)),
            maybe(inventory.map(|it| it.repos.len()).as_ref()),
            maybe(inventory.and_then(|it| it.gateway.as_ref()).map(|gateway| &gateway.repo)),
            maybe(inventory.and_then(|it| it.exec).map(|allows| if allows { "yes" } else { "no" }).as_ref()),
            agent.active_deployments.into(),
        ]);
    }
    table
}

fn shown(agent: &Agent, look: Look, now: Timestamp) -> String {
    let mut text = table(std::slice::from_ref(agent), now).render(look);
    let repos = agent.inventory.iter().flat_map(|inventory| &inventory.repos);
    let mut table = Table::new(["repo", "service", "below"]);
    for repo in repos {
        table.row([(&repo.name).into(), maybe(repo.service.as_ref()), maybe(repo.url_prefix.as_ref())]);
    }
    text.push('\n');
    text.push_str(&table.render(look));
    text
}
