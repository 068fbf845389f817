//! The control plane's daemon.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use sdp_server::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "sdp-server: {error}").ok();
            ExitCode::FAILURE
        }
    }
}
