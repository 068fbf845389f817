//! Processes found again by a variable of their environment, which their children inherit: what an
//! agent that died had no time to write down.

use std::{fs, io, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use sdp_core::DeploymentId;
use uuid::Uuid;

/// The variable that holds the id of the deployment that a process belongs to.
pub(crate) const MARK: &str = "SDP_DEPLOYMENT";

/// The variable that tells what a command started that somebody runs in an instance.
const COMMAND_MARK: &str = "SDP_COMMAND";

/// How often it is looked for more: a process may fork while others are being killed, and on a busy
/// machine the killed take their time to go.
const PASSES: usize = 1000;
/// How often one is looked at again whose environment cannot be told: for ever is for those that have
/// none.
const DOUBTFUL_PASSES: usize = 50;
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What a look at all processes comes to.
#[derive(Debug, Default)]
struct Look {
    /// Those that carry the mark.
    found: Vec<Pid>,
    /// Whether there are others of which it is not known yet.
    doubtful: bool,
}

/// Kills every process of the deployment but those of the process group `keep`.
pub(crate) fn kill(deployment: DeploymentId, keep: Option<i32>) {
    kill_marked(&of_deployment(deployment), keep);
}

fn of_deployment(deployment: DeploymentId) -> String {
    format!("{MARK}={deployment}")
}

/// The mark of a command that somebody runs in an instance: no other has the same.
pub(crate) fn of_a_command() -> String {
    format!("{COMMAND_MARK}={}", Uuid::now_v7())
}

/// What every such mark begins with.
pub(crate) fn of_any_command() -> String {
    format!("{COMMAND_MARK}=")
}

/// The mark of a process of this machine that a command is, as far as that may be seen.
pub(crate) fn command_of(pid: i64) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let mark = variables.find(|variable| variable.starts_with(of_any_command().as_bytes()))?;
    String::from_utf8(mark.to_vec()).ok()
}

/// Kills every process with this variable but those of the process group `keep`. Whether there was any.
pub(crate) fn kill_marked(mark: &str, keep: Option<i32>) -> bool {
    let (mut doubts, mut found) = (0, false);
    for _ in 0..PASSES {
        let look = look(mark, keep);
        if look.found.is_empty() {
            doubts += 1;
            if !look.doubtful || doubts > DOUBTFUL_PASSES {
                return found;
            }
        }
        found |= !look.found.is_empty();
        for pid in look.found {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::warn!(mark, "some of its processes cannot be killed");
    found
}

fn look(mark: &str, keep: Option<i32>) -> Look {
    let own = (std::process::id().to_string(), fs::read_link("/proc/self/exe").ok());
    let mut look = Look::default();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Some(name) = process.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(pid) = name.parse().ok().and_then(Pid::from_raw) else { continue };
        let environment = match fs::read(process.join("environ")) {
            Ok(environment) => environment,
            // One of ours that nobody may look into is about to become another program: a fork of an agent.
            Err(error) => {
                look.doubtful |= error.kind() == io::ErrorKind::PermissionDenied && may_be_ours(&process);
                continue;
            }
        };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let group = group(&process);
            look.found.extend(group.filter(|group| Some(*group) != keep).map(|_| pid));
            continue;
        }
        // In the middle of an exec it has no environment; before it, between fork and exec, that of
        // the agent that died, and one thread, which no other agent of this machine has. Neither is so
        // of threads of the kernel, which have no program.
        let program = fs::read_link(process.join("exe")).ok();
        let may_be_forked = || name != own.0 && program == own.1 && threads(&process) == Some(1);
        look.doubtful |= program.is_some() && (environment.is_empty() || may_be_forked());
    }
    look
}

/// Whether a process has one thread and runs as this one's user.
fn may_be_ours(process: &Path) -> bool {
    let Ok(status) = fs::read_to_string(process.join("status")) else { return false };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    field("Threads:") == Some("1") && field("Uid:") == Some(&rustix::process::getuid().as_raw().to_string())
}

/// A living process's group.
fn group(process: &Path) -> Option<i32> {
    living(process, 2)
}

/// How many threads a living process has.
fn threads(process: &Path) -> Option<i32> {
    living(process, 17)
}

/// The number at this place after a living process's name in `/proc/<pid>/stat`; its state has place 0.
fn living(process: &Path, place: usize) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(place.checked_sub(1)?)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Child, Command, Stdio},
    };

    use super::*;

    fn sleeper(deployment: DeploymentId) -> Child {
        // Its own child, in a session of its own, has the mark too.
        let script = "setsid sleep 600 & echo; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(MARK, deployment.to_string()).process_group(0);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // One byte says that it has begun.
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut [0]).unwrap();
        child
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..2000 {
            if holds() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("waited in vain for {what}");
    }

    #[test]
    fn what_carries_the_mark_is_killed_wherever_it_went_and_nothing_else_is() {
        let (gone, stays) = (DeploymentId::new(), DeploymentId::new());
        let (mut first, mut other) = (sleeper(gone), sleeper(stays));
        for id in [gone, stays] {
            until("the child in a session of its own", || look(&of_deployment(id), None).found.len() == 2);
        }
        kill(gone, None);
        assert!(look(&of_deployment(gone), None).found.is_empty());
        assert!(!first.wait().unwrap().success());

        let group = i32::try_from(other.id()).unwrap();
        kill(stays, Some(group));
        until("its shell to end with the child it waited for", || look(&of_deployment(stays), None).found.is_empty());
        assert!(other.wait().unwrap().success());
    }

    #[test]
    fn what_is_in_the_middle_of_an_exec_is_killed_too() {
        for _ in 0..50 {
            let deployment = DeploymentId::new();
            let mut command = Command::new("sh");
            command.args(["-c", "echo; read go; exec sleep 60"]).env(MARK, deployment.to_string());
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
            kill(deployment, None);
            until("its end", || child.try_wait().unwrap().is_some_and(|status| status.signal() == Some(9)));
        }
    }

    #[test]
    fn another_process_of_the_same_program_is_no_fork_of_it() {
        // What a test runs in is not its process's only thread.
        assert!(threads(Path::new("/proc/self")).unwrap() > 1);
        let deployment = DeploymentId::new();
        let mut child = sleeper(deployment);
        assert_eq!(threads(Path::new(&format!("/proc/{}", child.id()))), Some(1));
        kill(deployment, None);
        child.wait().unwrap();
        assert_eq!(threads(Path::new(&format!("/proc/{}", child.id()))), None, "it lives no more");
    }

    #[test]
    fn what_has_no_environment_is_looked_at_again() {
        let mut child = Command::new("sleep").arg("60").env_clear().spawn().unwrap();
        // Its exec is over when it has a name of its own.
        let name = format!("/proc/{}/comm", child.id());
        until("the exec", || fs::read_to_string(&name).unwrap() == "sleep\n");
        let look = look(&of_deployment(DeploymentId::new()), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(look.doubtful && look.found.is_empty(), "{look:?}");
    }
}
