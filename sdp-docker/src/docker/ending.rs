//! Ending commands in containers.
//!
//! The engine has no way to end one. A variable of their own marks them, which what they start inherits; so they are
//! found again, from within the container, which needs no right on this machine but a shell in the image, or else from
//! this machine. From within, what carries no mark is found by its parents: what another user runs tells nobody its
//! variables.

use std::{fs, time::Duration};

use futures_util::{StreamExt, stream};
use sdp_core::{DeployError, LogStream, problem::chain};

use super::{
    LOOK_AGAIN,
    engine::{self, Engine},
    found::Found,
};
use crate::marked;

const ACTION: &str = "end a command in a container";

/// How long a command may take to end that was told to.
const LIMIT: Duration = Duration::from_secs(60);

/// How often in a row nothing is found of a command that has not ended, until it is given up.
const LOOKS_IN_VAIN: usize = 10;

/// How many containers are looked into at once.
const AT_ONCE: usize = 8;

/// What the shell in a container says when it has killed something.
const KILLED: &str = "killed";

impl Engine {
    /// Returns when the commands that were let go have ended, or cannot be ended.
    pub(crate) async fn commands_ended(&self) {
        self.ending.wait().await;
    }

    /// Ends the commands that run in an owner's containers since the process has died that ran them.
    pub(crate) async fn end_left_commands(&self, owner: &str) -> Result<(), DeployError> {
        let containers = self.containers().await?.into_iter().filter(|found| found.running && found.is_of(owner));
        let looks = stream::iter(containers).for_each_concurrent(AT_ONCE, async |found| {
            if let Err(error) = self.end_left_in(&found).await {
                tracing::warn!(
                    container = found.name,
                    error = chain(&error),
                    "a command may still run that an earlier agent began"
                );
            }
        });
        let what = || "ending the commands that an earlier agent had begun".to_owned();
        let limit = || sdp_core::model::units::format_duration(LIMIT);
        tokio::time::timeout(LIMIT, looks).await.map_err(|_| DeployError::Timeout { what: what(), limit: limit() })
    }

    async fn end_left_in(&self, found: &Found) -> Result<(), DeployError> {
        let commands = self.inspect(&found.id).await?.and_then(|inspected| inspected.exec_ids).unwrap_or_default();
        // Also commands that others have begun, which carry no mark.
        let (mut runs, mut marks) = (false, Vec::new());
        for id in commands {
            let Ok(command) = self.inspect_exec(&id).await else { continue };
            if command.running == Some(true) {
                runs = true;
                marks.extend(command.pid.and_then(marked::command_of));
            }
        }
        if !runs {
            return Ok(());
        }
        let mut killed = self.kill_inside(&found.id, &marked::of_any_command(), None).await?;
        // Those that are seen from this machine: there may be no shell in the container.
        for mark in marks {
            killed |= tokio::task::spawn_blocking(move || marked::kill_marked(&mark, None)).await.unwrap_or(false);
        }
        if killed {
            tracing::warn!(container = found.name, "ended commands that an earlier agent had begun");
        }
        Ok(())
    }

    /// Kills, from within a container, what carries a mark, the process `root`, and what they have started. Whether there
    /// was any.
    async fn kill_inside(&self, container: &str, mark: &str, root: Option<u32>) -> Result<bool, DeployError> {
        let script = ["sh".to_owned(), "-c".to_owned(), script(mark, root)];
        let failed = engine::failed(ACTION);
        let id = self.create_exec(container, &script, None).await.map_err(&failed)?;
        let mut lines = self.attached(&id).await.map_err(&failed)?;
        let mut killed = false;
        while let Some(line) = lines.next().await.transpose()? {
            killed |= line.stream == LogStream::Stdout && line.line == KILLED;
        }
        Ok(killed)
    }
}

/// Ends a command and what it has started.
pub(super) async fn end(engine: Engine, container: String, id: String, mark: String) {
    if !tokio::time::timeout(LIMIT, kill(&engine, &container, &id, &mark)).await.unwrap_or(false) {
        tracing::warn!(container, mark, "a command that nobody waits for cannot be ended; it goes on in its container");
    }
}

/// Kills a command and what it has started; whether it has ended.
async fn kill(engine: &Engine, container: &str, id: &str, mark: &str) -> bool {
    let mut in_vain = 0;
    while in_vain < LOOKS_IN_VAIN {
        let root = match engine.inspect_exec(id).await {
            Ok(command) if command.running == Some(true) => command.pid.and_then(|pid| pid_inside(container, pid)),
            _ => None,
        };
        let mut found = match engine.kill_inside(container, mark, root).await {
            Ok(found) => found,
            Err(error) => {
                // A container that is gone has taken it along.
                tracing::debug!(container, error = chain(&error), "a command was not looked for in its container");
                false
            }
        };
        if has_ended(engine, id).await {
            return true;
        }
        let mark = mark.to_owned();
        found |= tokio::task::spawn_blocking(move || marked::kill_marked(&mark, None)).await.unwrap_or(false);
        if has_ended(engine, id).await {
            return true;
        }
        in_vain = if found { 0 } else { in_vain + 1 };
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // One whose start was cut off never ran.
    engine.inspect_exec(id).await.is_ok_and(|command| command.running != Some(true))
}

async fn has_ended(engine: &Engine, id: &str) -> bool {
    match engine.inspect_exec(id).await {
        Ok(command) => command.running != Some(true) && command.exit_code.is_some(),
        Err(error) => !matches!(engine::failed(ACTION)(error), DeployError::EngineAway { .. }),
    }
}

/// What a process of this machine is called in its container, if the engine's processes are seen from here.
fn pid_inside(container: &str, pid: i64) -> Option<u32> {
    let is_there = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?.contains(container);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
    // One alone is no process of a container.
    pids.next()?;
    pids.next_back()?.parse().ok().filter(|pid| is_there && *pid > 1)
}

/// For a shell in the container. What is killed may have forked meanwhile.
fn script(mark: &str, root: Option<u32>) -> String {
    let root = root.map(|root| root.to_string()).unwrap_or_default();
    format!(
        r#"i=0; while [ $i -lt 20 ]; do
i=$((i+1)); found=; todo=" "
[ $i = 1 ] && todo=" {root} "
for p in /proc/[0-9]*; do grep -qF '{mark}' "$p/environ" 2>/dev/null && todo="$todo${{p#/proc/}} "; done
more=1; while [ "$more" ]; do more=; for p in /proc/[0-9]*; do
  p=${{p#/proc/}}; case $todo in *" $p "*) continue;; esac
  read -r stat 2>/dev/null <"/proc/$p/stat" || continue
  set -- ${{stat##*) }}; [ "$1" != Z ] || continue
  case $todo in *" $2 "*) todo="$todo$p "; more=1;; esac
done; done
for p in $todo; do kill -9 "$p" 2>/dev/null && found=1; done
[ "$found" ] || exit 0
[ $i -gt 1 ] || echo {KILLED}
done"#
    )
}
