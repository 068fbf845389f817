//! Installing what a PHP checkout depends on, into the checkout itself.
//!
//! `vendor/` is not shared between checkouts: what Composer writes there depends on the checkout as
//! well as on `composer.lock` (the root package's own class map and version, what its scripts and
//! plugins do), and it rewrites files in place. Its download cache, which the machine has one of,
//! is shared.

use sdp_core::{ComposerMode, DeployError, DeployJob, EventSink};
use tokio_util::sync::CancellationToken;

use super::{
    note, own_folder, recipe,
    runner::{self, Outcome, Step},
};

pub(super) async fn install(
    job: &DeployJob,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<(), DeployError> {
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
