//! `make schemathesis`: the API's own description, tried against the whole platform on real parts.
//!
//! The arguments are schemathesis and what else it is to be told.

use std::{io::Write, path::Path, process::ExitCode};

use sdp_examples::{
    Failed,
    content::{SERVICE, USER},
    playground::{Options, Playground, Runner},
    story,
};
use serde_json::{Value, json};

/// Who tries is an admin, so that every endpoint can be tried.
const SETTINGS: &str = "auth.admins = [\"ada\"]\n";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failed(reason)) => {
            let _ = writeln!(std::io::stderr(), "schemathesis could not be run: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<bool, Failed> {
    let Some((program, arguments)) = arguments.split_first() else {
        return Err(Failed("name its executable first, as `make schemathesis` does".into()));
    };
    let options = Options { server_settings: SETTINGS.into(), per_request: true, ..Options::new(Runner::Process) };
    let playground = Playground::start(options).await?;
    let tried = try_all(&playground, program, arguments).await;
    playground.shutdown().await?;
    tried
}

async fn try_all(playground: &Playground, program: &str, arguments: &[String]) -> Result<bool, Failed> {
    // So that there is something to look at: deployments with logs, a sandbox, routes.
    story::run(playground, &mut std::io::sink()).await?;
    let api = playground.sign_in().await?;
    let services = json!([{ "repo": SERVICE, "branch": "main" }]);
    api.post::<_, Value>("/api/templates", &json!({ "name": "checkout", "services": services })).await?;
    api.post::<_, Value>("/api/environments", &json!({ "name": "qa" })).await?;
    // For what would otherwise turn the agents away that all else needs.
    api.post::<_, Value>("/api/agents", &json!({ "name": "spare" })).await?;
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis.toml");
    // What it writes goes with the playground.
    let program = Path::new(program).canonicalize().unwrap_or_else(|_| program.into());
    let ended = tokio::process::Command::new(&program)
        .current_dir(playground.dir())
        .arg("--config-file")
        .arg(config)
        .args(["run", &format!("{}/api/openapi.json", playground.base())])
        .args(arguments)
        .env("SDP_TOKEN", api.token())
        .env("SDP_USER", USER)
        .status()
        .await;
    Ok(ended.map_err(|error| Failed(format!("{} cannot be started: {error}", program.display())))?.success())
}
