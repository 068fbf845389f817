//! The adapter: [`Deployer`] on the Docker API.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use async_trait::async_trait;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RestartContainerOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt, stream};
use sdp_core::{
    Artifact, DeployError, DeployJob, Deployer, DeploymentId, EventKind, EventSink, ExecCommand, ExecEvents,
    HealthProbe, HostPort, Instance, InstanceKey, InstanceState, InstanceStats, LogLines, LogOptions, Probe,
    Replacement, Stage,
};
use tokio_util::sync::CancellationToken;

use crate::{
    build::{self, Builds},
    config::DockerConfig,
    docker::{
        container,
        engine::{self, Engine},
        found::Found,
        labels, networks,
        outages::Outages,
        program,
    },
    probe,
};

/// How many containers the engine is asked about at once.
const INSPECTED_AT_ONCE: usize = 8;

/// How often a container is made again whose network changed before it started.
const NETWORK_TRIES: u32 = 3;

/// [`Deployer`] in containers of a Docker engine.
///
/// Everything it knows of an instance is in the container's labels. A replaced container is
/// renamed to `<name>-previous` until the new one has proved healthy, and stopped meanwhile unless
/// the new one has another port; when this process dies in between, [`list`](Deployer::list) shows it as parked. Clones share one
/// connection.
#[derive(Debug, Clone)]
pub struct DockerDeployer {
    engine: Engine,
    client: reqwest::Client,
    config: DockerConfig,
    outages: Outages,
    builds: Builds,
    /// Held from the look at a sandbox's network until a container belongs to it, or it is gone.
    networks: Arc<tokio::sync::Mutex<()>>,
}

impl DockerDeployer {
    /// Connects to the engine.
    ///
    /// # Errors
    /// [`DeployError::EngineAway`] when it does not answer.
    pub async fn connect(config: DockerConfig) -> Result<Self, DeployError> {
        let engine = Engine::connect(&config.socket, config.patience).await?;
        let client = probe::client()
            .map_err(|source| DeployError::Engine { action: "be probed over HTTP".into(), source: source.into() })?;
        let builds = Builds::new(config.keep_builds);
        Ok(Self { engine, client, config, outages: Outages::default(), builds, networks: Arc::default() })
    }

    /// Which of these images are not on the machine.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    pub async fn missing_images<'a>(&self, images: &[&'a str]) -> Result<Vec<&'a str>, DeployError> {
        self.engine.missing_images(images).await
    }

    /// Sends a signal (`SIGUSR1`) to a container of any name, for gateways that SDP did not start.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    pub async fn signal_container(&self, name: &str, signal: &str) -> Result<(), DeployError> {
        self.engine.signal(name, signal).await
    }

    /// Our containers of `key`: the current one and the parked one.
    async fn of_key(&self, key: &InstanceKey) -> Result<(Option<Found>, Option<Found>), DeployError> {
        let mut ours = self.engine.containers().await?;
        ours.retain(|found| found.is_of(&self.config.owner) && labels::key(&found.labels).as_ref() == Some(key));
        let (parked, current): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|found| found.instance().is_some_and(|instance| instance.parked));
        Ok((current.into_iter().next(), parked.into_iter().next()))
    }

    async fn current(&self, key: &InstanceKey) -> Result<Found, DeployError> {
        self.of_key(key).await?.0.ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    /// Refuses what would collide, before anything is touched. Answers the image's id, and the current
    /// and the parked container of the job's key.
    async fn admit(&self, job: &DeployJob) -> Result<(String, Option<Found>, Option<Found>), DeployError> {
        let image_id = self.image_id(job).await?;
        let name = job.key.container_name();
        let mut own_port_is_held = false;
        let (mut current, mut parked) = (None, None);
        for found in self.engine.containers().await? {
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
        Ok((image_id, current, parked))
    }

    async fn image_id(&self, job: &DeployJob) -> Result<String, DeployError> {
        let image = program::image(job)?;
        self.engine.image_id(&image).await?.ok_or(DeployError::ImageMissing { image })
    }

    /// That a port is held by something that is no container.
    fn taken(&self, port: HostPort) -> DeployError {
        let address = SocketAddr::new(self.config.publish, port.get());
        DeployError::PortTaken { port, holder: format!("another program on {address}") }
    }

    /// Gives the current container's name free, and stops it unless it is to serve on.
    async fn park(&self, found: &Found, serves_on: bool) -> Result<(), DeployError> {
        if !serves_on {
            self.stop_for_good(found).await?;
        }
        self.engine.rename(&found.id, &format!("{}{}", found.name, labels::PARKED_SUFFIX)).await
    }

    /// Gives a parked container its name back, and starts it.
    async fn unpark(&self, id: &str, name: &str, start: bool) -> Result<(), DeployError> {
        let found = self.engine.containers().await?.into_iter().find(|found| found.id == id);
        if found.is_some_and(|found| found.name != name) {
            self.engine.rename(id, name).await?;
        }
        if !start {
            return Ok(());
        }
        self.engine.keep_running(id, true).await?;
        self.engine.start_container(id, name).await
    }

    async fn stop_for_good(&self, found: &Found) -> Result<(), DeployError> {
        self.engine.keep_running(&found.id, false).await?;
        self.engine.stop_container(&found.id, self.stop_seconds()).await
    }

    fn stop_seconds(&self) -> i32 {
        i32::try_from(self.config.stop_timeout.as_secs()).unwrap_or(i32::MAX)
    }

    /// Creates and starts the job's container; when it cannot be started, removes it again. While
    /// the engine was away, what it answered says nothing of the container: it is made once more.
    async fn create(&self, job: &DeployJob, artifact: &Artifact, image_id: &str) -> Result<Instance, DeployError> {
        let outages = self.engine.outages();
        let Err(error) = self.try_create(job, artifact, image_id).await else { return self.created(job).await };
        self.engine.wait().await?;
        self.remove_made(job.deployment).await?;
        if self.engine.outages() == outages {
            return Err(error);
        }
        match self.try_create(job, artifact, image_id).await {
            Ok(()) => self.created(job).await,
            Err(error) => {
                self.remove_made(job.deployment).await?;
                Err(error)
            }
        }
    }

    async fn try_create(&self, job: &DeployJob, artifact: &Artifact, image_id: &str) -> Result<(), DeployError> {
        let name = job.key.container_name();
        let body = container::body(&self.config.owner, self.config.publish, job, artifact, image_id)?;
        let options = || Some(CreateContainerOptionsBuilder::new().name(&name).build());
        let docker = &self.engine.docker;
        let sandbox = networks::sandbox(&job.key, &job.repo);
        let mut tries_left = NETWORK_TRIES;
        loop {
            let created = {
                let _networks = self.networks.lock().await;
                if let Some(sandbox) = sandbox {
                    self.engine.ensure_network(&self.config.owner, sandbox, &self.config.network_pool).await?;
                }
                docker.create_container(options(), body.clone()).await
            };
            let error = match created {
                Err(error) => error,
                Ok(created) => match docker.start_container(&created.id, None).await {
                    Ok(()) => return Ok(()),
                    // Somebody was quicker since the look at the port.
                    Err(error) if engine::is_port_taken(&error) => return Err(self.taken(job.host_port)),
                    Err(error) => error,
                },
            };
            let error = engine::not_started(&name)(error);
            // Another agent of this engine has just made the same network, or removed it.
            let Some(sandbox) = sandbox.filter(|_| tries_left > 0) else { return Err(error) };
            if self.engine.has_one_network(sandbox).await? {
                return Err(error);
            }
            tries_left -= 1;
            self.remove_made(job.deployment).await?;
        }
    }

    /// Removes the networks that nothing needs any more, that of this key's sandbox among them.
    async fn prune_networks(&self, key: Option<&InstanceKey>) -> Result<(), DeployError> {
        let _networks = self.networks.lock().await;
        let sandbox = key.and_then(|key| key.sandbox.as_ref());
        self.engine.prune_networks(&self.config.owner, sandbox).await
    }

    /// The container that was just made.
    async fn created(&self, job: &DeployJob) -> Result<Instance, DeployError> {
        let not_found = || DeployError::NotFound { key: job.key.clone() };
        let found = self.made(job.deployment).await?.into_iter().next().ok_or_else(not_found)?;
        self.engine.inspected(&found).await?.ok_or_else(not_found)
    }

    async fn remove_made(&self, deployment: DeploymentId) -> Result<(), DeployError> {
        for found in self.made(deployment).await? {
            self.engine.remove_container(&found.id).await?;
        }
        Ok(())
    }

    /// What was made for a deployment.
    async fn made(&self, deployment: DeploymentId) -> Result<Vec<Found>, DeployError> {
        let mut found = self.engine.containers().await?;
        found.retain(|it| it.is_of(&self.config.owner) && labels::deployment(&it.labels) == Some(deployment));
        Ok(found)
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
        self.builds.build(job, sink, cancel).await
    }

    async fn end_build(&self, deployment: DeploymentId) -> Result<(), DeployError> {
        build::end(deployment, None).await
    }

    async fn unchanged(&self, job: &DeployJob, artifact: &Artifact) -> Result<Option<Instance>, DeployError> {
        let Some(found) = self.of_key(&job.key).await?.0.filter(|found| found.running) else { return Ok(None) };
        let (Some(label), Some(instance)) = (found.labels.get(labels::PROGRAM), found.instance()) else {
            return Ok(None);
        };
        let there = DeployJob { host_port: instance.host_port, ..job.clone() };
        let image_id = self.image_id(job).await?;
        let same = *label == program::fingerprint(self.config.publish, &there, artifact, &image_id);
        Ok(same.then_some(instance))
    }

    async fn start(
        &self,
        job: &DeployJob,
        artifact: &Artifact,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Replacement, DeployError> {
        // Nothing is touched yet.
        let admitted = cancel.run_until_cancelled(self.admit(job)).await;
        let (image_id, current, parked) = admitted.unwrap_or(Err(DeployError::Cancelled))?;
        let name = job.key.container_name();
        // A parked one beside a current one is what a crash after the start left.
        let (previous, leftover) = match (current, parked) {
            (Some(current), leftover) => (Some(current), leftover),
            (None, parked) => (parked, None),
        };
        if let Some(leftover) = leftover {
            self.engine.remove_container(&leftover.id).await?;
        }
        let mut replaced = None;
        let beside = previous.as_ref().is_some_and(|found| found.running && !found.holds(job.host_port));
        if let Some(found) = &previous {
            replaced = self.engine.inspected(found).await?;
            let what = if beside { "leaving the previous one to serve beside it" } else { "stopping" };
            sink.accept(EventKind::note(Stage::Start, format!("{what}: {name} ({})", short(&found.id)))).await?;
            if found.name == name
                && let Err(error) = self.park(found, beside).await
            {
                self.unpark(&found.id, &name, found.running).await?;
                return Err(error);
            }
        }
        let created = if cancel.is_cancelled() {
            Err(DeployError::Cancelled)
        } else {
            self.create(job, artifact, &image_id).await
        };
        let created = match created {
            // The last look: from here on a cancel goes through `revert`.
            Ok(current) if cancel.is_cancelled() => {
                self.engine.remove_container(&current.id).await?;
                Err(DeployError::Cancelled)
            }
            created => created,
        };
        let current = match created {
            Ok(current) => current,
            Err(error) => {
                match &previous {
                    Some(found) => self.unpark(&found.id, &name, found.running || found.name != name).await?,
                    None => self.prune_networks(Some(&job.key)).await?,
                }
                return Err(error);
            }
        };
        self.outages.started(&current.id, &self.engine);
        let (id, port) = (short(&current.id), current.host_port);
        sink.accept(EventKind::note(Stage::Start, format!("started {name} ({id}) on port {port}"))).await?;
        let previous = replaced.map(|instance| Instance { parked: true, ..instance });
        Ok(Replacement { current, previous, beside })
    }

    async fn probe(&self, instance: &Instance, probe: &HealthProbe) -> Result<Probe, DeployError> {
        let engine = self.engine.impatient();
        let found = engine.containers().await?.into_iter().find(|found| found.id == instance.id);
        let not_found = || DeployError::NotFound { key: instance.key.clone() };
        let now = engine.inspected(&found.ok_or_else(not_found)?).await?.ok_or_else(not_found)?;
        match now.state {
            InstanceState::Running => {}
            InstanceState::Created => return Ok(Probe::NotYet("its program has not been started".into())),
            InstanceState::Exited { .. } if self.outages.took_down(&instance.id, &self.engine) => {
                return Ok(Probe::TakenDown);
            }
            InstanceState::Exited { exit_code } | InstanceState::Restarting { exit_code } => {
                return Ok(Probe::Dead { exit_code, last_lines: engine.last_lines(&instance.id).await });
            }
        }
        let address = SocketAddr::new(self.config.publish, instance.host_port.get());
        match probe {
            HealthProbe::Http(path) => Ok(probe::http(&self.client, address, path).await),
            HealthProbe::Tcp => Ok(probe::tcp(address).await),
            HealthProbe::Command(command) => engine.check(&instance.key, &instance.id, command).await,
        }
    }

    async fn settle(&self, replacement: &Replacement) -> Result<(), DeployError> {
        let current = &replacement.current;
        self.outages.forget(&current.id);
        let mut containers = self.engine.containers().await?;
        let previous = replacement.previous.as_ref().map(|previous| previous.id.as_str());
        let removed = async {
            let Some(id) = previous else { return Ok(()) };
            if let Some(found) = containers.iter().find(|found| found.running && found.id == id) {
                self.stop_for_good(found).await?;
            }
            self.engine.remove_container(id).await
        };
        let kept = async {
            self.engine.keep_running(&current.id, true).await?;
            // An engine that was restarted since the last probe has not brought it back.
            self.engine.start_container(&current.id, &current.name).await
        };
        let (removed, kept) = tokio::join!(removed, kept);
        removed.and(kept)?;
        containers.retain(|found| Some(found.id.as_str()) != previous);
        let artifact =
            containers.iter().find(|found| found.id == current.id).map(|found| labels::artifact(&found.labels));
        // Whoever made the containers: other agents may use the same checkouts.
        let in_use = containers.iter().filter_map(|found| labels::artifact(&found.labels));
        self.builds.settled(artifact.flatten(), in_use).await
    }

    async fn retire(&self, parked: &Instance) -> Result<(), DeployError> {
        let (_, found) = self.of_key(&parked.key).await?;
        let Some(found) = found.filter(|found| found.id == parked.id) else { return Ok(()) };
        if found.running {
            self.stop_for_good(&found).await?;
        }
        self.engine.remove_container(&found.id).await
    }

    async fn revert(&self, replacement: &Replacement) -> Result<bool, DeployError> {
        self.outages.forget(&replacement.current.id);
        self.engine.remove_container(&replacement.current.id).await?;
        let Some(previous) = &replacement.previous else {
            self.prune_networks(Some(&replacement.current.key)).await?;
            return Ok(false);
        };
        let ran = matches!(previous.state, InstanceState::Running | InstanceState::Restarting { .. });
        // One that was found parked had been stopped by us.
        let start = ran || previous.name != previous.key.container_name();
        self.unpark(&previous.id, &previous.key.container_name(), start).await?;
        Ok(true)
    }

    async fn stop(&self, key: &InstanceKey) -> Result<(), DeployError> {
        self.stop_for_good(&self.current(key).await?).await
    }

    async fn restart(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        if self.outages.is_final(&found.id) {
            self.engine.keep_running(&found.id, true).await?;
        }
        let options = || Some(RestartContainerOptionsBuilder::new().t(self.stop_seconds()).build());
        let restarted = self.engine.patiently(|| self.engine.docker.restart_container(&found.id, options())).await;
        restarted.map_err(engine::not_started(&found.name))
    }

    async fn reload(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        if found.running && found.labels.get(labels::RECIPE).is_some_and(|recipe| recipe == "php") {
            self.engine.signal(&found.id, "SIGUSR1").await?;
        }
        Ok(())
    }

    async fn remove(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let (current, parked) = self.of_key(key).await?;
        for found in current.into_iter().chain(parked) {
            self.engine.remove_container(&found.id).await?;
        }
        self.builds.forget(key);
        self.prune_networks(Some(key)).await
    }

    async fn prune(&self) -> Result<(), DeployError> {
        self.prune_networks(None).await
    }

    async fn inspect(&self, key: &InstanceKey) -> Result<Instance, DeployError> {
        let found = self.current(key).await?;
        self.engine.inspected(&found).await?.ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    async fn list(&self) -> Result<Vec<Instance>, DeployError> {
        let mut ours = self.engine.containers().await?;
        ours.retain(|found| found.is_of(&self.config.owner));
        // Every deployment asks for all: one after the other would take longer with each sandbox.
        let inspected = stream::iter(ours).map(async |found| self.engine.inspected(&found).await);
        let inspected: Vec<_> = inspected.buffer_unordered(INSPECTED_AT_ONCE).try_collect().await?;
        let mut instances: Vec<_> = inspected.into_iter().flatten().collect();
        instances.sort_by(|a, b| (&a.key, a.parked).cmp(&(&b.key, b.parked)));
        Ok(instances)
    }

    async fn logs(&self, key: &InstanceKey, options: LogOptions) -> Result<LogLines, DeployError> {
        let found = self.current(key).await?;
        Ok(self.engine.lines(&found.id, options))
    }

    async fn exec(&self, key: &InstanceKey, command: &ExecCommand) -> Result<ExecEvents, DeployError> {
        let found = self.current(key).await?;
        let state = self.engine.inspected(&found).await?.map(|instance| instance.state);
        match state.ok_or_else(|| DeployError::NotFound { key: key.clone() })? {
            InstanceState::Running => self.engine.exec(key, &found.id, command.arguments()).await,
            state => Err(DeployError::NotRunning { key: key.clone(), state }),
        }
    }

    async fn commands_ended(&self) {
        self.engine.commands_ended().await;
    }

    async fn end_left_commands(&self) -> Result<(), DeployError> {
        self.engine.end_left_commands(&self.config.owner).await
    }

    async fn stats(&self, key: &InstanceKey) -> Result<InstanceStats, DeployError> {
        let found = self.current(key).await?;
        self.engine.stats(&found.id, key).await
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
