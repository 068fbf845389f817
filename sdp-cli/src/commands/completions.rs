//! `sdp completions`.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::{Cli, context::Context, error::CliError};

/// Writes the completions of a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp completions bash > ~/.local/share/bash-completion/completions/sdp
  sdp completions zsh > ~/.zfunc/_sdp
  sdp completions fish > ~/.config/fish/completions/sdp.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut text = Vec::new();
        generate(self.shell, &mut Cli::command(), "sdp", &mut text);
        context.out.write_bytes(&text)
    }
}
