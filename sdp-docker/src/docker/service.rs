//! The Swarm service of a job, as the engine is asked for it.

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum, EndpointSpec, Limit, Mount,
    MountType, NetworkAttachmentConfig, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated, TaskSpec,
    TaskSpecContainerSpec, TaskSpecPlacement, TaskSpecResources, TaskSpecRestartPolicy,
    TaskSpecRestartPolicyConditionEnum,
};
use sdp_core::{DeployJob, HostPort};

use super::program::{Bind, Program};

/// How much of a name a service may have, with its deployment after it.
const NAME: usize = 48;

/// The pause before a program that ended is started again, in nanoseconds.
const RESTART_DELAY: i64 = 1_000_000_000;

/// The name of a job's service. A service cannot be renamed: the one before keeps its own.
pub(crate) fn name(job: &DeployJob) -> String {
    let mut name = job.key.container_name();
    name.truncate(NAME);
    let deployment = job.deployment.to_string();
    // The end of an id is its random part.
    format!("{name}-{}", deployment.get(deployment.len().saturating_sub(12)..).unwrap_or(&deployment))
}

/// The service of a job. `image` is an image's id: for a name, each node would first ask a registry.
pub(crate) fn spec(
    job: &DeployJob,
    program: Program,
    image: &str,
    constraints: Vec<String>,
    stop_grace: i64,
) -> ServiceSpec {
    let Program { image: _, args, env, labels, dir, mounts, port, reaps, nano_cpus, memory_bytes } = program;
    let container = TaskSpecContainerSpec {
        image: Some(image.to_owned()),
        labels: Some(labels.clone()),
        args,
        env: Some(env),
        dir: Some(dir),
        mounts: Some(mounts.into_iter().map(mount).collect()),
        stop_grace_period: Some(stop_grace),
        init: Some(!reaps),
        ..Default::default()
    };
    let host_network = || vec![NetworkAttachmentConfig { target: Some("host".into()), ..Default::default() }];
    ServiceSpec {
        name: Some(name(job)),
        labels: Some(labels),
        task_template: Some(TaskSpec {
            container_spec: Some(container),
            resources: Some(TaskSpecResources {
                limits: Some(Limit { nano_cpus, memory_bytes, pids: None }),
                ..Default::default()
            }),
            restart_policy: Some(TaskSpecRestartPolicy {
                condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
                delay: Some(RESTART_DELAY),
                ..Default::default()
            }),
            placement: Some(TaskSpecPlacement { constraints: Some(constraints), ..Default::default() }),
            networks: port.is_none().then(host_network),
            ..Default::default()
        }),
        mode: Some(ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated { replicas: Some(1) }),
            ..Default::default()
        }),
        endpoint_spec: port.map(|port| EndpointSpec { mode: None, ports: Some(vec![publish(job.host_port, port)]) }),
        ..Default::default()
    }
}

/// On the node that runs it, past the swarm's own load balancer.
fn publish(host_port: HostPort, port: u16) -> EndpointPortConfig {
    EndpointPortConfig {
        name: None,
        protocol: Some(EndpointPortConfigProtocolEnum::TCP),
        target_port: Some(port.into()),
        published_port: Some(host_port.get().into()),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
    }
}

fn mount(Bind { source, target, read_only }: Bind) -> Mount {
    Mount {
        source: Some(source),
        target: Some(target),
        read_only: Some(read_only),
        typ: Some(MountType::BIND),
        ..Default::default()
    }
}
