//! The container of a job, as the engine is asked for it.

use std::net::IpAddr;

use bollard::models::{ContainerCreateBody, EndpointSettings, HostConfig, NetworkingConfig, PortBinding};
use sdp_core::{Artifact, DeployError, DeployJob};

use super::{
    labels, networks,
    program::{self, Bind, Program, program},
};

/// The body of the engine's `create` call. The restart policy comes when the container has proved
/// healthy: one that crashes at once must be seen dead, not restarting.
pub(crate) fn body(
    owner: &str,
    publish: IpAddr,
    job: &DeployJob,
    artifact: &Artifact,
    image_id: &str,
) -> Result<ContainerCreateBody, DeployError> {
    let Program { image, args, env, mut labels, dir, mounts, port, reaps, nano_cpus, memory_bytes } =
        program(owner, publish, job, artifact)?;
    labels.insert(labels::PROGRAM.into(), program::fingerprint(publish, job, artifact, image_id));
    let network = networks::sandbox(&job.key, &job.repo).map(networks::name);
    let endpoint = EndpointSettings { aliases: Some(networks::aliases(&job.repo)), ..Default::default() };
    let tcp = port.map(|port| format!("{port}/tcp"));
    let binding = PortBinding { host_ip: Some(publish.to_string()), host_port: Some(job.host_port.to_string()) };
    Ok(ContainerCreateBody {
        image: Some(image),
        cmd: args,
        env: Some(env),
        labels: Some(labels),
        working_dir: Some(dir),
        exposed_ports: tcp.clone().map(|tcp| vec![tcp]),
        host_config: Some(HostConfig {
            binds: Some(mounts.iter().map(bind).collect()),
            network_mode: Some(match (&network, &tcp) {
                (Some(network), _) => network.clone(),
                (None, Some(_)) => "bridge".into(),
                (None, None) => "host".into(),
            }),
            port_bindings: tcp.map(|tcp| [(tcp, Some(vec![binding]))].into()),
            nano_cpus,
            memory: memory_bytes,
            init: Some(!reaps),
            ..Default::default()
        }),
        networking_config: network
            .map(|network| NetworkingConfig { endpoints_config: Some([(network, endpoint)].into()) }),
        ..Default::default()
    })
}

fn bind(Bind { source, target, read_only }: &Bind) -> String {
    format!("{source}:{target}{}", if *read_only { ":ro" } else { "" })
}
