//! `make demo`: the whole platform in one process, and its main job on real parts.

use std::{io::Write, process::ExitCode};

use sdp_examples::{
    Failed,
    playground::{Options, Playground, Runner},
    story,
};

#[tokio::main]
async fn main() -> ExitCode {
    let once = std::env::args().any(|arg| arg == "--once");
    match run(once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(reason)) => {
            let _ = writeln!(std::io::stderr(), "demo failed: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(once: bool) -> Result<(), Failed> {
    let mut out = std::io::stdout();
    writeln!(out, "Starting a git host, a stable cluster, the control plane and two agents …")?;
    let options = Options {
        port: 3452,
        per_request: true,
        deployer_settings: "exec = true\n",
        ..Options::new(Runner::available().await)
    };
    let playground = Playground::start(options).await?;
    writeln!(out, "{playground}")?;
    let told = story::run(&playground, &mut out).await;
    if told.is_ok() && !once {
        writeln!(out, "{}", playground.where_to_look())?;
        tokio::signal::ctrl_c().await?;
    }
    playground.shutdown().await?;
    told.map(drop)
}
