//! The adapter for teams that outgrew one machine: [`Deployer`] on Docker Swarm services.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    models::{NodeState, Task, TaskState},
    query_parameters::LogsOptionsBuilder,
};
use futures_util::StreamExt;
use sdp_core::{
    Artifact, DeployError, DeployJob, Deployer, DeploymentId, EventKind, EventSink, ExecCommand, ExecEvents,
    HealthProbe, Instance, InstanceKey, InstanceState, InstanceStats, LogLines, LogOptions, Probe, Replacement, Stage,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    build::{self, Builds},
    config::SwarmConfig,
    docker::{
        LOOK_AGAIN,
        engine::{self, Engine},
        labels,
        outages::Outages,
        output::{self, FOLLOW},
        program, service,
        services::{self, FoundService, PARKED},
    },
    output::{LAST_LINES, texts},
    probe,
};

/// How much longer than its program a service may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// How long a task may wait for a node that takes it.
const PLACING: Duration = Duration::from_secs(10);

/// How long a task may take to run once a node has it.
const STARTING: Duration = Duration::from_secs(60);

/// [`Deployer`] on services of a Docker Swarm whose manager is this machine's engine.
///
/// Each instance is a service of one task, with everything that SDP knows of it in its labels. A
/// replaced service is scaled to none and labelled as parked until the new one has proved healthy.
/// Ports are published on the node that runs the task, on all of its addresses: a swarm knows no
/// other way. What is built here is mounted from here: nodes that a constraint allows besides this
/// one need the checkouts' folder shared under the same path, and the image loaded.
#[derive(Debug, Clone)]
pub struct SwarmDeployer {
    engine: Engine,
    client: reqwest::Client,
    config: SwarmConfig,
    /// This machine's node.
    node: String,
    outages: Outages,
    builds: Builds,
}

impl SwarmDeployer {
    /// Connects to the engine.
    ///
    /// # Errors
    /// [`DeployError::EngineAway`] when it does not answer, [`DeployError::Engine`] when it manages no
    /// swarm.
    pub async fn connect(config: SwarmConfig) -> Result<Self, DeployError> {
        let engine = Engine::connect(&config.socket, config.patience).await?;
        let failed = engine::failed("tell of its swarm");
        let swarm = engine.docker.info().await.map_err(failed)?.swarm.unwrap_or_default();
        let node = swarm.node_id.filter(|_| swarm.control_available == Some(true));
        let node = node.ok_or_else(|| DeployError::Engine {
            action: "manage a swarm".into(),
            source: "it is no swarm manager: run `docker swarm init` here, or `docker node promote` on a manager"
                .into(),
        })?;
        let client = probe::client()
            .map_err(|source| DeployError::Engine { action: "be probed over HTTP".into(), source: source.into() })?;
        let builds = Builds::new(config.keep_builds);
        Ok(Self { engine, client, config, node, outages: Outages::default(), builds })
    }

    /// Which of these images are not on this machine.
    ///
    /// # Errors
    /// [`DeployError::Engine`].
    pub async fn missing_images<'a>(&self, images: &[&'a str]) -> Result<Vec<&'a str>, DeployError> {
        self.engine.missing_images(images).await
    }

    /// Where tasks may run: as configured, or here, where the checkouts are.
    fn constraints(&self) -> Vec<String> {
        match self.config.constraints.as_slice() {
            [] => vec![format!("node.id=={}", self.node)],
            constraints => constraints.to_vec(),
        }
    }

    fn stop_limit(&self) -> Duration {
        self.config.stop_timeout + STOP_GRACE
    }

    /// Our services of `key`: the current one and the parked one.
    async fn of_key(&self, key: &InstanceKey) -> Result<(Option<FoundService>, Option<FoundService>), DeployError> {
        let mut ours = self.engine.services().await?;
        ours.retain(|found| found.is_of(&self.config.owner, key));
        let (parked, current): (Vec<_>, Vec<_>) = ours.into_iter().partition(FoundService::is_parked);
        Ok((current.into_iter().next(), parked.into_iter().next()))
    }

    async fn current(&self, key: &InstanceKey) -> Result<FoundService, DeployError> {
        self.of_key(key).await?.0.ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    /// Refuses what would collide, before anything is touched. Answers the image's id.
    async fn admit(&self, job: &DeployJob) -> Result<String, DeployError> {
        let image = program::image(job)?;
        let Some(image) = self.engine.image_id(&image).await? else {
            return Err(DeployError::ImageMissing { image });
        };
        let (mut own_port_is_held, port) = (false, job.host_port);
        for found in self.engine.services().await?.iter().filter(|found| found.holds(port)) {
            if !found.is_of(&self.config.owner, &job.key) {
                return Err(DeployError::PortTaken { port, holder: found.describe() });
            }
            own_port_is_held |= found.is_on();
        }
        for found in self.engine.containers().await?.iter().filter(|found| found.running && found.holds(port)) {
            if !found.labels.contains_key(services::SERVICE_ID) {
                return Err(DeployError::PortTaken { port, holder: found.describe() });
            }
        }
        let here = self.config.constraints.is_empty();
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.get()));
        if here && !own_port_is_held && TcpListener::bind(everywhere).is_err() {
            return Err(DeployError::PortTaken { port, holder: format!("another program on port {port}") });
        }
        Ok(image)
    }

    async fn park(&self, id: &str) -> Result<(), DeployError> {
        let park = |spec: &mut bollard::models::ServiceSpec| {
            spec.labels.get_or_insert_default().insert(PARKED.into(), "true".into());
            services::set_replicas(spec, false);
        };
        self.engine.change_service(id, park).await?;
        self.engine.until_quiet(id, self.stop_limit()).await
    }

    /// Has a parked service be the current one again, and run.
    async fn unpark(&self, id: &str, run: bool) -> Result<(), DeployError> {
        let unpark = move |spec: &mut bollard::models::ServiceSpec| {
            spec.labels.get_or_insert_default().remove(PARKED);
            services::set_replicas(spec, run);
        };
        self.engine.change_service(id, unpark).await?;
        if run { self.until_up(id, &CancellationToken::new()).await } else { Ok(()) }
    }

    /// Makes the job's service and waits until its program runs or has run; otherwise removes it again.
    async fn create(
        &self,
        job: &DeployJob,
        artifact: &Artifact,
        image: &str,
        cancel: &CancellationToken,
    ) -> Result<Instance, DeployError> {
        let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let program = program::program(&self.config.owner, everywhere, job, artifact)?;
        let grace = i64::try_from(self.config.stop_timeout.as_nanos()).unwrap_or(i64::MAX);
        let spec = service::spec(job, program, image, self.constraints(), grace);
        let name = spec.name.clone().unwrap_or_default();
        let id = self.engine.create_service(&spec).await.map_err(engine::not_started(&name))?;
        self.outages.started(&id, &self.engine);
        let up = match self.until_up(&id, cancel).await {
            Ok(()) => self.instance_of(&id).await,
            Err(error) => Err(error),
        };
        match up {
            Ok(Some(instance)) => Ok(instance),
            failed => {
                self.outages.forget(&id);
                self.engine.remove_service(&id, self.stop_limit()).await?;
                Err(match failed {
                    Err(DeployError::Start { source, .. }) => self.refused(job, source),
                    Err(error) => error,
                    Ok(_) => DeployError::NotFound { key: job.key.clone() },
                })
            }
        }
    }

    /// Why a node did not start a job, by what it said.
    fn refused(&self, job: &DeployJob, source: Box<dyn std::error::Error + Send + Sync>) -> DeployError {
        let said = source.to_string();
        if engine::tells_of_a_taken_port(&said) {
            let holder = "another program on the node that was to run it".into();
            return DeployError::PortTaken { port: job.host_port, holder };
        }
        DeployError::Start { name: service::name(job), last_lines: Vec::new(), source }
    }

    /// Waits until a service's newest task runs, or has ended by itself.
    async fn until_up(&self, id: &str, cancel: &CancellationToken) -> Result<(), DeployError> {
        let began = Instant::now();
        let not_started =
            |said: String| DeployError::Start { name: id.to_owned(), last_lines: Vec::new(), source: said.into() };
        loop {
            if cancel.is_cancelled() {
                return Err(DeployError::Cancelled);
            }
            let tasks = self.engine.tasks(id).await?;
            if tasks.iter().any(|task| services::state(task) == TaskState::RUNNING) {
                return Ok(());
            }
            for task in &tasks {
                match services::state(task) {
                    TaskState::REJECTED => return Err(not_started(complaint(task))),
                    // A program that ran has an exit code, or ended well.
                    TaskState::FAILED if services::exit_code(task) == 0 => return Err(not_started(complaint(task))),
                    TaskState::FAILED | TaskState::COMPLETE => return Ok(()),
                    TaskState::PENDING if began.elapsed() > PLACING => return Err(not_started(complaint(task))),
                    _ => {}
                }
            }
            if began.elapsed() > STARTING {
                let said = tasks.first().map_or_else(|| "the swarm made no task of it".into(), complaint);
                return Err(not_started(said));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The instance that a service is; none when it is gone.
    async fn instance_of(&self, id: &str) -> Result<Option<Instance>, DeployError> {
        let found = self.engine.services().await?.into_iter().find(|found| found.id == id);
        match found {
            Some(found) => self.inspected(&found).await,
            None => Ok(None),
        }
    }

    async fn inspected(&self, found: &FoundService) -> Result<Option<Instance>, DeployError> {
        let tasks = self.engine.tasks(&found.id).await?;
        let Some(mut instance) = found.instance(&tasks) else { return Ok(None) };
        if let Some(node) = self.elsewhere(&tasks) {
            instance.host = Some(self.address(node).await?.to_string());
        }
        Ok(Some(instance))
    }

    /// The node that runs a task, when it is not this machine.
    fn elsewhere<'a>(&self, tasks: &'a [Task]) -> Option<&'a str> {
        let runs = tasks.iter().find(|task| services::state(task) == TaskState::RUNNING)?;
        runs.node_id.as_deref().filter(|node| *node != self.node)
    }

    /// Where a node is reached.
    async fn address(&self, node: &str) -> Result<IpAddr, DeployError> {
        let inspected = self.engine.patiently(|| self.engine.docker.inspect_node(node)).await;
        let status = inspected.map_err(engine::failed("inspect a node"))?.status.unwrap_or_default();
        let address = status.addr.as_deref().and_then(|address| address.parse().ok());
        address.filter(|_| status.state == Some(NodeState::READY)).ok_or_else(|| DeployError::Engine {
            action: format!("reach node {node}"),
            source: "it is down, or has no address: see `docker node ls`".into(),
        })
    }

    /// The container of the running task, which must be on this machine to be asked for `what`.
    async fn container(&self, found: &FoundService, what: &str) -> Result<Option<String>, DeployError> {
        let tasks = self.engine.tasks(&found.id).await?;
        if let Some(node) = self.elsewhere(&tasks) {
            let (name, node, action) = (found.name.clone(), node.to_owned(), what.to_owned());
            return Err(DeployError::Elsewhere { name, node, action });
        }
        let runs = tasks.iter().find(|task| services::state(task) == TaskState::RUNNING);
        Ok(runs.and_then(services::container).map(str::to_owned))
    }

    async fn last_lines(&self, id: &str) -> Vec<String> {
        texts(self.service_lines(id, LAST_LINES)).await
    }

    /// A service's output, wherever it runs.
    fn service_lines(&self, id: &str, options: LogOptions) -> LogLines {
        let tail = options.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(options.follow).tail(&tail).build();
        let docker = self.engine.docker.clone();
        output::lines(FOLLOW, docker.service_logs(id, Some(options))).boxed()
    }
}

fn complaint(task: &Task) -> String {
    let state = services::state(task).to_string();
    services::complaint(task).map_or_else(|| format!("its task is {state}"), str::to_owned)
}

#[async_trait]
impl Deployer for SwarmDeployer {
    fn kind(&self) -> &'static str {
        "swarm"
    }

    fn serves_beside(&self) -> bool {
        false
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

    async fn start(
        &self,
        job: &DeployJob,
        artifact: &Artifact,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Replacement, DeployError> {
        // Nothing is touched yet.
        let admitted = cancel.run_until_cancelled(self.admit(job)).await;
        let image = admitted.unwrap_or(Err(DeployError::Cancelled))?;
        // A parked one beside a current one is what a crash after the start left.
        let (previous, leftover) = match self.of_key(&job.key).await? {
            (Some(current), leftover) => (Some(current), leftover),
            (None, parked) => (parked, None),
        };
        if let Some(leftover) = leftover {
            self.engine.remove_service(&leftover.id, self.stop_limit()).await?;
        }
        let mut replaced = None;
        if let Some(found) = &previous {
            replaced = self.inspected(found).await?;
            sink.accept(EventKind::note(Stage::Start, format!("stopping {}", found.name))).await?;
            if !found.is_parked()
                && let Err(error) = self.park(&found.id).await
            {
                self.unpark(&found.id, found.is_on()).await?;
                return Err(error);
            }
        }
        let current = match self.create(job, artifact, &image, cancel).await {
            Ok(current) => current,
            Err(error) => {
                if let Some(found) = &previous {
                    self.unpark(&found.id, found.is_on() || found.is_parked()).await?;
                }
                return Err(error);
            }
        };
        let place = current.host.as_ref().map(|host| format!(" of {host}")).unwrap_or_default();
        let line = format!("started {} on port {}{place}", current.name, current.host_port);
        sink.accept(EventKind::note(Stage::Start, line)).await?;
        let previous = replaced.map(|instance| Instance { parked: true, ..instance });
        Ok(Replacement { current, previous, beside: false })
    }

    async fn probe(&self, instance: &Instance, probe: &HealthProbe) -> Result<Probe, DeployError> {
        let hasty = Self { engine: self.engine.impatient(), ..self.clone() };
        let found = hasty.engine.services().await?.into_iter().find(|found| found.id == instance.id);
        let found = found.ok_or_else(|| DeployError::NotFound { key: instance.key.clone() })?;
        let tasks = hasty.engine.tasks(&found.id).await?;
        // An engine that ends takes its tasks along, and the swarm starts others. What is final has a
        // history that says nothing of now.
        let blameless = self.outages.is_final(&instance.id) || self.outages.since_start(&instance.id, &self.engine);
        if let Some(crashed) = tasks.iter().find(|task| services::has_crashed(task)).filter(|_| !blameless) {
            let exit_code = services::exit_code(crashed);
            return Ok(Probe::Dead { exit_code, last_lines: hasty.last_lines(&found.id).await });
        }
        let Some(runs) = tasks.iter().find(|task| services::state(task) == TaskState::RUNNING) else {
            return Ok(Probe::NotYet(tasks.first().map_or_else(|| "it has no task yet".into(), complaint)));
        };
        let host = match hasty.elsewhere(&tasks) {
            Some(node) => hasty.address(node).await?,
            None => Ipv4Addr::LOCALHOST.into(),
        };
        let address = SocketAddr::new(host, instance.host_port.get());
        match probe {
            HealthProbe::Http(path) => Ok(probe::http(&self.client, address, path).await),
            HealthProbe::Tcp => Ok(probe::tcp(address).await),
            HealthProbe::Command(command) => match services::container(runs) {
                Some(container) if host.is_loopback() => hasty.engine.check(&instance.key, container, command).await,
                _ => Err(DeployError::Config {
                    repo: instance.key.repo.to_string(),
                    reason: "its health check is a command, which cannot be run on another node; use http or tcp"
                        .into(),
                }),
            },
        }
    }

    async fn settle(&self, replacement: &Replacement) -> Result<(), DeployError> {
        let current = &replacement.current;
        self.outages.forget(&current.id);
        if let Some(previous) = &replacement.previous {
            self.engine.remove_service(&previous.id, self.stop_limit()).await?;
        }
        let services = self.engine.services().await?;
        let artifact =
            services.iter().find(|found| found.id == current.id).map(|found| labels::artifact(&found.labels));
        let in_use = services.iter().filter_map(|found| labels::artifact(&found.labels));
        self.builds.settled(artifact.flatten(), in_use).await
    }

    async fn retire(&self, parked: &Instance) -> Result<(), DeployError> {
        let services = self.engine.services().await?;
        match services.iter().find(|found| found.id == parked.id && found.is_parked()) {
            Some(found) => self.engine.remove_service(&found.id, self.stop_limit()).await,
            None => Ok(()),
        }
    }

    async fn revert(&self, replacement: &Replacement) -> Result<bool, DeployError> {
        self.outages.forget(&replacement.current.id);
        self.engine.remove_service(&replacement.current.id, self.stop_limit()).await?;
        let Some(previous) = &replacement.previous else { return Ok(false) };
        let ran = matches!(previous.state, InstanceState::Running | InstanceState::Restarting { .. });
        self.unpark(&previous.id, ran).await?;
        Ok(true)
    }

    async fn stop(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        self.engine.scale(&found.id, false).await?;
        self.engine.until_quiet(&found.id, self.stop_limit()).await
    }

    async fn restart(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        self.engine.scale(&found.id, false).await?;
        self.engine.until_quiet(&found.id, self.stop_limit()).await?;
        self.engine.scale(&found.id, true).await?;
        self.until_up(&found.id, &CancellationToken::new()).await
    }

    async fn reload(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let found = self.current(key).await?;
        if found.labels.get(labels::RECIPE).is_some_and(|recipe| recipe == "php")
            && let Some(container) = self.container(&found, "reload it").await?
        {
            self.engine.signal(&container, "SIGUSR1").await?;
        }
        Ok(())
    }

    async fn remove(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let (current, parked) = self.of_key(key).await?;
        for found in current.into_iter().chain(parked) {
            self.engine.remove_service(&found.id, self.stop_limit()).await?;
        }
        self.builds.forget(key);
        Ok(())
    }

    async fn inspect(&self, key: &InstanceKey) -> Result<Instance, DeployError> {
        let found = self.current(key).await?;
        self.inspected(&found).await?.ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    async fn list(&self) -> Result<Vec<Instance>, DeployError> {
        let mut instances = Vec::new();
        for found in self.engine.services().await? {
            if found.labels.get(labels::OWNER).is_some_and(|owner| *owner == self.config.owner) {
                instances.extend(self.inspected(&found).await?);
            }
        }
        instances.sort_by(|a, b| (&a.key, a.parked).cmp(&(&b.key, b.parked)));
        Ok(instances)
    }

    async fn logs(&self, key: &InstanceKey, options: LogOptions) -> Result<LogLines, DeployError> {
        let found = self.current(key).await?;
        let tasks = self.engine.tasks(&found.id).await?;
        // A container's own output ends with it; a service's never does.
        let here = tasks.iter().filter(|task| task.node_id.as_deref() == Some(&self.node));
        match here.filter_map(services::container).next() {
            Some(container) => Ok(self.engine.lines(container, options)),
            None => Ok(self.service_lines(&found.id, options)),
        }
    }

    async fn exec(&self, key: &InstanceKey, command: &ExecCommand) -> Result<ExecEvents, DeployError> {
        let found = self.current(key).await?;
        match self.container(&found, "run a command in it").await? {
            Some(container) => self.engine.exec(key, &container, command.arguments()).await,
            None => {
                let state = self.inspected(&found).await?.map_or(InstanceState::Created, |instance| instance.state);
                Err(DeployError::NotRunning { key: key.clone(), state })
            }
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
        match self.container(&found, "tell statistics").await? {
            Some(container) => self.engine.stats(&container, key).await,
            None => Ok(InstanceStats::default()),
        }
    }
}
