//! The `sdp` command.

use std::process::ExitCode;

use clap::Parser;
use sdp_cli::{Cli, Variables};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    Cli::parse().run(&Variables::of_process()).await
}
