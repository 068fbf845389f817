//! The control plane as a process, and what it takes of the machine.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use sdp_server::Store;
use secrecy::ExposeSecret;
use tempfile::TempDir;

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) ready_after: Duration,
    config: PathBuf,
    pub(crate) dir: TempDir,
}

impl Server {
    /// A server with these agents enrolled; answers their tokens too.
    pub(crate) async fn start(agents: &[String]) -> (Self, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (config, data_dir) = (dir.path().join("server.toml"), dir.path().join("data"));
        fs::create_dir_all(data_dir.join("logs")).unwrap();
        fs::write(&config, format!("listen = \"{address}\"\ndata_dir = {data_dir:?}\n")).unwrap();
        let mut tokens = Vec::new();
        let store = Store::open(&data_dir.join("sdp.db")).unwrap();
        for name in agents {
            let token = sdp_server::auth::enrol(&store, &name.parse().unwrap()).await.unwrap();
            tokens.push(token.expose_secret().to_owned());
        }
        drop(store);
        let (child, ready_after) = spawn(&config, address);
        (Self { child, address, ready_after, config, dir }, tokens)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("data/logs")
    }

    /// Kills it and starts it again at once.
    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.ready_after) = spawn(&self.config, self.address);
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts it, and how long it took until it listened.
fn spawn(config: &Path, address: SocketAddr) -> (Child, Duration) {
    let began = Instant::now();
    let child = Command::new(std::env::current_exe().unwrap()).arg("server").arg(config).spawn().unwrap();
    while TcpStream::connect(address).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the server did not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
    (child, began.elapsed())
}
