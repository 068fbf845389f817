//! `sdp man`, for packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::{Cli, context::Context, error::CliError};

/// Writes the manual pages, one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp man target/man")]
pub(crate) struct Man {
    /// The directory to write them to; it is made if it is not there.
    dir: PathBuf,
}

impl Man {
    pub(crate) fn run(self, context: &Context) -> Result<(), CliError> {
        std::fs::create_dir_all(&self.dir).map_err(CliError::file("made", &self.dir))?;
        clap_mangen::generate_to(Cli::command(), &self.dir).map_err(CliError::file("written", &self.dir))?;
        context.out.note(format!("the manual pages are in {}", self.dir.display()));
        Ok(())
    }
}
