//! A Docker engine of a test's own.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::cgroups;

const HOLDER: &str = include_str!("private_engine.sh");

/// How long an engine may take to answer after its start, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many engines can be linked.
const MACHINES: u8 = 200;
/// What the first engine's link to the others is called there, and the others' there.
const SWITCH: &str = "sdp-switch";
const CABLE: &str = "sdp-cable";

/// How an engine is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As for an upgrade: it stops its containers first.
    Gracefully,
    /// As by a crash: its containers go on until it is back.
    Abruptly,
}

/// A `dockerd` with files, network and processes of its own, beside the machine's engine.
///
/// It publishes ports in its own network: [`run`](Self::run) brings a test there, with everything the
/// test starts. Dropping it ends it and everything in it and removes its files, also after a panic;
/// its processes end with the test's process in any case. Starting one needs root.
#[derive(Debug)]
pub struct PrivateEngine {
    holder: Child,
    /// Where orders go and what they are answered with; taken when it is dropped.
    orders: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    network: Arc<File>,
    dir: TempDir,
    cgroup: String,
}

impl PrivateEngine {
    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When namespaces cannot be made, or the engine does not answer; its last lines are told.
    pub fn start() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sdp-engine-").tempdir()?;
        let cgroup = dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "bash", "-c", HOLDER]);
        command.arg("private_engine.sh").arg(dir.path()).arg(&cgroup);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = holder.stdin.take().zip(holder.stdout.take().map(BufReader::new));
        let (orders, mut answers) = pipes.ok_or_else(|| io::Error::other("the holder has no pipes"))?;
        let network = expect(&mut answers, "ready")
            .and_then(|()| File::open(format!("/proc/{}/ns/net", holder.id())))
            .inspect_err(|_| end(&mut holder))
            .map_err(|error| io::Error::other(format!("no namespaces for a private engine: {error}; it needs root")))?;
        let orders = Mutex::new(Some((orders, answers)));
        let engine = Self { holder, orders, network: Arc::new(network), dir, cgroup };
        engine.resume()?;
        Ok(engine)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Stops it and leaves it stopped.
    ///
    /// # Errors
    /// When its holder is gone.
    pub fn stop(&self, how: Stop) -> io::Result<()> {
        self.order(if how == Stop::Gracefully { "TERM" } else { "KILL" }, "stopped")
    }

    /// Starts it again after [`stop`](Self::stop), and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer; its last lines are told.
    pub fn resume(&self) -> io::Result<()> {
        self.order("start", "started")?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if answers(&self.socket()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other(format!("the private engine does not answer; its log ends with:\n{}", self.log_tail())))
    }

    /// Links engines as machines on one network, and answers their addresses in it, in order.
    ///
    /// # Errors
    /// When the kernel refuses, or they are linked already.
    pub fn link(engines: &[&Self]) -> io::Result<Vec<Ipv4Addr>> {
        let Some(first) = engines.first() else { return Ok(Vec::new()) };
        let switch = first.holder.id().to_string();
        ip(&first.holder, &["link", "add", SWITCH, "type", "bridge"])?;
        ip(&first.holder, &["link", "set", SWITCH, "up"])?;
        let mut addresses = Vec::new();
        for (engine, number) in engines.iter().zip(1..=MACHINES) {
            let address = Ipv4Addr::new(10, 230, 0, number);
            let (here, there) = if number == 1 {
                (SWITCH.to_owned(), None)
            } else {
                (CABLE.to_owned(), Some(format!("machine{number}")))
            };
            if let Some(there) = there {
                let peer = ["peer", "name", &there, "netns", &switch];
                ip(&engine.holder, &[&["link", "add", CABLE, "type", "veth"], &peer[..]].concat())?;
                ip(&first.holder, &["link", "set", &there, "master", SWITCH, "up"])?;
                ip(&engine.holder, &["link", "set", CABLE, "up"])?;
            }
            ip(&engine.holder, &["address", "add", &format!("{address}/24"), "dev", &here])?;
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Makes an image with a script that takes its name and a change for `docker import`.
    ///
    /// # Errors
    /// When the script fails.
    pub fn make_image(&self, script: &Path, image: &str) -> io::Result<()> {
        let host = format!("unix://{}", self.socket().display());
        let status = Command::new(script).args([image, "LABEL sdp.test=true"]).env("DOCKER_HOST", host).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{} failed: {status}", script.display()))) }
    }

    /// Runs work on threads that are in the engine's network, as is everything they start.
    ///
    /// # Panics
    /// As the work does, and when the network cannot be entered.
    pub fn run<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        let enter = {
            let network = Arc::clone(&self.network);
            move || {
                let entered = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
                entered.expect("the engine's network can be entered by root");
            }
        };
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                enter();
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                let runtime = builder.worker_threads(2).enable_all().on_thread_start(enter).build();
                runtime.expect("a runtime").block_on(work())
            });
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn order(&self, order: &str, answer: &str) -> io::Result<()> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (orders, answers) = orders.as_mut().ok_or_else(|| io::Error::other("the engine is gone"))?;
        writeln!(orders, "{order}")?;
        expect(answers, answer)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("dockerd.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        // The end of its input ends the holder, and with it all that is in its namespaces.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.holder.wait().ok();
        cgroups::remove(&self.cgroup);
    }
}

/// Changes the network of a holder.
fn ip(holder: &Child, args: &[&str]) -> io::Result<()> {
    let target = holder.id().to_string();
    let output = Command::new("nsenter").args(["--target", &target, "--net", "ip"]).args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", args.join(" "), said.trim())))
}

fn end(holder: &mut Child) {
    holder.kill().ok();
    holder.wait().ok();
}

fn expect(answers: &mut impl BufRead, wanted: &str) -> io::Result<()> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if line.trim_end() == wanted { Ok(()) } else { Err(io::Error::other(format!("{line:?} instead of {wanted:?}"))) }
}

fn answers(socket: &Path) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with("OK"))
}
