//! Looking at a daemon as another user of its machine would.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

/// A user and a group that have nothing: `nobody`.
const NOBODY: u32 = 65_534;

/// A command that runs a copy of `program`, which it puts into `dir`, as a user who is not root: root may look into
/// every process, so that nothing is to be seen of who else may. `dir` and what is in it is that user's then.
///
/// # Errors
/// When the copy cannot be made.
pub fn unprivileged(program: &Path, dir: &Path) -> io::Result<Command> {
    if fs::metadata("/proc/self/stat")?.uid() != 0 {
        return Ok(Command::new(program));
    }
    let copy = dir.join("program");
    fs::copy(program, &copy)?;
    give(dir)?;
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY).current_dir(dir);
    Ok(command)
}

fn give(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path())?;
        }
    }
    chown(path, Some(NOBODY), Some(NOBODY))
}

/// Whether the system dumps no core of a process of [`unprivileged`], and lets nobody but root look into it.
///
/// # Errors
/// When there is no such process.
pub fn memory_is_private(pid: u32) -> io::Result<bool> {
    let process = Path::new("/proc").join(pid.to_string());
    // The folder is its user's; what is in it is root's if the process may not be looked into.
    let (user, memory) = (fs::metadata(&process)?.uid(), fs::metadata(process.join("mem"))?.uid());
    Ok(user != memory && memory == 0)
}
