//! Building a checkout on the host, the same for every deployer.

mod cache;
mod recipe;
mod runner;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sdp_core::{Artifact, ComposerMode, DeployError, DeployJob, DeploymentId, EventKind, EventSink, RecipeKind, Stage};
use tokio_util::sync::CancellationToken;

pub(crate) use cache::prune;
pub(crate) use recipe::run_command;
pub(crate) use runner::base_env;
use runner::{Outcome, Step};

use crate::marked;

/// How long a tool may take to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// The folder of a checkout that belongs to SDP.
pub(crate) fn own_folder(checkout: &Path) -> PathBuf {
    checkout.join(".sdp")
}

/// Builds the job's checkout by its recipe.
pub(crate) async fn build(
    job: &DeployJob,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Artifact, DeployError> {
    if cancel.is_cancelled() {
        return Err(DeployError::Cancelled);
    }
    match job.repo.recipe {
        RecipeKind::Go | RecipeKind::Command => build_into_folder(job, sink, cancel).await,
        RecipeKind::Php => {
            composer(job, sink, cancel).await?;
            Ok(Artifact { path: None, reused: false })
        }
    }
}

/// Ends what a build of this deployment left running when its agent died, but for the process group
/// `keep`.
pub(crate) async fn end(deployment: DeploymentId, keep: Option<i32>) -> Result<(), DeployError> {
    let killed = tokio::task::spawn_blocking(move || marked::kill(deployment, keep)).await;
    killed.map_err(|error| DeployError::Io { action: "end a build".into(), source: error.into() })
}

/// Runs the build with an output folder of its own, which takes its final name only when all of it
/// is there.
async fn build_into_folder(
    job: &DeployJob,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Artifact, DeployError> {
    let Some(argv) = recipe::build_command(job) else { return Ok(Artifact { path: None, reused: false }) };
    let toolchain = match job.repo.recipe {
        RecipeKind::Go => version(&["go", "version"], job, cancel).await?,
        _ => String::new(),
    };
    let folder = cache::folder(job, &argv, &toolchain);
    if cache::is_filled(&folder) {
        note(sink, format!("this tree is built already: {}", job.checkout.tree)).await?;
        return Ok(Artifact { path: Some(folder), reused: true });
    }
    let staging = cache::Staging::new(&folder, &job.deployment.to_string())?;
    let argv = recipe::with_out(&argv, staging.path());
    let step = Step {
        argv: &argv,
        dir: &job.checkout.path,
        env: recipe::build_env(job, staging.path()),
        timeout: job.repo.build_timeout,
    };
    match runner::run(step, sink, cancel).await? {
        Outcome::Done => {}
        Outcome::Failed { outcome, last_lines } => {
            return Err(DeployError::Build { command: argv.join(" "), outcome, last_lines });
        }
    }
    if job.repo.recipe == RecipeKind::Go && !cache::is_filled(staging.path()) {
        let last_lines = vec!["it exited with 0 and made no program".to_owned()];
        return Err(DeployError::Build { command: argv.join(" "), outcome: "made nothing".into(), last_lines });
    }
    Ok(Artifact { path: Some(staging.finish()?), reused: false })
}

async fn composer(job: &DeployJob, sink: &dyn EventSink, cancel: &CancellationToken) -> Result<(), DeployError> {
    let mode = job.repo.composer;
    let own_build = job.repo.build.clone();
    if own_build.is_none() && (mode == ComposerMode::Off || !job.checkout.path.join("composer.json").is_file()) {
        return note(sink, "no composer.json: nothing to install").await;
    }
    let required = mode == ComposerMode::Required || own_build.is_some();
    let argv = own_build.unwrap_or_else(|| recipe::COMPOSER.map(str::to_owned).to_vec());
    let out = own_folder(&job.checkout.path);
    let step = Step {
        argv: &argv,
        dir: &job.checkout.path,
        env: recipe::build_env(job, &out),
        timeout: job.repo.build_timeout,
    };
    let failed = match runner::run(step, sink, cancel).await {
        Ok(Outcome::Done) => return Ok(()),
        Ok(Outcome::Failed { outcome, last_lines }) => {
            DeployError::Build { command: argv.join(" "), outcome, last_lines }
        }
        Err(error @ (DeployError::Cancelled | DeployError::Sink(_))) => return Err(error),
        Err(error) => error,
    };
    if required {
        return Err(failed);
    }
    let text = sdp_core::problem::chain(&failed);
    note(sink, format!("warning: {text}; going on with what the checkout has (composer = \"best-effort\")")).await
}

/// What a tool says its version is; also the check that it is there.
async fn version(argv: &[&str], job: &DeployJob, cancel: &CancellationToken) -> Result<String, DeployError> {
    let argv: Vec<_> = argv.iter().map(|arg| (*arg).to_owned()).collect();
    let out = own_folder(&job.checkout.path);
    let step =
        Step { argv: &argv, dir: &job.checkout.path, env: recipe::build_env(job, &out), timeout: VERSION_TIMEOUT };
    runner::capture(step, cancel).await
}

async fn note(sink: &dyn EventSink, line: impl Into<String>) -> Result<(), DeployError> {
    sink.accept(EventKind::note(Stage::Build, line)).await?;
    Ok(())
}
