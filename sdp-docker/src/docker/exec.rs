//! Commands that are run in containers.
//!
//! The engine starts them and tells how they exited, and has no way to end one. A variable of their own marks them, which
//! what they start inherits; so they are found again, from within the container, which needs no right on this machine
//! but a shell in the image, or else from this machine.

use async_trait::async_trait;
use bollard::{
    exec::{CreateExecOptions, StartExecResults},
    models::ExecInspectResponse,
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use sdp_core::{DeployError, ExecEvent, ExecEvents, LogLine, LogStream, Probe, problem::chain};
use tokio::runtime::Handle;

use super::{
    LOOK_AGAIN,
    engine::{self, Engine},
    output,
};
use crate::{
    command::{self, CANNOT_RUN, Command, NO_PROGRAM},
    marked,
};

const ACTION: &str = "run a command in a container";

/// How often it is looked whether a command has ended that was told to.
const LOOKS: usize = 50;

/// How the engine begins to say, on the command's standard output, that it could not start it.
const NOT_STARTED: &str = "OCI runtime exec failed: ";

impl Engine {
    /// Runs a command in a container. To let the events go before the last one ends it.
    pub(crate) async fn exec(&self, container: &str, command: &[String]) -> Result<ExecEvents, DeployError> {
        let mark = marked::of_a_command();
        let id = self.create_exec(container, command, Some(&mark)).await?;
        let running = Running { engine: self.clone(), container: container.to_owned(), id, mark, has_exited: false };
        let lines = self.attached(&running.id).await?;
        Ok(command::events(Told { running, lines, is_first: true, not_started: None }))
    }

    /// Returns when the commands that were let go have ended, or cannot be ended.
    pub(crate) async fn commands_ended(&self) {
        self.ending.wait().await;
    }

    /// Runs a command in the container: its exit code decides.
    pub(crate) async fn check(&self, container: &str, command: &[String]) -> Result<Probe, DeployError> {
        let mut events = self.exec(container, command).await?;
        while let Some(event) = events.next().await {
            match event? {
                ExecEvent::Line(_) => {}
                ExecEvent::Exited(0) => return Ok(Probe::Healthy),
                ExecEvent::Exited(code) => {
                    return Ok(Probe::NotYet(format!("`{}` exited with {code}", command.join(" "))));
                }
            }
        }
        Ok(Probe::NotYet(format!("`{}` did not tell how it exited", command.join(" "))))
    }

    async fn create_exec(&self, id: &str, command: &[String], mark: Option<&str>) -> Result<String, DeployError> {
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            env: mark.map(|mark| vec![mark.to_owned()]),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        Ok(self.docker.create_exec(id, options).await.map_err(engine::failed(ACTION))?.id)
    }

    /// Starts a command; what it prints.
    async fn attached(&self, id: &str) -> Result<BoxStream<'static, Result<LogLine, DeployError>>, DeployError> {
        match self.docker.start_exec(id, None).await.map_err(engine::failed(ACTION))? {
            StartExecResults::Attached { output, .. } => Ok(output::lines(ACTION, output).boxed()),
            // Only who asks for it is answered so.
            StartExecResults::Detached => Ok(stream::empty().boxed()),
        }
    }

    async fn run_to_its_end(&self, container: &str, command: &[String]) -> Result<(), DeployError> {
        let id = self.create_exec(container, command, None).await?;
        let mut lines = self.attached(&id).await?;
        while lines.next().await.transpose()?.is_some() {}
        Ok(())
    }

    async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse, DeployError> {
        self.patiently(|| self.docker.inspect_exec(id)).await.map_err(engine::failed("tell of a command"))
    }
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
    container: String,
    id: String,
    mark: String,
    has_exited: bool,
}

impl Running {
    /// Whether there ever was a process of it.
    async fn has_begun(&self) -> Result<bool, DeployError> {
        Ok(self.engine.inspect_exec(&self.id).await?.pid.unwrap_or(0) != 0)
    }

    /// Waits until it has exited: it may have closed its outputs before.
    async fn exit_code(&self) -> Result<i64, DeployError> {
        loop {
            if let Some(code) = self.engine.inspect_exec(&self.id).await?.exit_code {
                return Ok(code);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
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
            let (engine, container) = (self.engine.clone(), std::mem::take(&mut self.container));
            let end = end(engine, container, std::mem::take(&mut self.id), std::mem::take(&mut self.mark));
            self.engine.ending.spawn_on(end, &runtime);
        }
    }
}

/// Kills a command and what it has started.
async fn end(engine: Engine, container: String, id: String, mark: String) {
    // What is killed may have forked meanwhile.
    let script = format!(
        "i=0; while [ $i -lt 20 ]; do i=$((i+1)); found=; \
         for p in /proc/[0-9]*; do grep -qF '{mark}' \"$p/environ\" 2>/dev/null && kill -9 \"${{p#/proc/}}\" && found=1; done; \
         [ \"$found\" ] || exit 0; done"
    );
    let script = ["sh".to_owned(), "-c".to_owned(), script];
    for _ in 0..LOOKS {
        if let Err(error) = engine.run_to_its_end(&container, &script).await {
            // A container that is gone has taken it along.
            tracing::debug!(container, error = chain(&error), "a command was not looked for in its container");
        }
        let ended = async || match engine.inspect_exec(&id).await {
            Ok(command) => command.running != Some(true) && command.exit_code.is_some(),
            Err(error) => !matches!(error, DeployError::EngineAway { .. }),
        };
        if ended().await {
            return;
        }
        let mark = mark.clone();
        if tokio::task::spawn_blocking(move || marked::kill_marked(&mark, None)).await.is_err() || ended().await {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // One whose start was cut off never ran.
    if engine.inspect_exec(&id).await.is_ok_and(|command| command.running != Some(true)) {
        return;
    }
    tracing::warn!(container, mark, "a command that nobody waits for cannot be ended; it goes on in its container");
}
