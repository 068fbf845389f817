//! A daemon as a process, and the disk under it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use crate::Failed;

/// The size of a small disk, in KiB.
const DISK_KIB: usize = 2048;

/// What libfiu's preloaded libraries are called and where Debian has them.
const PRELOAD: &str = "/usr/lib/fiu/fiu_run_preload.so:/usr/lib/fiu/fiu_posix_preload.so";

/// The calls that a failing disk refuses, as libfiu names them, and how often. Not `write`: tokio wakes
/// its threads with it, and a kernel that refuses that is not a disk that fails.
const FAULTS: [(&str, f64); 3] =
    [("posix/io/sync/fdatasync", 0.3), ("posix/io/sync/fsync", 0.3), ("posix/io/rw/pwrite", 0.1)];

/// How long a daemon has to take an order of libfiu's.
const ORDER: Duration = Duration::from_secs(10);

/// The server or the agent. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    program: PathBuf,
    role: &'static str,
    config: PathBuf,
    /// Where its small disk is mounted, which only the daemon sees.
    disk: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn start(
        program: &Path,
        role: &'static str,
        config: &Path,
        disk: Option<PathBuf>,
    ) -> Result<Self, Failed> {
        if disk.is_some() && !PRELOAD.split(':').all(|library| Path::new(library).exists()) {
            return Err(Failed("libfiu is not installed; .ci/setup does that (Debian package fiu-utils)".into()));
        }
        let child = spawn(program, role, config, disk.as_deref())?;
        Ok(Self { child, program: program.into(), role, config: config.into(), disk })
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Result<String, Failed> {
        Ok(fs::read_to_string(self.config.with_extension("log"))?)
    }

    /// Kills it and starts it again at once.
    pub(crate) fn restart(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.program, self.role, &self.config, self.disk.as_deref())?;
        Ok(())
    }

    /// Where others find a path that may be on its disk.
    pub(crate) fn sees(&self, path: &Path) -> PathBuf {
        match &self.disk {
            Some(disk) if path.starts_with(disk) => {
                let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
                root.join(path.strip_prefix("/").unwrap_or(path))
            }
            _ => path.to_owned(),
        }
    }

    /// Leaves no room on its disk.
    pub(crate) fn fill_disk(&self) -> Result<(), Failed> {
        let mut filler = File::create(self.filler()?)?;
        // Down to the last byte.
        for size in [64 * 1024, 1024, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    pub(crate) fn empty_disk(&self) -> Result<(), Failed> {
        Ok(fs::remove_file(self.filler()?)?)
    }

    fn filler(&self) -> Result<PathBuf, Failed> {
        let disk = self.disk.as_ref().ok_or_else(|| Failed("it has no disk of its own".into()))?;
        Ok(self.sees(&disk.join("filler")))
    }

    /// Lets some of what it writes and syncs fail from now on, or no more.
    pub(crate) async fn fail_disk(&self, fails: bool) -> Result<(), Failed> {
        for (name, probability) in FAULTS {
            let order = match fails {
                // 5 is EIO.
                true => format!("enable_random name={name},probability={probability},failinfo=5"),
                false => format!("disable name={name}"),
            };
            let mut control = tokio::process::Command::new("fiu-ctrl");
            control.arg("-f").arg(self.config.with_extension("fiu")).args(["-c", &order]);
            let status = control.arg(self.child.id().to_string()).kill_on_drop(true).status();
            // It waits for ever for a process that is gone.
            match tokio::time::timeout(ORDER, status).await {
                Ok(Ok(status)) if status.success() => {}
                _ => return Err(Failed(format!("the {} did not take the order {order:?}", self.role))),
            }
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(program: &Path, role: &str, config: &Path, disk: Option<&Path>) -> Result<Child, Failed> {
    let log = File::options().create(true).append(true).open(config.with_extension("log"))?;
    let mut command = match disk {
        None => Command::new(program),
        Some(disk) => {
            // In a mount namespace of its own, which ends with it.
            let mount = format!("mount -t tmpfs -o size={DISK_KIB}k tmpfs \"$0\" && exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]).arg(disk).arg("env");
            command.arg(format!("LD_PRELOAD={PRELOAD}"));
            command.arg(format!("FIU_CTRL_FIFO={}", config.with_extension("fiu").display())).arg(program);
            command
        }
    };
    Ok(command.arg(role).arg(config).stderr(log).spawn()?)
}
