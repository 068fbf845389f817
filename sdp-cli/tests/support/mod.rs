//! The command with a home of its own, in pipes and on a terminal.

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How wide the terminal is.
pub(crate) const COLUMNS: usize = 100;

/// What does not come within this does not come.
const PATIENCE: Duration = Duration::from_secs(120);

/// Somebody's home.
pub(crate) struct Home(TempDir);

/// A command that was not run yet.
pub(crate) struct Run {
    command: Command,
    line: String,
    input: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn sdp(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", self.0.path()).args(arguments);
        Run { command, line: format!("sdp {}", arguments.join(" ")), input: String::new() }
    }

    /// Nobody else can read these, and this is in none of them.
    pub(crate) fn is_private(&self, files: &[&str], secret: &str) {
        for file in files {
            let path = self.0.path().join(".config/sdp").join(file);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file}");
            assert!(!std::fs::read_to_string(path).unwrap().contains(secret), "{file}");
        }
    }
}

impl Run {
    pub(crate) fn given(mut self, input: &str) -> Self {
        self.input = input.into();
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn run(mut self) -> (Output, String) {
        let piped = self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.input.as_bytes()).unwrap();
        (child.wait_with_output().unwrap(), self.line)
    }

    /// It goes well, and prints this.
    pub(crate) fn done(self) -> String {
        let (output, line) = self.run();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {}: {told}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// It goes well, and prints one value.
    pub(crate) fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// It fails with this code, prints nothing, and says why.
    pub(crate) fn fails(self, code: i32) -> String {
        let (printed, told) = self.fails_with_output(code);
        assert_eq!(printed, "", "{told}");
        told
    }

    /// It fails with this code; what it printed, and what it says.
    pub(crate) fn fails_with_output(self, code: i32) -> (String, String) {
        let line = self.line.clone();
        let (printed, told) = self.exits(code);
        assert!(!told.is_empty(), "{line} says nothing");
        (printed, told)
    }

    /// It exits with this code; what it writes to standard output, and to standard error.
    pub(crate) fn exits(self, code: i32) -> (String, String) {
        let (output, line) = self.run();
        let (printed, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{line}: {printed}{told}");
        (printed, told)
    }
}

/// The command on a terminal, which `script` makes.
pub(crate) struct Terminal {
    child: Child,
    output: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    pub(crate) fn start(home: &Home, dir: &Path, arguments: &[&str]) -> Self {
        let quoted: Vec<_> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let line = format!("stty cols {COLUMNS} rows 40; exec '{}' {}", env!("CARGO_BIN_EXE_sdp"), quoted.join(" "));
        let mut command = Command::new("script");
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(dir);
        command.env_clear().env("PATH", path).env("HOME", home.0.path()).env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len) = stdout.read(&mut bytes) {
                if len == 0 || sender.send(bytes[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, output, shown: String::new() }
    }

    /// Waits until something is shown.
    pub(crate) fn until(&mut self, text: &str) {
        let began = Instant::now();
        while !self.shown.contains(text) {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let Ok(bytes) = self.output.recv_timeout(left) else { panic!("{text:?} is not shown: {:?}", self.shown) };
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).unwrap();
    }

    /// Waits for its end: the exit code, and all that was shown.
    pub(crate) fn end(mut self) -> (i32, String) {
        let began = Instant::now();
        loop {
            match self.output.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it does not end: {:?}", self.shown),
            }
        }
        let status = self.child.wait().unwrap();
        (status.code().unwrap(), std::mem::take(&mut self.shown).replace("\r\n", "\n"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process of this machine, but none of the command's own, has such an argument at its end.
pub(crate) fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.map(|process| std::fs::read(process.path().join("cmdline")).unwrap_or_default());
    lines.any(|line| line.starts_with(b"sh\0-c\0echo begun;") && line.ends_with(format!("{mark}\0").as_bytes()))
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many columns a line takes, without what colours it.
pub(crate) fn width(line: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(anstream::adapter::strip_str(line).to_string().as_str())
}

/// Runs git.
pub(crate) fn git(dir: &Path, arguments: &[&str]) {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
}
