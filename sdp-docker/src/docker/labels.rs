//! What a container says about itself: everything that SDP knows of an instance.

use std::{collections::HashMap, path::PathBuf};

use sdp_core::{Artifact, DeployJob, DeploymentId, HostPort, Instance, InstanceKey, InstanceState, SandboxName};

pub(crate) const OWNER: &str = "sdp.owner";
const SANDBOX: &str = "sdp.sandbox";
const REPO: &str = "sdp.repo";
const DEPLOYMENT: &str = "sdp.deployment";
const BRANCH: &str = "sdp.branch";
const COMMIT: &str = "sdp.commit";
pub(crate) const PORT: &str = "sdp.port";
pub(crate) const RECIPE: &str = "sdp.recipe";
const CHECKOUT: &str = "sdp.checkout";
const ARTIFACT: &str = "sdp.artifact";
/// What tells whether another job would make the same container.
pub(crate) const PROGRAM: &str = "sdp.program";

/// The end of a parked container's name. Labels cannot change; names can.
pub(crate) const PARKED_SUFFIX: &str = "-previous";

/// The labels of a job's container.
pub(crate) fn of_job(owner: &str, job: &DeployJob, artifact: &Artifact) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (OWNER.into(), owner.to_owned()),
        (REPO.into(), job.key.repo.to_string()),
        (DEPLOYMENT.into(), job.deployment.to_string()),
        (BRANCH.into(), job.checkout.branch.to_string()),
        (COMMIT.into(), job.checkout.commit.to_string()),
        (PORT.into(), job.host_port.to_string()),
        (RECIPE.into(), format!("{:?}", job.repo.recipe).to_lowercase()),
        (CHECKOUT.into(), job.checkout.path.to_string_lossy().into_owned()),
    ]);
    if let Some(sandbox) = &job.key.sandbox {
        labels.insert(SANDBOX.into(), sandbox.to_string());
    }
    if let Some(path) = &artifact.path {
        labels.insert(ARTIFACT.into(), path.to_string_lossy().into_owned());
    }
    labels
}

/// The labels of a sandbox's network.
pub(crate) fn of_network(owner: &str, sandbox: &SandboxName) -> HashMap<String, String> {
    HashMap::from([(OWNER.into(), owner.to_owned()), (SANDBOX.into(), sandbox.to_string())])
}

/// The sandbox whose network has these labels.
pub(crate) fn network_sandbox(labels: Option<&HashMap<String, String>>) -> Option<&String> {
    labels.filter(|labels| labels.contains_key(OWNER))?.get(SANDBOX)
}

/// Whether these are labels of a sandbox's network that `owner` made.
pub(crate) fn is_network_of(labels: Option<&HashMap<String, String>>, owner: &str) -> bool {
    labels.is_some_and(|labels| labels.contains_key(SANDBOX) && labels.get(OWNER).is_some_and(|it| it == owner))
}

/// The deployment that labels name.
pub(crate) fn deployment(labels: &HashMap<String, String>) -> Option<DeploymentId> {
    labels.get(DEPLOYMENT)?.parse().ok()
}

/// The key that labels name; none when they are not ours.
pub(crate) fn key(labels: &HashMap<String, String>) -> Option<InstanceKey> {
    let repo = labels.get(REPO)?.parse().ok()?;
    let sandbox = match labels.get(SANDBOX) {
        Some(name) => Some(name.parse().ok()?),
        None => None,
    };
    Some(InstanceKey { sandbox, repo })
}

/// What was built for the instance with these labels.
pub(crate) fn artifact(labels: &HashMap<String, String>) -> Option<PathBuf> {
    labels.get(ARTIFACT).map(PathBuf::from)
}

/// The instance that a container's labels and name tell of; none when they are not whole.
pub(crate) fn instance(
    id: &str,
    name: &str,
    labels: &HashMap<String, String>,
    state: InstanceState,
) -> Option<Instance> {
    let key = key(labels)?;
    let plain = key.container_name();
    Some(Instance {
        id: id.to_owned(),
        // A sandbox may be called so that its plain name ends like a parked one.
        parked: name == format!("{plain}{PARKED_SUFFIX}"),
        name: name.to_owned(),
        deployment: deployment(labels)?,
        branch: labels.get(BRANCH)?.parse().ok()?,
        commit: labels.get(COMMIT)?.parse().ok()?,
        host_port: labels.get(PORT)?.parse::<HostPort>().ok()?,
        host: None,
        state,
        started_at: None,
        restarts: 0,
        key,
    })
}
