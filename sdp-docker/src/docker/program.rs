//! What a job is in a container, whoever starts the container.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
};

use sdp_core::{Artifact, DeployError, DeployJob, NetworkMode, RecipeKind};
use sha2::{Digest, Sha256};

use super::labels;
use crate::{apache, build};

/// Where a checkout is mounted in a container that is not Apache's.
const SOURCE: &str = "/src";
/// Where what was built of it is mounted, which other containers share.
const OUT: &str = "/sdp/out";

/// A program in a container.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) image: String,
    /// In the place of the image's own command, if there is one.
    pub(crate) args: Option<Vec<String>>,
    pub(crate) env: Vec<String>,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) dir: String,
    pub(crate) mounts: Vec<Bind>,
    /// The container's port to publish; none in the host's network.
    pub(crate) port: Option<u16>,
    /// Whether it is made to reap what it leaves behind.
    pub(crate) reaps: bool,
    pub(crate) nano_cpus: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
}

/// A file or folder of the host in a container.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// The same for jobs that make the same container of an image with this id. It has all that the container is
/// made of, without making anything.
pub(crate) fn fingerprint(publish: IpAddr, job: &DeployJob, artifact: &Artifact, image_id: &str) -> String {
    let repo = &job.repo;
    let apache = (repo.recipe == RecipeKind::Php).then(|| apache::files(job, publish));
    let out = artifact.path.as_deref().unwrap_or(&job.checkout.path);
    let what = (
        (&job.key, &job.checkout.path, &job.checkout.branch, &job.checkout.commit, job.host_port, image_id),
        (publish, repo.network, repo.container_port, &repo.service, &repo.limits),
        (build::run_command(job, out), &job.env, &artifact.path, apache),
    );
    // Nothing in it can fail to become JSON.
    let text = serde_json::to_vec(&what).unwrap_or_default();
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The job's image.
pub(crate) fn image(job: &DeployJob) -> Result<String, DeployError> {
    let image = job.repo.image.clone().or_else(|| job.repo.recipe.default_image().map(str::to_owned));
    image.ok_or_else(|| DeployError::Config {
        repo: job.repo.name.to_string(),
        reason: "recipe `command` has no default image; set `image`".into(),
    })
}

/// The job's program.
pub(crate) fn program(
    owner: &str,
    publish: IpAddr,
    job: &DeployJob,
    artifact: &Artifact,
) -> Result<Program, DeployError> {
    let php = job.repo.recipe == RecipeKind::Php;
    let dir = if php { apache::checkout_mount(job) } else { SOURCE.to_owned() };
    let checkout = job.checkout.path.display().to_string();
    let mut mounts = vec![Bind { source: checkout, target: dir.clone(), read_only: false }];
    if php {
        let failed = |source| DeployError::Io { action: "write Apache's configuration".into(), source };
        let files = apache::write(job, publish).map_err(failed)?;
        mounts.extend(files.iter().map(|(path, target)| Bind {
            source: path.display().to_string(),
            target: (*target).to_owned(),
            read_only: true,
        }));
    }
    let (host, port) = match job.repo.network {
        NetworkMode::Bridge => (IpAddr::from([0, 0, 0, 0]), job.repo.container_port),
        NetworkMode::Host => (publish, job.host_port.get()),
    };
    if let Some(path) = &artifact.path {
        mounts.push(Bind { source: path.display().to_string(), target: OUT.into(), read_only: true });
    }
    let out = if artifact.path.is_some() { OUT.to_owned() } else { dir.clone() };
    let own = [("HOST", host.to_string()), ("PORT", port.to_string()), ("SDP_OUT", out.clone())];
    let mut env: BTreeMap<_, _> = job.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    env.extend(own);
    let limits = &job.repo.limits;
    Ok(Program {
        image: image(job)?,
        args: build::run_command(job, Path::new(&out)),
        env: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        labels: labels::of_job(owner, job, artifact),
        dir,
        mounts,
        port: (job.repo.network == NetworkMode::Bridge).then_some(port),
        reaps: php,
        nano_cpus: limits.cpus.map(|cpus| (cpus * 1e9) as i64),
        memory_bytes: limits.memory_mib.map(|mib| (mib << 20) as i64),
    })
}
