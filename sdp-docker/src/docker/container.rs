//! The container of a job, as the engine is asked for it.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use bollard::models::{ContainerCreateBody, EndpointSettings, HostConfig, NetworkingConfig, PortBinding};
use sdp_core::{Artifact, DeployError, DeployJob, NetworkMode, RecipeKind};

use super::{labels, networks};
use crate::{apache, build};

/// Where a checkout is mounted in a container that is not Apache's.
const SOURCE: &str = "/src";

/// The job's image.
pub(crate) fn image(job: &DeployJob) -> Result<String, DeployError> {
    let image = job.repo.image.clone().or_else(|| job.repo.recipe.default_image().map(str::to_owned));
    image.ok_or_else(|| DeployError::Config {
        repo: job.repo.name.to_string(),
        reason: "recipe `command` has no default image; set `image`".into(),
    })
}

/// The body of the engine's `create` call. The restart policy comes when the container has proved
/// healthy: one that crashes at once must be seen dead, not restarting.
pub(crate) fn body(
    owner: &str,
    publish: IpAddr,
    job: &DeployJob,
    artifact: &Artifact,
) -> Result<ContainerCreateBody, DeployError> {
    let php = job.repo.recipe == RecipeKind::Php;
    let mount = if php { apache::checkout_mount(job) } else { SOURCE.to_owned() };
    let checkout = job.checkout.path.display();
    let mut binds = vec![format!("{checkout}:{mount}")];
    if php {
        let failed = |source| DeployError::Io { action: "write Apache's configuration".into(), source };
        let files = apache::write(job, publish).map_err(failed)?;
        binds.extend(files.iter().map(|(path, target)| format!("{}:{target}:ro", path.display())));
    }
    let bridge = job.repo.network == NetworkMode::Bridge;
    let (host, port) = match job.repo.network {
        NetworkMode::Bridge => (IpAddr::from([0, 0, 0, 0]), job.repo.container_port),
        NetworkMode::Host => (publish, job.host_port.get()),
    };
    let out = out_in_container(job, artifact, &mount);
    let own = [("HOST", host.to_string()), ("PORT", port.to_string()), ("SDP_OUT", out.clone())];
    let mut env: BTreeMap<_, _> = job.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    env.extend(own);

    let tcp = format!("{port}/tcp");
    let binding = PortBinding { host_ip: Some(publish.to_string()), host_port: Some(job.host_port.to_string()) };
    let network = networks::sandbox(&job.key, &job.repo).map(networks::name);
    let endpoint = EndpointSettings { aliases: Some(networks::aliases(&job.repo)), ..Default::default() };
    let limits = &job.repo.limits;
    Ok(ContainerCreateBody {
        image: Some(image(job)?),
        cmd: build::run_command(job, Path::new(&out)),
        env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels::of_job(owner, job, artifact)),
        working_dir: Some(mount),
        exposed_ports: bridge.then(|| vec![tcp.clone()]),
        host_config: Some(HostConfig {
            binds: Some(binds),
            port_bindings: bridge.then(|| [(tcp, Some(vec![binding]))].into()),
            network_mode: Some(match &network {
                Some(network) => network.clone(),
                None => if bridge { "bridge" } else { "host" }.into(),
            }),
            nano_cpus: limits.cpus.map(|cpus| (cpus * 1e9) as i64),
            memory: limits.memory_mib.map(|mib| (mib << 20) as i64),
            // The program is seldom made to reap what it leaves behind.
            init: Some(!php),
            ..Default::default()
        }),
        networking_config: network
            .map(|network| NetworkingConfig { endpoints_config: Some([(network, endpoint)].into()) }),
        ..Default::default()
    })
}

/// The build's folder as the container sees it.
fn out_in_container(job: &DeployJob, artifact: &Artifact, mount: &str) -> String {
    let inner = artifact.path.as_deref().and_then(|path| path.strip_prefix(&job.checkout.path).ok());
    match inner {
        Some(inner) => format!("{mount}/{}", inner.display()),
        None => mount.to_owned(),
    }
}
