//! Running a command on the host: its own process group, output line by line, ended whole.

use std::{
    collections::BTreeMap,
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use sdp_core::{DeployError, EventKind, EventSink, LogStream, SinkError, Stage, model::units::format_duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use super::last_lines::LastLines;

/// Longer lines are split: a line is what a person reads and what the log indexes by.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// How much of a longer line waits for what comes after it. No form of a secret is longer.
const KEPT_BYTES: usize = 4 * 1024;
/// How long a group may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// How long the pipes may stay open after the group was killed.
const DRAIN_GRACE: Duration = Duration::from_secs(2);

/// The agent's own variables that commands get; everything else of its environment stays with it.
const PASSED_ON: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GOPATH",
    "GOCACHE",
    "GOMODCACHE",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOFLAGS",
    "COMPOSER_HOME",
    "COMPOSER_CACHE_DIR",
    "COMPOSER_ALLOW_SUPERUSER",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The agent's own variables that commands get.
pub(crate) fn base_env() -> BTreeMap<String, String> {
    PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// A command to run.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) argv: &'a [String],
    pub(super) dir: &'a Path,
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout: Duration,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed { outcome: String, last_lines: Vec<String> },
}

/// A process group that is killed when this is dropped, whatever became of its leader.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn spawn(step: &Step<'_>) -> Result<(Child, Group), DeployError> {
    let Some((program, args)) = step.argv.split_first() else {
        return Err(DeployError::Io {
            action: "run an empty command".into(),
            source: io::ErrorKind::InvalidInput.into(),
        });
    };
    let child = Command::new(program)
        .args(args)
        .current_dir(step.dir)
        .env_clear()
        .envs(&step.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied if step.dir.is_dir() => DeployError::Tool {
                tool: program.clone(),
                cure: "install it, or correct the repo's `build` command, or the agent's PATH".into(),
            },
            _ => DeployError::Io { action: format!("run {program} in {}", step.dir.display()), source },
        })?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok((child, Group(pid)))
}

/// Runs a command and tells its output to `sink`, which slows the command down when it has to.
pub(super) async fn run(
    step: Step<'_>,
    sink: &dyn EventSink,
    cancel: &CancellationToken,
) -> Result<Outcome, DeployError> {
    sink.accept(EventKind::note(Stage::Build, format!("$ {}", step.argv.join(" ")))).await?;
    let (mut child, group) = spawn(&step)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let last_lines = LastLines::default();
    let pumps = async {
        tokio::try_join!(
            pump(stdout, LogStream::Stdout, sink, &last_lines),
            pump(stderr, LogStream::Stderr, sink, &last_lines)
        )
    };
    tokio::pin!(pumps);
    let mut pumped = false;
    let ended = tokio::select! {
        status = child.wait() => Ok(status),
        done = &mut pumps => {
            done?;
            pumped = true;
            // The output has ended; the command may still run, with its streams closed.
            tokio::select! {
                status = child.wait() => Ok(status),
                () = cancel.cancelled() => Err(DeployError::Cancelled),
                () = tokio::time::sleep(step.timeout) => Err(too_long(&step)),
            }
        }
        () = cancel.cancelled() => Err(DeployError::Cancelled),
        () = tokio::time::sleep(step.timeout) => Err(too_long(&step)),
    };
    if ended.is_err() {
        group.signal(Signal::TERM);
        let _ = tokio::time::timeout(TERM_GRACE, child.wait()).await;
    }
    // Whatever it left behind in its group ends now, and with it the other ends of the pipes.
    drop(group);
    let _ = child.wait().await;
    if !pumped && let Ok(done) = tokio::time::timeout(DRAIN_GRACE, &mut pumps).await {
        done?;
    }
    let status = ended?.map_err(|source| DeployError::Io { action: format!("wait for {}", step.argv[0]), source })?;
    if status.success() {
        return Ok(Outcome::Done);
    }
    Ok(Outcome::Failed { outcome: describe(status), last_lines: last_lines.quoted() })
}

/// Runs a short command and answers what it writes to its standard output, trimmed.
pub(super) async fn capture(step: Step<'_>, cancel: &CancellationToken) -> Result<String, DeployError> {
    let (child, group) = spawn(&step)?;
    let output = tokio::select! {
        output = child.wait_with_output() => output,
        () = cancel.cancelled() => return Err(DeployError::Cancelled),
        () = tokio::time::sleep(step.timeout) => return Err(too_long(&step)),
    };
    drop(group);
    let failed = |source| DeployError::Io { action: format!("run {}", step.argv.join(" ")), source };
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let last_lines = LastLines::default();
    String::from_utf8_lossy(&output.stderr).lines().for_each(|line| last_lines.push(LogStream::Stderr, line));
    let outcome = describe(output.status);
    Err(DeployError::Build { command: step.argv.join(" "), outcome, last_lines: last_lines.quoted() })
}

fn too_long(step: &Step<'_>) -> DeployError {
    DeployError::Timeout { what: format!("`{}`", step.argv.join(" ")), limit: format_duration(step.timeout) }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".into(),
    }
}

/// Reads lines until the end of the stream, and tells each.
async fn pump(
    stream: Option<impl AsyncRead + Unpin>,
    name: LogStream,
    sink: &dyn EventSink,
    last_lines: &LastLines,
) -> Result<(), SinkError> {
    let Some(stream) = stream else { return Ok(()) };
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut line = Vec::new();
    loop {
        // A pipe that breaks is one that has ended.
        let chunk = reader.fill_buf().await.unwrap_or_default();
        if chunk.is_empty() {
            if !line.is_empty() {
                tell(&line, name, sink, last_lines).await?;
            }
            return Ok(());
        }
        let room = MAX_LINE_BYTES + KEPT_BYTES - line.len();
        let end = chunk.iter().take(room).position(|byte| *byte == b'\n');
        let taken = end.map_or(chunk.len().min(room), |at| at + 1);
        line.extend_from_slice(&chunk[..end.unwrap_or(taken)]);
        reader.consume(taken);
        if end.is_some() {
            tell(&line, name, sink, last_lines).await?;
            line.clear();
        } else if line.len() == MAX_LINE_BYTES + KEPT_BYTES {
            let begin = split(&mut line, sink);
            tell(&begin, name, sink, last_lines).await?;
        }
    }
}

/// Takes the beginning of a line that is too long to wait for its end. No secret is cut by it: one that is there as a
/// whole is masked before, and one that is not begins in what stays.
fn split(line: &mut Vec<u8>, sink: &dyn EventSink) -> Vec<u8> {
    // The rest of a character may be still to come.
    let begun = line.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    let character = line.split_off(line.len() - begun);
    let mut text = sink.masked(String::from_utf8_lossy(line)).into_owned();
    let rest = text.split_off(text.floor_char_boundary(text.len().saturating_sub(KEPT_BYTES)));
    *line = [rest.as_bytes(), &character].concat();
    text.into_bytes()
}

async fn tell(line: &[u8], stream: LogStream, sink: &dyn EventSink, last_lines: &LastLines) -> Result<(), SinkError> {
    // Before it is cut.
    let line = sink.masked(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))).into_owned();
    last_lines.push(stream, &line);
    sink.accept(EventKind::Log { stage: Stage::Build, stream, line }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        borrow::Cow,
        sync::atomic::{AtomicU64, Ordering},
    };

    use async_trait::async_trait;
    use sdp_core::testing::MemorySink;

    use super::*;

    async fn sh(script: &str, sink: &dyn EventSink, cancel: &CancellationToken) -> Result<Outcome, DeployError> {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let timeout = Duration::from_secs(60);
        run(Step { argv: &argv, dir: Path::new("/"), env: base_env(), timeout }, sink, cancel).await
    }

    /// The processes whose command line has `mark`.
    fn processes(mark: &str) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(mark)).collect()
    }

    #[tokio::test]
    async fn output_is_told_line_by_line_whatever_its_bytes() {
        let sink = MemorySink::default();
        let script = r"printf 'one\r\ntwo\n\377\376\n'; head -c 40000 /dev/zero | tr '\0' x; printf 'end'";
        assert_eq!(sh(script, &sink, &CancellationToken::new()).await.unwrap(), Outcome::Done);
        let lines = sink.lines();
        assert_eq!(&lines[1..4], ["one", "two", "\u{fffd}\u{fffd}"]);
        assert_eq!(lines[4].len() + lines[5].len() + lines[6].len(), 40_003, "a long line is split, nothing is lost");
    }

    const SECRET: &str = "correct-horse-battery-staple";

    #[derive(Debug, Default)]
    struct MaskingSink(MemorySink);

    #[async_trait]
    impl EventSink for MaskingSink {
        async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
            self.0.accept(kind).await
        }

        fn masked<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
            text.replace(SECRET, "*").into()
        }
    }

    #[tokio::test]
    async fn a_secret_is_masked_also_where_a_long_line_is_split() {
        for before in [0, 490, 12_280, 16_370, 16_384, 20_470, 32_760, 40_950] {
            let sink = MaskingSink::default();
            let fill = |count: u32| format!("head -c {count} /dev/zero | tr '\\0' x");
            let script = format!("{}; printf {SECRET}; {}; exit 1", fill(before), fill(30_000));
            let Outcome::Failed { last_lines, .. } = sh(&script, &sink, &CancellationToken::new()).await.unwrap()
            else {
                panic!("it fails")
            };
            let told = sink.0.lines()[1..].concat();
            let wanted = format!("{}*{}", "x".repeat(before as usize), "x".repeat(30_000));
            assert!(told == wanted, "{before}: {} bytes", told.len());
            assert!(last_lines.iter().all(|line| line.chars().all(|c| "x*".contains(c))), "{before}: {last_lines:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_tells_the_exit_code_and_the_last_lines() {
        let sink = MemorySink::default();
        let outcome = sh("seq 100; exit 7", &sink, &CancellationToken::new()).await.unwrap();
        let last_lines = (91..=100).map(|n| n.to_string()).collect();
        assert_eq!(outcome, Outcome::Failed { outcome: "exited with 7".into(), last_lines });
    }

    #[tokio::test]
    async fn a_cancelled_command_is_ended_with_everything_it_started() {
        let mark = format!("86{:05}", std::process::id());
        let sink = MemorySink::default();
        let cancel = CancellationToken::new();
        // One ignores SIGTERM, one is in the background.
        let script = format!("trap '' TERM; sleep {mark} & sh -c 'trap \"\" TERM; echo up; sleep {mark}' ; wait");
        let stop = async {
            while !sink.lines().contains(&"up".to_owned()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(!processes(&mark).is_empty());
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(sh(&script, &sink, &cancel), stop);
        assert!(matches!(ended, Err(DeployError::Cancelled)), "{ended:?}");
        for _ in 0..200 {
            if processes(&format!("sleep {mark}")).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still there: {:?}", processes(&mark));
    }

    #[tokio::test]
    async fn a_command_past_its_time_is_ended_and_told() {
        let argv = ["sleep", "600"].map(str::to_owned);
        let step = Step { argv: &argv, dir: Path::new("/"), env: base_env(), timeout: Duration::from_millis(50) };
        let error = run(step, &MemorySink::default(), &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "`sleep 600` took longer than 50ms");
    }

    #[tokio::test]
    async fn a_child_left_behind_with_the_pipe_open_does_not_keep_the_build() {
        let mark = format!("87{:05}", std::process::id());
        let script = format!("sleep {mark} & echo done");
        let ended = tokio::time::timeout(Duration::from_secs(30), async {
            sh(&script, &MemorySink::default(), &CancellationToken::new()).await
        });
        assert_eq!(ended.await.expect("it returns").unwrap(), Outcome::Done);
        assert!(processes(&format!("sleep {mark}")).is_empty());
    }

    #[tokio::test]
    async fn a_missing_tool_is_named_with_its_cure() {
        let argv = ["no-such-tool-here".to_owned()];
        let step = Step { argv: &argv, dir: Path::new("/"), env: base_env(), timeout: Duration::from_secs(1) };
        let error = run(step, &MemorySink::default(), &CancellationToken::new()).await.unwrap_err();
        assert!(matches!(&error, DeployError::Tool { tool, .. } if tool == "no-such-tool-here"), "{error}");
    }

    #[derive(Debug, Default)]
    struct CountingSink {
        lines: AtomicU64,
        bytes: AtomicU64,
    }

    #[async_trait]
    impl EventSink for CountingSink {
        async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
            if let EventKind::Log { line, .. } = kind {
                self.bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
            }
            Ok(self.lines.fetch_add(1, Ordering::Relaxed) + 1)
        }
    }

    #[tokio::test]
    async fn a_hundred_megabytes_of_output_pass_through() {
        let sink = CountingSink::default();
        let line = "x".repeat(99);
        let script = format!("yes {line} | head -c 100000000");
        assert_eq!(sh(&script, &sink, &CancellationToken::new()).await.unwrap(), Outcome::Done);
        assert_eq!(sink.lines.into_inner(), 1_000_001, "the command and its lines");
        assert!(sink.bytes.into_inner() >= 99_000_000);
    }
}
