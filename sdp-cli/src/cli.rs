//! The command line.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    commands as c,
    context::Context,
    error::{CliError, exit},
    output::Colour,
    paths::Variables,
};

/// Puts feature branches into sandboxes, and sends chosen services of the gateway to them.
#[derive(Debug, Parser)]
#[command(name = "sdp", version, after_help = FIRST_STEPS, after_long_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    /// The server's address, over the one of the configuration.
    #[arg(long, global = true, env = "SDP_SERVER", hide_env_values = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Writes JSON, for programs: what the API answers, one value a line. Errors too, on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When there is colour.
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN", hide_possible_values = true)]
    pub(crate) color: Colour,
    /// Says on standard error what is sent again, and what is gone on with.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Login(c::login::Login),
    Logout(c::logout::Logout),
    Whoami(c::whoami::Whoami),
    Deploy(c::deploy::Deploy),
    Logs(c::logs::Logs),
    Exec(c::exec::Exec),
    History(c::history::History),
    #[command(subcommand, visible_alias = "deployments")]
    Deployment(c::deployment::Deployment),
    #[command(subcommand, visible_alias = "sandboxes")]
    Sandbox(c::sandbox::Sandbox),
    #[command(subcommand, visible_alias = "routes")]
    Route(c::route::Route),
    #[command(subcommand, visible_alias = "templates")]
    Template(c::template::Template),
    #[command(subcommand, visible_alias = "environment")]
    Env(c::env::Env),
    #[command(subcommand, visible_alias = "repos")]
    Repo(c::repo::Repo),
    #[command(subcommand, visible_alias = "agent")]
    Agents(c::agents::Agents),
    #[command(subcommand, visible_alias = "tokens")]
    Token(c::token::Token),
    #[command(subcommand, visible_alias = "users")]
    User(c::user::User),
    Events(c::events::Events),
    Audit(c::audit::Audit),
    Doctor(c::doctor::Doctor),
    #[command(subcommand)]
    Config(c::config::Config),
    Completions(c::completions::Completions),
    #[command(hide = true)]
    Man(c::man::Man),
}

const FIRST_STEPS: &str = "\
First steps:
  sdp login --server https://sdp.example
  sdp sandbox create pay
  sdp deploy eredar feature/greeting --sandbox pay --follow
  sdp route set pay eredar=sandbox";

const AFTER_HELP: &str = "\
First steps:
  sdp login --server https://sdp.example
  sdp sandbox create pay
  sdp deploy eredar feature/greeting --sandbox pay --follow
  sdp route set pay eredar=sandbox

Environment:
  SDP_SERVER       the server's address
  SDP_TOKEN        a token of `sdp token create`, for scripts: nobody has to sign in
  SSL_CERT_FILE    the CA certificates to trust
  NO_COLOR, CLICOLOR, CLICOLOR_FORCE

Files:
  ~/.config/sdp/config.toml         what `sdp config` sets ($XDG_CONFIG_HOME counts)
  ~/.config/sdp/credentials.toml    what `sdp login` keeps, for your eyes only

Exit codes:
  0    done, and come out well
  1    done, and not come out well: a failed deployment; or something without a code of its own
  2    not asked as it must be
  3    not signed in, or not allowed
  4    no such thing
  5    something else is in the way: a name, a port or a route that is taken
  6    the server cannot be reached, or is not SDP's
  7    not now: an agent or a host is away, it took too long, or it was asked too often
  130  Ctrl-C
`sdp exec` exits as the command that it has run; where that is not known, with one of these after a line `sdp: ...`.";

impl Cli {
    /// Does what the command line says, and says how it went.
    pub async fn run(self, variables: &Variables) -> ExitCode {
        if self.globals.verbose {
            log();
        }
        let context = Context::new(&self.globals, variables);
        match self.command.run(&context).await {
            Ok(()) => exit::OK.into(),
            Err(error) => {
                context.out.error(&error);
                error.exit().into()
            }
        }
    }
}

/// Logs what the client does, and nothing of the network libraries below it, which would tell tokens.
fn log() {
    let filter = Targets::new().with_target("sdp_core::client", tracing::Level::DEBUG);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    // Nobody else has set one in this process.
    let _ = tracing_subscriber::registry().with(layer).with(filter).try_init();
}

impl Command {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Login(it) => it.run(context).await,
            Self::Logout(it) => it.run(context).await,
            Self::Whoami(it) => it.run(context).await,
            Self::Deploy(it) => it.run(context).await,
            Self::Logs(it) => it.run(context).await,
            Self::Exec(it) => it.run(context).await,
            Self::History(it) => it.run(context).await,
            Self::Deployment(it) => it.run(context).await,
            Self::Sandbox(it) => it.run(context).await,
            Self::Route(it) => it.run(context).await,
            Self::Template(it) => it.run(context).await,
            Self::Env(it) => it.run(context).await,
            Self::Repo(it) => it.run(context).await,
            Self::Agents(it) => it.run(context).await,
            Self::Token(it) => it.run(context).await,
            Self::User(it) => it.run(context).await,
            Self::Events(it) => it.run(context).await,
            Self::Audit(it) => it.run(context).await,
            Self::Doctor(it) => it.run(context).await,
            Self::Config(it) => it.run(context),
            Self::Completions(it) => it.run(context),
            Self::Man(it) => it.run(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_commands_help_has_an_example_that_can_be_parsed() {
        fn leaves(command: &clap::Command, path: &str, seen: &mut Vec<(String, String)>) {
            let path = format!("{path} {}", command.get_name()).trim().to_owned();
            let mut subcommands = command.get_subcommands().filter(|it| it.get_name() != "help").peekable();
            if subcommands.peek().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                seen.push((path, help));
                return;
            }
            subcommands.for_each(|it| leaves(it, &path, seen));
        }
        let mut seen = Vec::new();
        leaves(&Cli::command(), "", &mut seen);
        assert!(seen.len() > 50, "{seen:?}");
        for (path, help) in seen {
            let examples: Vec<_> = help.lines().filter(|line| line.contains(&path)).collect();
            assert!(help.starts_with("Example") && !examples.is_empty(), "{path} has no example: {help}");
            for example in examples {
                // Of a line with pipes, what is ours.
                let ours = example.split(" | ").find(|part| part.contains(&path)).unwrap();
                let ours = ours.split(" > ").next().unwrap().split("  #").next().unwrap();
                let from = ours.find(path.as_str()).unwrap();
                let words = ours[from..].split_whitespace().map(|word| word.trim_matches(['\'', '"']));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{example:?} cannot be parsed: {error}");
                }
            }
        }
    }
}
