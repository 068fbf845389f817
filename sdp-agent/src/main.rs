//! The agent's daemon.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use sdp_agent::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "sdp-agent: {error}").ok();
            ExitCode::FAILURE
        }
    }
}
