//! Processes found again by a variable of their environment, which their children inherit: what an
//! agent that died had no time to write down.

use std::{fs, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use sdp_core::DeploymentId;

/// The variable that holds the id of the deployment that a process belongs to.
pub(crate) const MARK: &str = "SDP_DEPLOYMENT";

/// How often it is looked for more: a process may fork while others are being killed, and on a busy
/// machine the killed take their time to go.
const PASSES: usize = 1000;
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Kills every process of the deployment but those of the process group `keep`.
pub(crate) fn kill(deployment: DeploymentId, keep: Option<i32>) {
    for _ in 0..PASSES {
        let found = find(deployment, keep);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::warn!(%deployment, "some of its processes cannot be killed");
}

fn find(deployment: DeploymentId, keep: Option<i32>) -> Vec<Pid> {
    let mark = format!("{MARK}={deployment}").into_bytes();
    let carries = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = processes.filter(|process| carries(process)).filter_map(|process| {
        let pid: i32 = process.file_name()?.to_str()?.parse().ok()?;
        Some((pid, group(&process)?))
    });
    ours.filter(|(_, group)| Some(*group) != keep).filter_map(|(pid, _)| Pid::from_raw(pid)).collect()
}

/// A living process's group, the third field after its name in `/proc/<pid>/stat`.
fn group(process: &Path) -> Option<i32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(1)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt,
        process::{Child, Command},
    };

    use super::*;

    fn sleeper(deployment: DeploymentId) -> Child {
        // Its own child, in a session of its own, has the mark too.
        let script = "setsid sleep 600 & echo; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(MARK, deployment.to_string()).process_group(0);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        // One byte says that it has begun.
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut [0]).unwrap();
        child
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
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
            until("the child in a session of its own", || find(id, None).len() == 2);
        }
        kill(gone, None);
        assert!(find(gone, None).is_empty());
        assert!(!first.wait().unwrap().success());

        let group = i32::try_from(other.id()).unwrap();
        kill(stays, Some(group));
        until("its shell to end with the child it waited for", || find(stays, None).is_empty());
        assert!(other.wait().unwrap().success());
    }
}
