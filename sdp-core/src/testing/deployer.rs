//! A machine in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{
    deployer::{
        Artifact, DeployError, DeployJob, Deployer, ExecEvent, ExecEvents, LogLine, LogLines, LogOptions, Probe,
        Replacement,
    },
    events::EventSink,
    model::{
        command::ExecCommand,
        deployment::Stage,
        event::{EventKind, LogStream},
        ids::InstanceKey,
        instance::{Instance, InstanceState, InstanceStats},
        names::EnvName,
        repo::HealthProbe,
    },
};

/// How a [`MemoryDeployer`] behaves from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Everything works.
    #[default]
    Works,
    /// Builds fail.
    BuildFails,
    /// Builds wait until they are cancelled.
    BuildHangs,
    /// Starts wait until they are cancelled.
    StartHangs,
    /// Starts fail.
    StartFails,
    /// What is started exits at once.
    Crashes,
    /// What is started never becomes healthy.
    NeverHealthy,
    /// The previous instance cannot be put back.
    RevertFails,
    /// The engine is away. It takes what has not been settled down with it.
    EngineAway,
    /// The engine does not tell what runs, and does not refuse either.
    EngineHangs,
}

/// What becomes of a command that is run in a [`MemoryDeployer`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// What it prints.
    pub lines: Vec<LogLine>,
    /// What it exits with; without, it goes on until it is let go.
    pub exit_code: Option<i64>,
}

/// A [`Deployer`] that runs nothing. Clones share their machine; nothing survives the process.
///
/// ```
/// use sdp_core::testing::{Behaviour, MemoryDeployer};
/// let deployer = MemoryDeployer::default();
/// deployer.behave(Behaviour::NeverHealthy);
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryDeployer {
    machine: Arc<Mutex<Machine>>,
}

#[derive(Debug, Default)]
struct Machine {
    behaviour: Behaviour,
    instances: Vec<Running>,
    made: u64,
    builds: u64,
    reloads: u64,
    /// By program.
    programs: BTreeMap<String, Ran>,
    /// Those that have not exited, by number.
    commands: BTreeMap<u64, ExecCommand>,
    ran: u64,
}

/// A command that runs until this is dropped.
struct Command {
    deployer: MemoryDeployer,
    number: u64,
}

impl Drop for Command {
    fn drop(&mut self) {
        self.deployer.machine().commands.remove(&self.number);
    }
}

#[derive(Debug, Clone)]
struct Running {
    instance: Instance,
    behaviour: Behaviour,
    settled: bool,
    taken_down: bool,
    /// Besides its commit, all that a job may change of it.
    env: BTreeMap<EnvName, String>,
}

impl MemoryDeployer {
    /// Behaves so from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut machine = self.machine();
        machine.behaviour = behaviour;
        if behaviour == Behaviour::EngineAway {
            for running in machine.instances.iter_mut().filter(|running| !running.settled) {
                running.instance.state = InstanceState::Exited { exit_code: 137 };
                running.taken_down = true;
            }
        }
    }

    /// Lets what never became healthy do so.
    pub fn make_healthy(&self) {
        for running in &mut self.machine().instances {
            running.behaviour = Behaviour::Works;
        }
    }

    /// How many builds were begun.
    pub fn builds(&self) -> u64 {
        self.machine().builds
    }

    /// How often an instance was told to reload.
    pub fn reloads(&self) -> u64 {
        self.machine().reloads
    }

    /// Has a program that commands may run do so from now on. There are no others.
    pub fn has_program(&self, name: impl Into<String>, does: Ran) {
        self.machine().programs.insert(name.into(), does);
    }

    /// The commands that run now.
    pub fn commands(&self) -> Vec<ExecCommand> {
        self.machine().commands.values().cloned().collect()
    }

    /// What answers its port now: running and not parked.
    pub fn answering(&self) -> Vec<Instance> {
        let machine = self.machine();
        let instances = machine.instances.iter().map(|running| running.instance.clone());
        instances.filter(|instance| !instance.parked && instance.state == InstanceState::Running).collect()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    fn engine(&self, action: &str) -> Result<(), DeployError> {
        match self.behaviour {
            Behaviour::EngineAway => {
                Err(DeployError::EngineAway { action: action.to_owned(), source: "connection refused".into() })
            }
            _ => Ok(()),
        }
    }

    fn find(&mut self, key: &InstanceKey) -> Result<&mut Running, DeployError> {
        let mut current = self.instances.iter_mut().filter(|running| !running.instance.parked);
        current.find(|running| running.instance.key == *key).ok_or_else(|| DeployError::NotFound { key: key.clone() })
    }

    fn by_id(&mut self, id: &str) -> Option<&mut Running> {
        self.instances.iter_mut().find(|running| running.instance.id == id)
    }
}

#[async_trait]
impl Deployer for MemoryDeployer {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn build(
        &self,
        job: &DeployJob,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Artifact, DeployError> {
        let behaviour = {
            let mut machine = self.machine();
            machine.builds += 1;
            machine.behaviour
        };
        let line = format!("building {}", job.repo.name);
        sink.accept(EventKind::Log { stage: Stage::Build, stream: LogStream::Stdout, line: line.clone() }).await?;
        if behaviour == Behaviour::BuildHangs {
            cancel.cancelled().await;
        }
        if cancel.is_cancelled() {
            return Err(DeployError::Cancelled);
        }
        if behaviour == Behaviour::BuildFails {
            let outcome = "exited with 1".to_owned();
            return Err(DeployError::Build { command: "build".into(), outcome, last_lines: vec![line] });
        }
        Ok(Artifact { path: None, reused: false })
    }

    async fn unchanged(&self, job: &DeployJob, _artifact: &Artifact) -> Result<Option<Instance>, DeployError> {
        let mut machine = self.machine();
        machine.engine("list containers")?;
        let current = machine.find(&job.key).ok().filter(|running| {
            let instance = &running.instance;
            instance.state == InstanceState::Running
                && (&instance.branch, &instance.commit) == (&job.checkout.branch, &job.checkout.commit)
                && running.env == job.env
        });
        Ok(current.map(|running| running.instance.clone()))
    }

    async fn start(
        &self,
        job: &DeployJob,
        _artifact: &Artifact,
        _sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Result<Replacement, DeployError> {
        if self.machine().behaviour == Behaviour::StartHangs {
            cancel.cancelled().await;
        }
        if cancel.is_cancelled() {
            return Err(DeployError::Cancelled);
        }
        let mut machine = self.machine();
        machine.engine("start a container")?;
        let name = job.key.container_name();
        for running in &machine.instances {
            let held = &running.instance;
            if held.key != job.key && held.host_port == job.host_port {
                let holder = format!("{} ({})", held.key, held.name);
                return Err(DeployError::PortTaken { port: job.host_port, holder });
            }
            if held.key != job.key && held.name == name {
                return Err(DeployError::NameTaken { name, holder: held.key.to_string() });
            }
        }
        if machine.behaviour == Behaviour::StartFails {
            let source = "this double was told to fail".into();
            return Err(DeployError::Start { name, last_lines: Vec::new(), source });
        }
        machine.instances.retain(|running| running.instance.key != job.key || !running.instance.parked);
        let previous = machine.find(&job.key).ok().map(|running| {
            running.instance.parked = true;
            running.instance.clone()
        });
        let beside = previous
            .as_ref()
            .is_some_and(|previous| previous.state == InstanceState::Running && previous.host_port != job.host_port);
        machine.made += 1;
        let behaviour = machine.behaviour;
        let current = Instance {
            key: job.key.clone(),
            id: format!("memory-{}", machine.made),
            name,
            deployment: job.deployment,
            branch: job.checkout.branch.clone(),
            commit: job.checkout.commit.clone(),
            host_port: job.host_port,
            host: None,
            state: match behaviour {
                Behaviour::Crashes => InstanceState::Exited { exit_code: 3 },
                _ => InstanceState::Running,
            },
            started_at: Some(Timestamp::now()),
            restarts: 0,
            parked: false,
        };
        let (instance, env) = (current.clone(), job.env.clone());
        machine.instances.push(Running { instance, behaviour, settled: false, taken_down: false, env });
        Ok(Replacement { current, previous, beside })
    }

    async fn probe(&self, instance: &Instance, _probe: &HealthProbe) -> Result<Probe, DeployError> {
        let mut machine = self.machine();
        machine.engine("list containers")?;
        let running = machine.by_id(&instance.id);
        let running = running.ok_or_else(|| DeployError::NotFound { key: instance.key.clone() })?;
        if std::mem::take(&mut running.taken_down) {
            return Ok(Probe::TakenDown);
        }
        Ok(match (&running.instance.state, running.behaviour) {
            (InstanceState::Exited { exit_code }, _) => {
                Probe::Dead { exit_code: *exit_code, last_lines: vec!["panic: told to crash".into()] }
            }
            (_, Behaviour::NeverHealthy) => Probe::NotYet("it was told not to become healthy".into()),
            _ => Probe::Healthy,
        })
    }

    async fn settle(&self, replacement: &Replacement) -> Result<(), DeployError> {
        let key = &replacement.current.key;
        let mut machine = self.machine();
        machine.engine("remove a container")?;
        let previous = replacement.previous.as_ref().map(|previous| &previous.id);
        machine.instances.retain(|running| {
            let it = &running.instance;
            it.key != *key || !it.parked || Some(&it.id) != previous
        });
        if let Some(running) = machine.by_id(&replacement.current.id) {
            running.settled = true;
        }
        Ok(())
    }

    async fn retire(&self, parked: &Instance) -> Result<(), DeployError> {
        let mut machine = self.machine();
        machine.engine("remove a container")?;
        machine.instances.retain(|running| running.instance.id != parked.id || !running.instance.parked);
        Ok(())
    }

    async fn revert(&self, replacement: &Replacement) -> Result<bool, DeployError> {
        let mut machine = self.machine();
        machine.engine("remove a container")?;
        machine.instances.retain(|running| running.instance.id != replacement.current.id);
        let Some(previous) = &replacement.previous else { return Ok(false) };
        if machine.behaviour == Behaviour::RevertFails {
            let (name, source) = (previous.name.clone(), "this double was told to fail".into());
            return Err(DeployError::Start { name, last_lines: Vec::new(), source });
        }
        Ok(machine.by_id(&previous.id).map(|running| running.instance.parked = false).is_some())
    }

    async fn stop(&self, key: &InstanceKey) -> Result<(), DeployError> {
        self.machine().find(key)?.instance.state = InstanceState::Exited { exit_code: 0 };
        Ok(())
    }

    async fn restart(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let mut machine = self.machine();
        machine.engine("start a container")?;
        let running = machine.find(key)?;
        running.instance.state = InstanceState::Running;
        running.instance.started_at = Some(Timestamp::now());
        Ok(())
    }

    async fn reload(&self, key: &InstanceKey) -> Result<(), DeployError> {
        let mut machine = self.machine();
        machine.find(key)?;
        machine.reloads += 1;
        Ok(())
    }

    async fn remove(&self, key: &InstanceKey) -> Result<(), DeployError> {
        self.machine().instances.retain(|running| running.instance.key != *key);
        Ok(())
    }

    async fn inspect(&self, key: &InstanceKey) -> Result<Instance, DeployError> {
        self.machine().find(key).map(|running| running.instance.clone())
    }

    async fn list(&self) -> Result<Vec<Instance>, DeployError> {
        if self.machine().behaviour == Behaviour::EngineHangs {
            std::future::pending::<()>().await;
        }
        let mut all: BTreeMap<_, _> = BTreeMap::new();
        let machine = self.machine();
        machine.engine("list containers")?;
        for running in &machine.instances {
            let instance = running.instance.clone();
            all.insert((instance.key.clone(), instance.parked), instance);
        }
        Ok(all.into_values().collect())
    }

    async fn logs(&self, key: &InstanceKey, options: LogOptions) -> Result<LogLines, DeployError> {
        let instance = self.inspect(key).await?;
        let lines = ["starting".to_owned(), format!("{} listens on {}", instance.name, instance.host_port)];
        let skip = options.tail.map_or(0, |tail| lines.len().saturating_sub(tail as usize));
        let lines = lines.into_iter().skip(skip).map(|line| Ok(LogLine { stream: LogStream::Stdout, line }));
        Ok(stream::iter(lines.collect::<Vec<_>>()).boxed())
    }

    async fn exec(&self, key: &InstanceKey, command: &ExecCommand) -> Result<ExecEvents, DeployError> {
        let mut machine = self.machine();
        machine.engine("run a command in a container")?;
        let state = machine.find(key)?.instance.state.clone();
        if state != InstanceState::Running {
            return Err(DeployError::NotRunning { key: key.clone(), state });
        }
        let Ran { lines, exit_code } = machine.programs.get(command.program()).cloned().unwrap_or_else(|| {
            let line = format!("{}: not found", command.program());
            Ran { lines: vec![LogLine { stream: LogStream::Stderr, line }], exit_code: Some(127) }
        });
        machine.ran += 1;
        let running = Command { deployer: self.clone(), number: machine.ran };
        machine.commands.insert(running.number, command.clone());
        let lines = stream::iter(lines.into_iter().map(ExecEvent::Line));
        let exit = stream::once(async move {
            let code = match exit_code {
                Some(code) => code,
                None => std::future::pending().await,
            };
            drop(running);
            ExecEvent::Exited(code)
        });
        Ok(lines.chain(exit).map(Ok).boxed())
    }

    async fn end_left_commands(&self) -> Result<(), DeployError> {
        self.machine().commands.clear();
        Ok(())
    }

    async fn stats(&self, key: &InstanceKey) -> Result<InstanceStats, DeployError> {
        self.inspect(key).await.map(|_| InstanceStats { cpus: 0.1, memory_bytes: 1 << 20, memory_limit_bytes: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::ids::DeploymentId,
        testing::conformance::deployer::{JobFixture, Program, Wanted, suite},
    };

    struct Fixture {
        deployer: MemoryDeployer,
    }

    #[async_trait]
    impl JobFixture for Fixture {
        fn deployer(&self) -> &dyn Deployer {
            &self.deployer
        }

        fn another_port(&self) -> crate::HostPort {
            crate::HostPort::new(20_003).unwrap()
        }

        fn command(&self, wanted: Wanted) -> ExecCommand {
            let line = |stream, text: &str| LogLine { stream, line: text.into() };
            let both = vec![line(LogStream::Stdout, "out"), line(LogStream::Stderr, "err")];
            self.deployer.has_program("both", Ran { lines: both, exit_code: Some(3) });
            let begun = vec![line(LogStream::Stdout, "begun")];
            self.deployer.has_program("hang", Ran { lines: begun, exit_code: None });
            let program = match wanted {
                Wanted::PrintsAndFails => "both",
                Wanted::IsAbsent => "absent",
                Wanted::Hangs => "hang",
            };
            ExecCommand::new([program.to_owned(), DeploymentId::new().to_string()]).unwrap()
        }

        async fn runs(&self, command: &ExecCommand) -> bool {
            self.deployer.commands().contains(command)
        }

        async fn job(&self, repo: &str, program: Program) -> DeployJob {
            self.deployer.behave(match program {
                Program::Healthy => Behaviour::Works,
                Program::BuildFails => Behaviour::BuildFails,
                Program::BuildHangs => Behaviour::BuildHangs,
                Program::Crashes => Behaviour::Crashes,
                Program::NeverHealthy => Behaviour::NeverHealthy,
            });
            let key = InstanceKey::quick(repo.parse().unwrap());
            let spec = serde_json::json!({"name": repo, "path": "/memory", "remote": "x", "recipe": "command"});
            let port = if repo == "two" { 20_002 } else { 20_001 };
            DeployJob {
                deployment: DeploymentId::new(),
                key,
                repo: serde_json::from_value(spec).unwrap(),
                checkout: crate::Checkout {
                    path: "/memory".into(),
                    branch: "main".parse().unwrap(),
                    commit: "0".repeat(40).parse().unwrap(),
                    tree: "0".repeat(40),
                },
                host_port: crate::HostPort::new(port).unwrap(),
                env: BTreeMap::new(),
            }
        }
    }

    #[tokio::test]
    async fn the_double_keeps_the_contract() {
        suite(&Fixture { deployer: MemoryDeployer::default() }).await;
    }
}
