//! The adapter: [`Deployer`] on the Docker API.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use async_trait::async_trait;
use bollard::{
    Docker,
    exec::{CreateExecOptions, StartExecResults},
    models::{ContainerState, ContainerStateStatusEnum, ContainerSummary, ContainerUpdateBody},
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
        ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
        RestartContainerOptionsBuilder, StartContainerOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;
use sdp_core::{
    Artifact, DeployError, DeployJob, Deployer, DeploymentId, EventKind, EventSink, HealthProbe, HostPort, Instance,
    InstanceKey, InstanceState, InstanceStats, LogLines, LogOptions, Probe, Replacement, Stage,
};
use tokio_util::sync::CancellationToken;

use crate::{
    build,
    config::DockerConfig,
    docker::{container, engine, labels, output},
    probe,
};

/// [`Deployer`] in containers of a Docker engine.
///
/// Everything it knows of an instance is in the container's labels. A replaced container is
/// stopped and renamed to `<name>-previous` until the new one has proved healthy; when this
/// process dies in between, [`list`](Deployer::list) shows it as parked. Clones share one
/// connection.
#[derive(Debug, Clone)]
pub struct DockerDeployer {
    docker: Docker,
    client: reqwest::Client,
    config: DockerConfig,
}

impl DockerDeployer {
    /// Connects to the engine.
    ///
    /// # Errors
    /// [`DeployError::Engine`] when it does not answer.
    pub async fn connect(config: DockerConfig) -> Result<Self, DeployError> {
        let docker = engine::connect(&config.socket).await?;
        let client = probe::client()
            .map_err(|source| DeployError::Engine { action: "be probed over HTTP".into(), source: source.into() })?;
        Ok(Self { docker, client, config })
    }

    /// Which of these images are not on the machine.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    pub async fn missing_images<'a>(&self, images: &[&'a str]) -> Result<Vec<&'a str>, DeployError> {
        let mut missing = Vec::new();
        for image in images {
            if !self.has_image(image).await? {
                missing.push(*image);
            }
        }
        Ok(missing)
    }

    /// Sends a signal (`SIGUSR1`) to a container of any name, for gateways that SDP did not start.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    pub async fn signal_container(&self, name: &str, signal: &str) -> Result<(), DeployError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.docker.kill_container(name, Some(options)).await.map_err(engine::failed("signal a container"))
    }

    async fn has_image(&self, image: &str) -> Result<bool, DeployError> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if engine::is_not_found(&error) => Ok(false),
            Err(error) => Err(engine::failed("inspect an image")(error)),
        }
    }

    /// Every container on the machine, ours or not.
    async fn containers(&self) -> Result<Vec<Found>, DeployError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let all = self.docker.list_containers(Some(options)).await.map_err(engine::failed("list containers"))?;
        Ok(all.into_iter().filter_map(Found::new).collect())
    }

    /// Our containers of `key`: the current one and the parked one.
    async fn of_key(&self, key: &InstanceKey) -> Result<(Option<Found>, Option<Found>), DeployError> {
        let mut ours = self.containers().await?;
        ours.retain(|found| found.is_of(&self.config.owner) && labels::key(&found.labels).as_ref() == Some(key));
        let (parked, current): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|found| found.instance().is_some_and(|instance| instance.parked));
        Ok((current.into_iter().next(), parked.into_iter().next()))
    }

    async fn current(&self, key: &InstanceKey) -> Result<Found, DeployError> {
        self.of_key(key).await?.0.ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    /// The instance with what only an inspection tells: exit code, start time, restarts.
    async fn inspected(&self, found: &Found) -> Result<Option<Instance>, DeployError> {
        let inspected = match self.docker.inspect_container(&found.id, None::<InspectContainerOptions>).await {
            Err(error) if engine::is_not_found(&error) => return Ok(None),
            inspected => inspected.map_err(engine::failed("inspect a container"))?,
        };
        let Some(mut instance) = found.instance() else { return Ok(None) };
        let state = inspected.state.unwrap_or_default();
        instance.started_at = state.started_at.as_deref().and_then(|at| at.parse().ok());
        instance.restarts = inspected.restart_count.and_then(|count| count.try_into().ok()).unwrap_or(0);
        instance.state = state_of(&state);
        Ok(Some(instance))
    }

    /// Refuses what would collide, before anything is touched. Answers the current and the parked
    /// container of the job's key.
    async fn admit(&self, job: &DeployJob) -> Result<(Option<Found>, Option<Found>), DeployError> {
        let image = container::image(job)?;
        if !self.has_image(&image).await? {
            return Err(DeployError::ImageMissing { image });
        }
        let name = job.key.container_name();
        let mut own_port_is_held = false;
        let (mut current, mut parked) = (None, None);
        for found in self.containers().await? {
            let ours = found.is_of(&self.config.owner);
            if ours && labels::key(&found.labels).as_ref() == Some(&job.key) {
                own_port_is_held |= found.running && found.holds(job.host_port);
                let slot = if found.name == name { &mut current } else { &mut parked };
                *slot = Some(found);
            } else if found.name == name || found.name == format!("{name}{}", labels::PARKED_SUFFIX) {
                return Err(DeployError::NameTaken { name: found.name.clone(), holder: found.describe() });
            } else if found.holds(job.host_port) && (found.running || ours) {
                return Err(DeployError::PortTaken { port: job.host_port, holder: found.describe() });
            }
        }
        let address = SocketAddr::new(self.config.publish, job.host_port.get());
        if !own_port_is_held && TcpListener::bind(address).is_err() {
            return Err(self.taken(job.host_port));
        }
        Ok((current, parked))
    }

    /// That a port is held by something that is no container.
    fn taken(&self, port: HostPort) -> DeployError {
        let address = SocketAddr::new(self.config.publish, port.get());
        DeployError::PortTaken { port, holder: format!("another program on {address}") }
    }

    /// Stops the current container and gives its name free.
    async fn park(&self, found: &Found) -> Result<(), DeployError> {
        self.stop_container(&found.id).await?;
        self.rename(&found.id, &format!("{}{}", found.name, labels::PARKED_SUFFIX)).await
    }

    /// Gives a parked container its name back, and starts it.
    async fn unpark(&self, id: &str, name: &str, start: bool) -> Result<(), DeployError> {
        let found = self.containers().await?.into_iter().find(|found| found.id == id);
        if found.is_some_and(|found| found.name != name) {
            self.rename(id, name).await?;
        }
        if !start {
            return Ok(());
        }
        let started = self.docker.start_container(id, None::<StartContainerOptions>).await;
        engine::unless_gone(started).map_err(|source| DeployError::Start {
            name: name.to_owned(),
            last_lines: Vec::new(),
            source: source.into(),
        })
    }

    async fn rename(&self, id: &str, name: &str) -> Result<(), DeployError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        self.docker.rename_container(id, options).await.map_err(engine::failed("rename a container"))
    }

    async fn stop_container(&self, id: &str) -> Result<(), DeployError> {
        let seconds = i32::try_from(self.config.stop_timeout.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = self.docker.stop_container(id, Some(options)).await;
        engine::unless_gone(stopped).map_err(engine::failed("stop a container"))
    }

    async fn remove_container(&self, id: &str) -> Result<(), DeployError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.docker.remove_container(id, Some(options)).await;
        engine::unless_gone(removed).map_err(engine::failed("remove a container"))
    }

    /// Creates and starts the job's container; removes it again when it cannot be started.
    async fn create(&self, job: &DeployJob, artifact: &Artifact) -> Result<Instance, DeployError> {
        let name = job.key.container_name();
        let body = container::body(&self.config.owner, self.config.publish, job, artifact)?;
        let of_job = body.labels.clone().unwrap_or_default();
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let failed = |source: bollard::errors::Error| DeployError::Start {
            name: name.clone(),
            last_lines: Vec::new(),
            source: source.into(),
        };
        let created = self.docker.create_container(Some(options), body).await.map_err(failed)?;
        if let Err(error) = self.docker.start_container(&created.id, None::<StartContainerOptions>).await {
            self.remove_container(&created.id).await?;
            // Somebody was quicker since the look at the port.
            return Err(if engine::is_port_taken(&error) { self.taken(job.host_port) } else { failed(error) });
        }
        let found = Found { id: created.id, name: name.clone(), labels: of_job, ports: Vec::new(), running: true };
        let inspected = self.inspected(&found).await?;
        inspected.ok_or_else(|| DeployError::NotFound { key: job.key.clone() })
    }

    /// Runs a command in the container: its exit code decides.
    async fn exec(&self, id: &str, command: &[String]) -> Result<Probe, DeployError> {
        let failed = engine::failed("run a command in a container");
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.docker.create_exec(id, options).await.map_err(&failed)?;
        if let StartExecResults::Attached { mut output, .. } =
            self.docker.start_exec(&exec.id, None).await.map_err(&failed)?
        {
            while let Some(chunk) = output.next().await {
                chunk.map_err(&failed)?;
            }
        }
        let exit_code = self.docker.inspect_exec(&exec.id).await.map_err(&failed)?.exit_code;
        Ok(match exit_code {
            Some(0) => Probe::Healthy,
            code => Probe::NotYet(format!("`{}` exited with {}", command.join(" "), code.unwrap_or(-1))),
        })
    }

    async fn last_lines(&self, id: &str) -> Vec<String> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("10").build();
        let lines = output::lines(self.docker.logs(id, Some(options)));
        lines.filter_map(async |line| line.ok().map(|line| line.line)).collect().await
    }
}

/// A container as the engine's list shows it.
#[derive(Debug, Clone)]
struct Found {
    id: String,
    name: String,
    labels: HashMap<String, String>,
    ports: Vec<u16>,
    running: bool,
}

impl Found {
    fn new(summary: ContainerSummary) -> Option<Self> {
        let name = summary.names?.first()?.trim_start_matches('/').to_owned();
        let ports = summary.ports.unwrap_or_default().into_iter().filter_map(|port| port.public_port).collect();
        let running = summary.state.is_some_and(|state| matches!(state.to_string().as_str(), "running" | "restarting"));
        Some(Self { id: summary.id?, name, labels: summary.labels.unwrap_or_default(), ports, running })
    }

    fn is_of(&self, owner: &str) -> bool {
        self.labels.get(labels::OWNER).is_some_and(|label| label == owner)
    }

    /// Whether it publishes the port, or is ours and listens on it in the host's network.
    fn holds(&self, port: HostPort) -> bool {
        self.ports.contains(&port.get())
            || self.labels.get(labels::PORT).is_some_and(|label| *label == port.to_string())
    }

    fn describe(&self) -> String {
        match labels::key(&self.labels) {
            Some(InstanceKey { sandbox: Some(sandbox), repo }) => {
                format!("sandbox {sandbox}, repo {repo} (container {})", self.name)
            }
            Some(InstanceKey { sandbox: None, repo }) => {
                format!("the quick deploy of {repo} (container {})", self.name)
            }
            None => format!("container {}, which is not SDP's", self.name),
        }
    }

    fn instance(&self) -> Option<Instance> {
        let state = if self.running { InstanceState::Running } else { InstanceState::Exited { exit_code: 0 } };
        labels::instance(&self.id, &self.name, &self.labels, state)
    }
}

fn state_of(state: &ContainerState) -> InstanceState {
    let exit_code = state.exit_code.unwrap_or(0);
    match state.status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => InstanceState::Running,
        Some(ContainerStateStatusEnum::RESTARTING) => InstanceState::Restarting { exit_code },
        Some(ContainerStateStatusEnum::CREATED) => InstanceState::Created,
        _ => InstanceState::Exited { exit_code },
    }
}

#[async_trait]
impl Deployer for DockerDeployer {
    fn kind(&self) -> &'static str {
        "docker"
    }

    async fn build(
        &self,
        job: &DeployJob,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, DeployError> {
        build::build(job, sink, cancel).await
    }

    async fn end_build(&self, deployment: DeploymentId) -> Result<(), DeployError> {
        build::end(deployment, None).await
    }

    async fn start(
        &self,
        job: &DeployJob,
        artifact: &Artifact,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Replacement, DeployError> {
        let (current, parked) = self.admit(job).await?;
        if cancel.is_cancelled() {
            return Err(DeployError::Cancelled);
        }
        let name = job.key.container_name();
        // A parked one beside a current one is what a crash after the start left.
        let (previous, leftover) = match (current, parked) {
            (Some(current), leftover) => (Some(current), leftover),
            (None, parked) => (parked, None),
        };
        if let Some(leftover) = leftover {
            self.remove_container(&leftover.id).await?;
        }
        let mut replaced = None;
        if let Some(found) = &previous {
            replaced = self.inspected(found).await?;
            sink.accept(EventKind::note(Stage::Start, format!("stopping {name} ({})", short(&found.id)))).await?;
            if found.name == name
                && let Err(error) = self.park(found).await
            {
                self.unpark(&found.id, &name, found.running).await?;
                return Err(error);
            }
        }
        let created =
            if cancel.is_cancelled() { Err(DeployError::Cancelled) } else { self.create(job, artifact).await };
        let created = match created {
            // The last look: from here on a cancel goes through `revert`.
            Ok(current) if cancel.is_cancelled() => {
                self.remove_container(&current.id).await?;
                Err(DeployError::Cancelled)
            }
            created => created,
        };
        let current = match created {
            Ok(current) => current,
            Err(error) => {
                if let Some(found) = &previous {
                    self.unpark(&found.id, &name, found.running || found.name != name).await?;
                }
                return Err(error);
            }
        };
        let (id, port) = (short(&current.id), current.host_port);
        sink.accept(EventKind::note(Stage::Start, format!("started {name} ({id}) on port {port}"))).await?;
        let previous = replaced.map(|instance| Instance { parked: true, ..instance });
        Ok(Replacement { current, previous })
    }

    async fn probe(&self, instance: &Instance, probe: &HealthProbe) -> Result<Probe, DeployError> {
        let found = self.containers().await?.into_iter().find(|found| found.id == instance.id);
        let not_found = || DeployError::NotFound { key: instance.key.clone() };
        let now = self.inspected(&found.ok_or_else(not_found)?).await?.ok_or_else(not_found)?;
        match now.state {
            InstanceState::Running => {}
            InstanceState::Created => return Ok(Probe::NotYet("its program has not been started".into())),
            InstanceState::Exited { exit_code } | InstanceState::Restarting { exit_code } => {
                return Ok(Probe::Dead { exit_code, last_lines: self.last_lines(&instance.id).await });
            }
        }
        let address = SocketAddr::new(self.config.publish, instance.host_port.get());
        match probe {
            HealthProbe::Http(path) => Ok(probe::http(&self.client, address, path).await),
            HealthProbe::Tcp => Ok(probe::tcp(address).await),
            HealthProbe::Command(command) => self.exec(&instance.id, command).await,
        }
    }

    async fn settle(&self, replacement: &Replacement) -> Result<(), DeployError> {
        let current = &replacement.current;
        if let Some(previous) = &replacement.previous {
            self.remove_container(&previous.id).await?;
        }
        let body = ContainerUpdateBody { restart_policy: Some(container::keep_running()), ..Default::default() };
        let updated = self.docker.update_container(&current.id, body).await;
        engine::unless_gone(updated).map_err(engine::failed("set a restart policy"))?;
        let found = self.containers().await?.into_iter().find(|found| found.id == current.id);
        let Some(labels) = found.map(|found| found.labels) else { return Ok(()) };
        if let (Some(checkout), Some(artifact)) = (labels.get(labels::CHECKOUT), labels.get(labels::ARTIFACT)) {
            build::prune(Path::new(checkout), Path::new(artifact))
                .map_err(|source| DeployError::Io { action: "remove old builds".into(), source })?;
        }
        Ok(())
    }

    async fn revert(&self, replacement: &Replacement) -> Result<bool, DeployError> {
        self.remove_container(&replacement.current.id).await?;
        let Some(previous) = &replacement.previous else { return Ok(false) };
        let ran = matches!(previous.state, InstanceState::Running | InstanceState::Restarting { .. });
        // One that was found parked had been stopped by us.
        let start = ran || previous.name != previous.key.container_name();
        self.unpark(&previous.id, &previous.key.container_name(), start).await?;
        Ok(true)
    }

    async fn stop(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        self.stop_container(&found.id).await
    }

    async fn restart(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        let seconds = i32::try_from(self.config.stop_timeout.as_secs()).unwrap_or(i32::MAX);
        let options = RestartContainerOptionsBuilder::new().t(seconds).build();
        let restarted = self.docker.restart_container(&found.id, Some(options)).await;
        restarted.map_err(|source| DeployError::Start {
            name: found.name,
            last_lines: Vec::new(),
            source: source.into(),
        })
    }

    async fn reload(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        if found.running && found.labels.get(labels::RECIPE).is_some_and(|recipe| recipe == "php") {
            self.signal_container(&found.id, "SIGUSR1").await?;
        }
        Ok(())
    }

    async fn remove(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let (current, parked) = self.of_key(key).await?;
        for found in current.into_iter().chain(parked) {
            self.remove_container(&found.id).await?;
        }
        Ok(())
    }

    async fn inspect(&self, key: &InstanceKey) -> Result<Instance, DeployError> {
        let found = self.current(key).await?;
        self.inspected(&found).await?.ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    async fn list(&self) -> Result<Vec<Instance>, DeployError> {
        let mut instances = Vec::new();
        for found in self.containers().await?.iter().filter(|found| found.is_of(&self.config.owner)) {
            instances.extend(self.inspected(found).await?);
        }
        instances.sort_by(|a, b| (&a.key, a.parked).cmp(&(&b.key, b.parked)));
        Ok(instances)
    }

    async fn logs(&self, key: &InstanceKey, options: LogOptions) -> Result<LogLines, DeployError> {
        let found = self.current(key).await?;
        let tail = options.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(options.follow).tail(&tail).build();
        let docker = self.docker.clone();
        Ok(output::lines(docker.logs(&found.id, Some(options))).boxed())
    }

    async fn stats(&self, key: &InstanceKey) -> Result<InstanceStats, DeployError> {
        let found = self.current(key).await?;
        let options = StatsOptionsBuilder::new().stream(false).one_shot(false).build();
        let mut samples = Box::pin(self.docker.stats(&found.id, Some(options)));
        let not_found = || DeployError::NotFound { key: key.clone() };
        let sample = samples.next().await.ok_or_else(not_found)?.map_err(engine::failed("tell statistics"))?;
        let cpu = |stats: Option<&bollard::models::ContainerCpuStats>| {
            let used = stats.and_then(|stats| stats.cpu_usage.as_ref()?.total_usage).unwrap_or(0);
            (used as f64, stats.and_then(|stats| stats.system_cpu_usage).unwrap_or(0) as f64)
        };
        let (used, system) = cpu(sample.cpu_stats.as_ref());
        let (used_before, system_before) = cpu(sample.precpu_stats.as_ref());
        let online = sample.cpu_stats.as_ref().and_then(|stats| stats.online_cpus).unwrap_or(1);
        let passed = system - system_before;
        let cpus = if passed > 0.0 { (used - used_before) / passed * f64::from(online) } else { 0.0 };
        let memory = sample.memory_stats.unwrap_or_default();
        // As `docker stats` does: page cache is not the program's (cgroup v1, v2).
        let counters = memory.stats.unwrap_or_default();
        let cache = counters.get("total_inactive_file").or_else(|| counters.get("inactive_file")).copied().unwrap_or(0);
        Ok(InstanceStats {
            cpus,
            memory_bytes: memory.usage.unwrap_or(0).saturating_sub(cache),
            memory_limit_bytes: memory.limit,
        })
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
