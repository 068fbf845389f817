//! `make torture`: kills the real daemons and spoils the connection between them and their disks in the
//! middle of deployments, and says what came of it; `torture TIMES` gives the number of kills. It is the
//! daemons too, `torture server CONFIG` and `torture agent CONFIG`, and what puts load on gateways, `torture load`.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use sdp_examples::{
    Failed, load,
    torture::{self, Strikes},
};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", config] => sdp_server::cli::Cli::parse_from(["sdp-server", "--config", config]).run().await,
        ["agent", config] => sdp_agent::cli::Cli::parse_from(["sdp-agent", "--config", config]).run().await,
        ["load"] => load::serve().await.map_err(|it| it.0),
        [times] if times.parse::<usize>().is_ok() => {
            harness(times.parse().unwrap_or_default()).await.map_err(|it| it.0)
        }
        _ => Err("usage: torture TIMES".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            writeln!(std::io::stderr(), "{reason}").ok();
            ExitCode::FAILURE
        }
    }
}

async fn harness(times: usize) -> Result<(), Failed> {
    let report = torture::run(&std::env::current_exe()?, Strikes::times(times)).await?;
    writeln!(std::io::stdout(), "{report}")?;
    if report.violations().is_empty() { Ok(()) } else { Err(Failed("something happened that must not".into())) }
}
