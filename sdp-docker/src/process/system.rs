//! Processes of this machine: starting, finding, ending.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A process, told apart from a later one that was given the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pid: i32,
    /// In clock ticks since boot, from `/proc/<pid>/stat`.
    start_time: u64,
}

/// The fields of `/proc/<pid>/stat` after the program's name, which may hold anything: state first.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &text[text.rfind(')')? + 1..];
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

/// Starts a program in its own process group, with its output appended to `log`.
pub(crate) fn spawn(
    argv: &[String],
    dir: &Path,
    env: &BTreeMap<String, String>,
    log: &Path,
) -> io::Result<(Child, ProcessId)> {
    let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    if let Some(parent) = log.parent() {
        fs::create_dir_all(parent)?;
    }
    let output = File::options().create(true).append(true).open(log)?;
    let child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
    // Until it is waited for, even a dead child has its entry.
    let start_time = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok((child, ProcessId { pid, start_time }))
}

/// How a process exited: 128 and the signal's number after a signal.
pub(crate) fn exit_code(status: ExitStatus) -> i64 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1).into()
}

fn start_time(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

impl ProcessId {
    /// The process group that it leads.
    pub(crate) fn group(self) -> i32 {
        self.pid
    }

    /// Whether it runs: not ended, not a zombie, not another one of the same number.
    pub(crate) fn runs(self) -> bool {
        stat(self.pid).is_some_and(|fields| {
            fields.first().is_some_and(|state| state != "Z" && state != "X")
                && fields.get(19).and_then(|time| time.parse().ok()) == Some(self.start_time)
        })
    }

    /// Ends it and everything of its group: SIGTERM, and after `grace` SIGKILL.
    pub(crate) async fn end(self, grace: Duration) {
        let Some(group) = Pid::from_raw(self.pid) else { return };
        if self.runs() {
            let _ = kill_process_group(group, Signal::TERM);
            let ended = async {
                while self.runs() {
                    tokio::time::sleep(POLL).await;
                }
            };
            let _ = tokio::time::timeout(grace, ended).await;
        }
        if start_time(self.pid).is_none_or(|time| time == self.start_time) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        for _ in 0..500 {
            if !self.runs() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The processor time used so far in clock ticks, and the resident memory in bytes.
    pub(crate) fn usage(self) -> Option<(u64, u64)> {
        let fields = stat(self.pid)?;
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let pages = number(21)?;
        Some((number(11)? + number(12)?, pages * rustix::param::page_size() as u64))
    }
}
