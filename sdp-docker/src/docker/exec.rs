//! Commands that are run in containers.
//!
//! The engine starts them and tells how they exited. How they are ended is told in [`ending`](super::ending).

use async_trait::async_trait;
use bollard::{
    errors::Error,
    exec::{CreateExecOptions, StartExecResults},
    models::ExecInspectResponse,
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use sdp_core::{DeployError, ExecEvent, ExecEvents, InstanceKey, InstanceState, LogLine, LogStream, Probe};
use tokio::runtime::Handle;

use super::{
    LOOK_AGAIN, ending,
    engine::{self, Engine},
    found::state_of,
    output,
};
use crate::{
    command::{self, CANNOT_RUN, Command, NO_PROGRAM},
    marked,
};

const ACTION: &str = "run a command in a container";

/// How the engine begins to say, on the command's standard output, that it could not start it.
const NOT_STARTED: &str = "OCI runtime exec failed: ";

impl Engine {
    /// Runs a command in a container of `key`. To let the events go before the last one ends it.
    pub(crate) async fn exec(
        &self,
        key: &InstanceKey,
        container: &str,
        command: &[String],
    ) -> Result<ExecEvents, DeployError> {
        let mark = marked::of_a_command();
        let place = Place { key: key.clone(), container: container.to_owned() };
        let id = match self.create_exec(container, command, Some(&mark)).await {
            Ok(id) => id,
            Err(error) => return Err(self.why(&place, error).await),
        };
        let running = Running { engine: self.clone(), place, id, mark, has_exited: false };
        let lines = match self.attached(&running.id).await {
            Ok(lines) => lines,
            Err(error) => return Err(self.why(&running.place, error).await),
        };
        Ok(command::events(Told { running, lines, is_first: true, not_started: None }))
    }

    /// Runs a command in the container: its exit code decides.
    pub(crate) async fn check(
        &self,
        key: &InstanceKey,
        container: &str,
        command: &[String],
    ) -> Result<Probe, DeployError> {
        match self.run(key, container, command).await {
            Ok(Some(0)) => Ok(Probe::Healthy),
            Ok(Some(code)) => Ok(Probe::NotYet(format!("`{}` exited with {code}", command.join(" ")))),
            Ok(None) => Ok(Probe::NotYet(format!("`{}` did not tell how it exited", command.join(" ")))),
            // The next look at it tells how it has ended.
            Err(DeployError::NotRunning { state, .. }) => Ok(Probe::NotYet(format!("its container is {state}"))),
            Err(error) => Err(error),
        }
    }

    async fn run(&self, key: &InstanceKey, container: &str, command: &[String]) -> Result<Option<i64>, DeployError> {
        let mut events = self.exec(key, container, command).await?;
        while let Some(event) = events.next().await {
            if let ExecEvent::Exited(code) = event? {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    pub(super) async fn create_exec(&self, id: &str, command: &[String], mark: Option<&str>) -> Result<String, Error> {
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            env: mark.map(|mark| vec![mark.to_owned()]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        Ok(self.docker.create_exec(id, options).await?.id)
    }

    /// Starts a command; what it prints.
    pub(super) async fn attached(&self, id: &str) -> Result<BoxStream<'static, Result<LogLine, DeployError>>, Error> {
        match self.docker.start_exec(id, None).await? {
            StartExecResults::Attached { output, .. } => Ok(output::lines(ACTION, output).boxed()),
            // Only who asks for it is answered so.
            StartExecResults::Detached => Ok(stream::empty().boxed()),
        }
    }

    pub(super) async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse, Error> {
        self.patiently(|| self.docker.inspect_exec(id)).await
    }

    /// Why the engine refuses: mostly, as the container has ended or is gone.
    async fn why(&self, place: &Place, error: Error) -> DeployError {
        if engine::is_not_found(&error) || engine::is_conflict(&error) {
            let key = place.key.clone();
            match self.inspect(&place.container).await {
                Ok(None) => return DeployError::NotFound { key },
                Ok(Some(found)) => match state_of(&found.state.unwrap_or_default()) {
                    InstanceState::Running => {}
                    state => return DeployError::NotRunning { key, state },
                },
                Err(error) => return error,
            }
        }
        engine::failed(ACTION)(error)
    }
}

/// Where a command runs.
struct Place {
    key: InstanceKey,
    container: String,
}

/// What a command has told and will tell.
struct Told {
    running: Running,
    lines: BoxStream<'static, Result<LogLine, DeployError>>,
    is_first: bool,
    /// The exit code of one that could not be started.
    not_started: Option<i64>,
}

#[async_trait]
impl Command for Told {
    async fn next(&mut self) -> Result<ExecEvent, DeployError> {
        let Some(line) = self.lines.next().await else { return self.exited().await.map(ExecEvent::Exited) };
        let mut line = line?;
        // The program itself may print such a line.
        if std::mem::take(&mut self.is_first) && line.line.starts_with(NOT_STARTED) && !self.running.has_begun().await?
        {
            let is_absent =
                ["executable file not found", "no such file or directory"].iter().any(|it| line.line.contains(it));
            self.not_started = Some(if is_absent { NO_PROGRAM } else { CANNOT_RUN });
            line.stream = LogStream::Stderr;
        }
        Ok(ExecEvent::Line(line))
    }
}

impl Told {
    async fn exited(&mut self) -> Result<i64, DeployError> {
        let code = match self.not_started {
            Some(code) => code,
            None => self.running.exit_code().await?,
        };
        self.running.has_exited = true;
        Ok(code)
    }
}

/// A command that is ended when this is dropped, unless it has exited.
struct Running {
    engine: Engine,
    place: Place,
    id: String,
    mark: String,
    has_exited: bool,
}

impl Running {
    /// Whether there ever was a process of it.
    async fn has_begun(&self) -> Result<bool, DeployError> {
        loop {
            let told = self.inspect().await?;
            // What it prints may come before the engine tells of its process.
            match (told.pid.unwrap_or(0), told.exit_code) {
                (0, None) => tokio::time::sleep(LOOK_AGAIN).await,
                (0, Some(code)) => return Ok(![CANNOT_RUN, NO_PROGRAM].contains(&code)),
                _ => return Ok(true),
            }
        }
    }

    /// Waits until it has exited: it may have closed its outputs before.
    async fn exit_code(&self) -> Result<i64, DeployError> {
        loop {
            if let Some(code) = self.inspect().await?.exit_code {
                return Ok(code);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn inspect(&self) -> Result<ExecInspectResponse, DeployError> {
        match self.engine.inspect_exec(&self.id).await {
            Ok(told) => Ok(told),
            Err(error) => Err(self.engine.why(&self.place, error).await),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_exited {
            return;
        }
        // Without a runtime, the whole process ends.
        if let Ok(runtime) = Handle::try_current() {
            let take = std::mem::take::<String>;
            let (container, id, mark) = (take(&mut self.place.container), take(&mut self.id), take(&mut self.mark));
            let engine = self.engine.clone();
            self.engine.ending.spawn_on(ending::end(engine, container, id, mark), &runtime);
        }
    }
}
