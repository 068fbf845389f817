//! Reads and durable writes, beside the same statements without a control plane around them.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    time::Duration,
};

use sdp_benches::agent::Agent;
use sdp_core::{Deployment, DeploymentId, DeploymentState, InstanceKey};
use sdp_server::Store;
use serde_json::json;

use super::{
    client::{Measured, load, request},
    process::Server,
};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
/// How much history there is.
const DEPLOYMENTS: usize = 1000;

/// One that is ended when it is dropped.
struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    /// Serves a copy of a server's database.
    fn start(database: &std::path::Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("bare").arg(database).arg(address.to_string()).spawn().unwrap();
        while TcpStream::connect(address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "the bare server did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, address }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) async fn run() {
    let (server, tokens) = Server::start(&["bench".to_owned()]).await;
    let mut agent = Agent::greet(server.address, "bench", &tokens[0]).await;
    let user = agent.sign_in(server.address).await;
    let data = server.dir.path().join("data");
    let store = Store::open(&data.join("sdp.db")).unwrap();
    let mut id = DeploymentId::new();
    for number in 0..DEPLOYMENTS {
        id = DeploymentId::new();
        store.insert_deployment(&deployment(id, number)).await.unwrap();
    }
    drop(store);
    let template = json!({ "services": [{ "repo": "bench", "branch": "main", "env": { "LOG_LEVEL": "debug" } }] });
    for number in 0..CONNECTIONS {
        let mut body = template.clone();
        body["name"] = format!("t{number}").into();
        let post = sdp_benches::agent::client().post(format!("http://{}/api/templates", server.address));
        post.bearer_auth(&user).json(&body).send().await.unwrap().error_for_status().unwrap();
    }
    let backup = server.dir.path().join("bare");
    sdp_server::backup::create(&data, &backup).unwrap();
    let bare = Bare::start(&backup.join("sdp.db"));

    println!("{CONNECTIONS} connections; requests a second, and what the slowest hundredth took:");
    let same = |method: &'static str, path: String, body: &str| vec![request(method, &path, &user, body); CONNECTIONS];
    let puts = || {
        let put = |number| request("PUT", &format!("/api/templates/t{number}"), &user, &template.to_string());
        (0..CONNECTIONS).map(put).collect()
    };
    for (what, requests, times) in [
        ("GET /api/templates/NAME", same("GET", "/api/templates/t0".into(), ""), 500),
        ("GET /api/deployments/ID", same("GET", format!("/api/deployments/{id}"), ""), 500),
        ("GET /api/deployments, 50 of 1000", same("GET", "/api/deployments".into(), ""), 60),
        ("PUT /api/templates/NAME", puts(), 200),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // The first one warms up.
        for round in 0..=ROUNDS {
            let (us, them) = (
                load(server.address, requests.clone(), times).await,
                load(bare.address, requests.clone(), times).await,
            );
            if round > 0 {
                ours.push(us);
                theirs.push(them);
            }
        }
        tell(what, &ours, &theirs);
    }
}

fn tell(what: &str, ours: &[Measured], theirs: &[Measured]) {
    let speed = |measured: &[Measured]| {
        let mut speeds: Vec<_> = measured.iter().map(|it| it.per_second).collect();
        speeds.sort_by(f64::total_cmp);
        speeds[speeds.len() / 2]
    };
    let p99 = |measured: &[Measured]| {
        sdp_benches::median(measured.iter().map(|it| it.percentile(99)).collect()).as_secs_f64() * 1e3
    };
    println!(
        "  {what:<34} sdp {:>7.0}/s {:>7.2} ms   axum+rusqlite {:>7.0}/s {:>7.2} ms   ratio {:.2}",
        speed(ours),
        p99(ours),
        speed(theirs),
        p99(theirs),
        speed(ours) / speed(theirs)
    );
}

fn deployment(id: DeploymentId, number: usize) -> Deployment {
    Deployment {
        id,
        key: InstanceKey::quick(format!("repo{}", number % 20).parse().unwrap()),
        branch: "feature/greeting".parse().unwrap(),
        commit: Some("178864a7d521b6f5e720b386b2c2b0ef8563e0dc".parse().unwrap()),
        agent: "bench".parse().unwrap(),
        state: DeploymentState::Stopped,
        failure: None,
        host_port: None,
        url: Some("http://127.0.0.1:20000/".into()),
        env: Default::default(),
        user: "ada".parse().unwrap(),
        created_at: jiff::Timestamp::now(),
        finished_at: None,
        rollback_of: None,
        stages: Vec::new(),
    }
}
