//! The adapter for machines without Docker: [`Deployer`] on host processes.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sdp_core::{
    Artifact, DeployError, DeployJob, Deployer, DeploymentId, EventKind, EventSink, ExecCommand, ExecEvents,
    HealthProbe, Instance, InstanceKey, InstanceState, InstanceStats, LogLines, LogOptions, Probe, RecipeKind,
    Replacement, Stage,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    build::{self, Builds},
    config::ProcessConfig,
    marked::{self, MARK},
    output::{LAST_LINES, texts},
    probe,
    process::{
        exec,
        journal::{Journal, Record},
        output, php,
        system::{self, ProcessId},
    },
};

/// How long processor use is measured over.
const STATS_WINDOW: Duration = Duration::from_millis(500);
/// Clock ticks in a second: fixed on Linux for every architecture that Rust's std runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// [`Deployer`] on processes of this machine: the same stages as containers, without isolation.
///
/// A journal in its directory tells a later deployer what runs. Programs live on when the deployer
/// is dropped; [`shutdown`](Self::shutdown) ends them. Clones share everything.
#[derive(Debug, Clone)]
pub struct ProcessDeployer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ProcessConfig,
    journal: Journal,
    client: reqwest::Client,
    builds: Builds,
    /// The exit codes of programs that this deployer started, by instance.
    exits: Mutex<HashMap<String, i64>>,
    /// The commands that are being ended.
    ending: TaskTracker,
}

impl ProcessDeployer {
    /// A deployer with its files in the configured directory.
    ///
    /// # Errors
    /// [`DeployError::Io`] when that cannot be used.
    pub fn new(config: ProcessConfig) -> Result<Self, DeployError> {
        std::fs::create_dir_all(&config.dir)
            .map_err(|source| DeployError::Io { action: format!("create {}", config.dir.display()), source })?;
        let client = probe::client()
            .map_err(|source| DeployError::Engine { action: "be probed over HTTP".into(), source: source.into() })?;
        let journal = Journal::new(config.dir.clone());
        for record in journal.read().map_err(journal_failed)? {
            // Started by one who died before it could write it down.
            marked::kill(record.instance.deployment, record.process.map(ProcessId::group));
        }
        let builds = Builds::new(config.keep_builds);
        let ending = TaskTracker::new();
        // It takes more all the same, and then those that wait know when there is none.
        ending.close();
        Ok(Self { shared: Arc::new(Shared { config, journal, client, builds, exits: Mutex::default(), ending }) })
    }

    /// Ends everything that runs and forgets it.
    ///
    /// # Errors
    /// [`DeployError::Io`] when the journal cannot be changed.
    pub async fn shutdown(&self) -> Result<(), DeployError> {
        for record in self.records()? {
            self.remove_record(&record).await?;
        }
        Ok(())
    }

    fn records(&self) -> Result<Vec<Record>, DeployError> {
        self.shared.journal.read().map_err(journal_failed)
    }

    fn write(&self, record: &Record) -> Result<(), DeployError> {
        self.shared.journal.write(record).map_err(journal_failed)
    }

    fn find(&self, key: &InstanceKey) -> Result<Record, DeployError> {
        let current = |record: &Record| record.instance.key == *key && !record.instance.parked;
        self.records()?.into_iter().find(current).ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    fn by_id(&self, id: &str) -> Result<Option<Record>, DeployError> {
        Ok(self.records()?.into_iter().find(|record| record.instance.id == id))
    }

    /// The instance as it is now.
    fn now(&self, record: &Record) -> Instance {
        let mut instance = record.instance.clone();
        if record.process.is_some_and(ProcessId::runs) {
            instance.state = InstanceState::Running;
        } else if record.process.is_some() {
            let exits = self.shared.exits.lock().unwrap_or_else(PoisonError::into_inner);
            instance.state = InstanceState::Exited { exit_code: exits.get(&instance.id).copied().unwrap_or(-1) };
        }
        instance
    }

    /// Refuses what would collide. Answers the current and the parked record of the job's key.
    fn admit(&self, job: &DeployJob) -> Result<(Option<Record>, Option<Record>), DeployError> {
        let name = job.key.container_name();
        let (mut current, mut parked, mut own_port_is_held) = (None, None, false);
        for record in self.records()? {
            let instance = &record.instance;
            let describe = || format!("{} ({})", instance.key, instance.name);
            if instance.key == job.key {
                let runs = record.process.is_some_and(ProcessId::runs);
                own_port_is_held |= runs && instance.host_port == job.host_port;
                let slot = if instance.parked { &mut parked } else { &mut current };
                *slot = Some(record);
            } else if instance.name == name {
                return Err(DeployError::NameTaken { name, holder: describe() });
            } else if instance.host_port == job.host_port {
                return Err(DeployError::PortTaken { port: job.host_port, holder: describe() });
            }
        }
        let address = self.address(job.host_port.get());
        if !own_port_is_held && TcpListener::bind(address).is_err() {
            let holder = format!("another program on {address}");
            return Err(DeployError::PortTaken { port: job.host_port, holder });
        }
        Ok((current, parked))
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.shared.config.publish, port)
    }

    /// The record of a job's instance, not started yet.
    fn record(&self, job: &DeployJob, artifact: &Artifact) -> Result<Record, DeployError> {
        let out = artifact.path.clone().unwrap_or_else(|| job.checkout.path.clone());
        let address = self.address(job.host_port.get());
        let mut env = build::base_env();
        let own = build::run_command(job, &out);
        let argv = match (own, job.repo.recipe) {
            (Some(argv), _) => argv,
            (None, RecipeKind::Php) => php::command(job, address)
                .map_err(|source| DeployError::Io { action: "write the router of PHP's server".into(), source })?,
            (None, _) => {
                let reason = "recipe `command` without Docker needs `run`".to_owned();
                return Err(DeployError::Config { repo: job.repo.name.to_string(), reason });
            }
        };
        if job.repo.recipe == RecipeKind::Php {
            env.extend(php::env(job));
        }
        env.extend(job.env.iter().map(|(name, value)| (name.to_string(), value.clone())));
        env.insert("HOST".into(), self.shared.config.publish.to_string());
        env.insert("PORT".into(), job.host_port.to_string());
        env.insert("SDP_OUT".into(), out.to_string_lossy().into_owned());
        env.insert(MARK.into(), job.deployment.to_string());
        Ok(Record {
            instance: Instance {
                key: job.key.clone(),
                id: job.deployment.to_string(),
                name: job.key.container_name(),
                deployment: job.deployment,
                branch: job.checkout.branch.clone(),
                commit: job.checkout.commit.clone(),
                host_port: job.host_port,
                host: None,
                state: InstanceState::Created,
                started_at: None,
                restarts: 0,
                parked: false,
            },
            argv,
            dir: job.checkout.path.clone(),
            env,
            recipe: job.repo.recipe,
            artifact: artifact.path.clone(),
            process: None,
        })
    }

    /// Starts a record's program and writes the record.
    async fn spawn(&self, record: &mut Record) -> Result<(), DeployError> {
        let id = record.instance.id.clone();
        let name = &record.instance.name;
        let failed = |source: io::Error| DeployError::Start {
            name: name.clone(),
            last_lines: Vec::new(),
            source: source.into(),
        };
        let log = self.shared.journal.log(&id);
        // Who dies before the process is written down finds it again by its mark.
        record.process = None;
        record.instance.state = InstanceState::Created;
        self.write(record)?;
        let (mut child, process) = system::spawn(&record.argv, &record.dir, &record.env, &log).map_err(failed)?;
        record.process = Some(process);
        record.instance.state = InstanceState::Running;
        record.instance.started_at = Some(Timestamp::now());
        self.shared.exits.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let shared = Arc::clone(&self.shared);
        // Waits for it, so that it leaves no zombie and its exit code is known.
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                shared.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(id, system::exit_code(status));
            }
        });
        if let Err(error) = self.write(record) {
            // What is not written down would run for ever.
            self.end(record).await;
            return Err(error);
        }
        Ok(())
    }

    async fn end(&self, record: &Record) {
        if let Some(process) = record.process {
            process.end(self.shared.config.stop_timeout).await;
        }
        // What left its group, to be a daemon for example.
        let deployment = record.instance.deployment;
        let killed = tokio::task::spawn_blocking(move || marked::kill(deployment, None)).await;
        if let Err(error) = killed {
            tracing::error!(%deployment, %error, "its other processes were not looked for");
        }
    }

    async fn remove_record(&self, record: &Record) -> Result<(), DeployError> {
        self.end(record).await;
        self.shared.journal.remove(&record.instance.id).map_err(journal_failed)
    }

    async fn unpark(&self, mut record: Record, start: bool) -> Result<(), DeployError> {
        record.instance.parked = false;
        if start && !record.process.is_some_and(ProcessId::runs) {
            self.spawn(&mut record).await
        } else {
            self.write(&record)
        }
    }

    async fn last_lines(&self, id: &str) -> Vec<String> {
        match output::lines(&self.shared.journal.log(id), LAST_LINES, None).await {
            Ok(lines) => texts(lines).await,
            Err(_) => Vec::new(),
        }
    }
}

fn journal_failed(source: io::Error) -> DeployError {
    DeployError::Io { action: "use the journal of processes".into(), source }
}

#[async_trait]
impl Deployer for ProcessDeployer {
    fn kind(&self) -> &'static str {
        "process"
    }

    async fn build(
        &self,
        job: &DeployJob,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, DeployError> {
        self.shared.builds.build(job, sink, cancel).await
    }

    async fn end_build(&self, deployment: DeploymentId) -> Result<(), DeployError> {
        let instance = self.by_id(&deployment.to_string())?;
        build::end(deployment, instance.and_then(|record| record.process).map(ProcessId::group)).await
    }

    async fn unchanged(&self, job: &DeployJob, artifact: &Artifact) -> Result<Option<Instance>, DeployError> {
        let Ok(current) = self.find(&job.key) else { return Ok(None) };
        if !current.process.is_some_and(ProcessId::runs) {
            return Ok(None);
        }
        let there = DeployJob { host_port: current.instance.host_port, ..job.clone() };
        let same = self.record(&there, artifact)?.makes_the_same_as(&current);
        Ok(same.then(|| self.now(&current)))
    }

    async fn start(
        &self,
        job: &DeployJob,
        artifact: &Artifact,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Replacement, DeployError> {
        let (current, parked) = self.admit(job)?;
        let mut record = self.record(job, artifact)?;
        if cancel.is_cancelled() {
            return Err(DeployError::Cancelled);
        }
        let name = record.instance.name.clone();
        let (previous, leftover) = match (current, parked) {
            (Some(current), leftover) => (Some(current), leftover),
            (None, parked) => (parked, None),
        };
        if let Some(leftover) = leftover {
            self.remove_record(&leftover).await?;
        }
        let mut replaced = None;
        let beside = previous.as_ref().is_some_and(|previous| {
            previous.process.is_some_and(ProcessId::runs) && previous.instance.host_port != job.host_port
        });
        if let Some(previous) = &previous {
            let was_parked = previous.instance.parked;
            let mut before = self.now(previous);
            if was_parked {
                before.state = InstanceState::Running;
            }
            let what = if beside { "leaving the previous one to serve beside it" } else { "stopping" };
            sink.accept(EventKind::note(Stage::Start, format!("{what}: {name}"))).await?;
            if !beside {
                self.end(previous).await;
            }
            let mut parked = previous.clone();
            parked.instance.parked = true;
            self.write(&parked)?;
            replaced = Some((parked, before));
        }
        let started = if cancel.is_cancelled() { Err(DeployError::Cancelled) } else { self.spawn(&mut record).await };
        if let Err(error) = started {
            self.shared.journal.remove(&record.instance.id).map_err(journal_failed)?;
            if let Some((parked, before)) = replaced {
                self.unpark(parked, before.state == InstanceState::Running).await?;
            }
            return Err(error);
        }
        sink.accept(EventKind::note(Stage::Start, format!("started {name} on port {}", job.host_port))).await?;
        let previous = replaced.map(|(_, before)| Instance { parked: true, ..before });
        Ok(Replacement { current: record.instance, previous, beside })
    }

    async fn probe(&self, instance: &Instance, probe: &HealthProbe) -> Result<Probe, DeployError> {
        let not_found = || DeployError::NotFound { key: instance.key.clone() };
        let record = self.by_id(&instance.id)?.ok_or_else(not_found)?;
        if !record.process.is_some_and(ProcessId::runs) {
            // The waiting task may be a moment behind.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let exit_code = match self.now(&record).state {
                InstanceState::Exited { exit_code } => exit_code,
                _ => -1,
            };
            return Ok(Probe::Dead { exit_code, last_lines: self.last_lines(&instance.id).await });
        }
        let address = self.address(instance.host_port.get());
        match probe {
            HealthProbe::Http(path) => Ok(probe::http(&self.shared.client, address, path).await),
            HealthProbe::Tcp => Ok(probe::tcp(address).await),
            HealthProbe::Command(command) => {
                let log = self.shared.journal.log(&instance.id);
                let failed = |source| DeployError::Io { action: format!("run {}", command.join(" ")), source };
                let (mut child, _) = system::spawn(command, &record.dir, &record.env, &log).map_err(failed)?;
                let status = child.wait().await.map_err(failed)?;
                let outcome = if status.success() { None } else { Some(status.code().unwrap_or(-1)) };
                Ok(outcome.map_or(Probe::Healthy, |code| {
                    Probe::NotYet(format!("`{}` exited with {code}", command.join(" ")))
                }))
            }
        }
    }

    async fn settle(&self, replacement: &Replacement) -> Result<(), DeployError> {
        if let Some(previous) = &replacement.previous
            && let Some(record) = self.by_id(&previous.id)?
        {
            self.remove_record(&record).await?;
        }
        let records = self.records()?;
        let current = records.iter().find(|record| record.instance.id == replacement.current.id);
        let artifact = current.and_then(|record| record.artifact.clone());
        let in_use: Vec<_> = records.iter().filter_map(|record| record.artifact.clone()).collect();
        self.shared.builds.settled(artifact, in_use).await
    }

    async fn retire(&self, parked: &Instance) -> Result<(), DeployError> {
        match self.by_id(&parked.id)?.filter(|record| record.instance.parked) {
            Some(record) => self.remove_record(&record).await,
            None => Ok(()),
        }
    }

    async fn revert(&self, replacement: &Replacement) -> Result<bool, DeployError> {
        if let Some(record) = self.by_id(&replacement.current.id)? {
            self.remove_record(&record).await?;
        }
        let Some(previous) = &replacement.previous else { return Ok(false) };
        if let Some(record) = self.by_id(&previous.id)? {
            self.unpark(record, previous.state == InstanceState::Running).await?;
        }
        Ok(true)
    }

    async fn stop(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let record = self.find(key)?;
        self.end(&record).await;
        Ok(())
    }

    async fn restart(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let mut record = self.find(key)?;
        self.end(&record).await;
        self.spawn(&mut record).await
    }

    async fn reload(&self, key: &InstanceKey) -> Result<(), DeployError> {
        // PHP's own server reads every file anew on every request.
        self.find(key).map(drop)
    }

    async fn remove(&self, key: &InstanceKey) -> Result<(), DeployError> {
        for record in self.records()?.iter().filter(|record| record.instance.key == *key) {
            self.remove_record(record).await?;
        }
        self.shared.builds.forget(key);
        Ok(())
    }

    async fn inspect(&self, key: &InstanceKey) -> Result<Instance, DeployError> {
        self.find(key).map(|record| self.now(&record))
    }

    async fn list(&self) -> Result<Vec<Instance>, DeployError> {
        Ok(self.records()?.iter().map(|record| self.now(record)).collect())
    }

    async fn logs(&self, key: &InstanceKey, options: LogOptions) -> Result<LogLines, DeployError> {
        let record = self.find(key)?;
        output::lines(&self.shared.journal.log(&record.instance.id), options, record.process).await
    }

    async fn exec(&self, key: &InstanceKey, command: &ExecCommand) -> Result<ExecEvents, DeployError> {
        let record = self.find(key)?;
        match self.now(&record).state {
            InstanceState::Running => exec::run(&record, command, &self.shared.ending),
            state => Err(DeployError::NotRunning { key: key.clone(), state }),
        }
    }

    async fn commands_ended(&self) {
        self.shared.ending.wait().await;
    }

    async fn stats(&self, key: &InstanceKey) -> Result<InstanceStats, DeployError> {
        let record = self.find(key)?;
        let usage = || record.process.and_then(ProcessId::usage);
        let Some((before, _)) = usage() else { return Ok(InstanceStats::default()) };
        tokio::time::sleep(STATS_WINDOW).await;
        let Some((after, memory_bytes)) = usage() else { return Ok(InstanceStats::default()) };
        let seconds = after.saturating_sub(before) as f64 / TICKS_PER_SECOND;
        Ok(InstanceStats { cpus: seconds / STATS_WINDOW.as_secs_f64(), memory_bytes, memory_limit_bytes: None })
    }
}
