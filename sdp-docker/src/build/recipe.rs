//! What each recipe runs: programs and arguments, never a shell.

use std::{collections::BTreeMap, path::Path};

use sdp_core::{DeployJob, RecipeKind};

use super::runner::base_env;
use crate::marked::MARK;

/// Stands, in a repo's own `build` and `run` commands, for the folder that the build writes to.
const OUT: &str = "$SDP_OUT";

pub(super) const COMPOSER: [&str; 4] = ["composer", "install", "--no-interaction", "--no-progress"];

/// The command that builds the checkout, `$SDP_OUT` not yet filled in; none when there is nothing
/// to build.
pub(super) fn build_command(job: &DeployJob) -> Option<Vec<String>> {
    if let Some(own) = &job.repo.build {
        return Some(own.clone());
    }
    match job.repo.recipe {
        RecipeKind::Go => {
            let package = job.repo.package.as_deref().unwrap_or(".");
            // A leading `-` would be read as an option, and a bare name as a standard package.
            let package = if package.starts_with('.') { package.to_owned() } else { format!("./{package}") };
            let out = format!("{OUT}/{}", job.repo.name);
            Some(["go", "build", "-trimpath", "-o", &out, &package].map(str::to_owned).to_vec())
        }
        RecipeKind::Php | RecipeKind::Command => None,
    }
}

/// The command that runs what was built, where `out` is the build's folder as the program sees it;
/// none to run the image's own.
pub(crate) fn run_command(job: &DeployJob, out: &Path) -> Option<Vec<String>> {
    match (&job.repo.run, job.repo.recipe) {
        (Some(own), _) => Some(with_out(own, out)),
        (None, RecipeKind::Go) => Some(vec![out.join(job.repo.name.as_str()).to_string_lossy().into_owned()]),
        (None, RecipeKind::Php | RecipeKind::Command) => None,
    }
}

/// Fills in the build's folder.
pub(super) fn with_out(argv: &[String], out: &Path) -> Vec<String> {
    argv.iter().map(|arg| arg.replace(OUT, &out.to_string_lossy())).collect()
}

/// The environment of a build: the agent's own harmless variables, the job's, and what describes
/// the job. Not its sandbox: others use what is built.
pub(super) fn build_env(job: &DeployJob, out: &Path) -> BTreeMap<String, String> {
    let mut env = base_env();
    if job.repo.recipe == RecipeKind::Go {
        // A static program runs in an image without a C library; the toolchain is the machine's.
        env.insert("CGO_ENABLED".into(), "0".into());
        env.insert("GOTOOLCHAIN".into(), "local".into());
    }
    env.extend(job.env.iter().map(|(name, value)| (name.to_string(), value.clone())));
    env.insert("SDP_OUT".into(), out.to_string_lossy().into_owned());
    env.insert(MARK.into(), job.deployment.to_string());
    env.insert("SDP_REPO".into(), job.repo.name.to_string());
    env.insert("SDP_BRANCH".into(), job.checkout.branch.to_string());
    env.insert("SDP_COMMIT".into(), job.checkout.commit.to_string());
    env
}
