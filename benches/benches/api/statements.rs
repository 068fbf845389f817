//! Reads and durable writes, beside the same statements without a control plane around them, and beside PocketBase.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command},
    time::Duration,
};

use sdp_benches::agent::Agent;
use sdp_core::{Deployment, DeploymentId, DeploymentState, InstanceKey};
use sdp_server::Store;
use serde_json::{Value, json};

use super::{
    client::{Measured, load, request},
    pocketbase::PocketBase,
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

/// PocketBase with the same in it.
struct Peer {
    server: PocketBase,
    templates: Vec<String>,
    last: String,
}

impl Peer {
    async fn start(templates: &[Value], deployments: &[Deployment]) -> Option<Self> {
        let mut peer = Self { server: PocketBase::start().await?, templates: Vec::new(), last: String::new() };
        for template in templates {
            peer.templates.push(peer.server.template(template).await);
        }
        for deployment in deployments {
            peer.last = peer.server.deployment(deployment).await;
        }
        peer.server.as_user().await;
        Some(peer)
    }

    fn template(&self) -> Side {
        self.get(&self.templates[0])
    }

    fn deployment(&self) -> Side {
        self.get(&self.last)
    }

    fn list(&self) -> Side {
        self.get("/api/collections/deployments/records?perPage=50&sort=-created&skipTotal=1")
    }

    fn change(&self, body: &str) -> Side {
        self.side(self.templates.iter().map(|path| self.server.request("PATCH", path, body)).collect())
    }

    fn get(&self, path: &str) -> Side {
        self.side(vec![self.server.request("GET", path, ""); CONNECTIONS])
    }

    fn side(&self, requests: Vec<Vec<u8>>) -> Side {
        Side { name: "pocketbase", address: self.server.address, requests }
    }
}

/// One of the servers, and what it is asked.
struct Side {
    name: &'static str,
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
}

pub(crate) async fn run() {
    let (server, tokens) = Server::start(&["bench".to_owned()]).await;
    let mut agent = Agent::greet(server.address, "bench", &tokens[0]).await;
    let user = agent.sign_in(server.address).await;
    let data = server.dir.path().join("data");
    let store = Store::open(&data.join("sdp.db")).unwrap();
    let deployments: Vec<_> = (0..DEPLOYMENTS).map(deployment).collect();
    for deployment in &deployments {
        store.insert_deployment(deployment).await.unwrap();
    }
    drop(store);
    let template = json!({ "services": [{ "repo": "bench", "branch": "main", "env": { "LOG_LEVEL": "debug" } }] });
    let templates = (0..CONNECTIONS).map(|number| {
        let mut named = template.clone();
        named["name"] = format!("t{number}").into();
        named
    });
    let templates: Vec<_> = templates.collect();
    for template in &templates {
        let post = sdp_benches::agent::client().post(format!("http://{}/api/templates", server.address));
        post.bearer_auth(&user).json(template).send().await.unwrap().error_for_status().unwrap();
    }
    let backup = server.dir.path().join("bare");
    sdp_server::backup::create(&data, &backup).unwrap();
    let bare = Bare::start(&backup.join("sdp.db"));
    let peer = Peer::start(&templates, &deployments).await;

    println!(
        "{CONNECTIONS} connections; requests a second, what the slowest hundredth took, and how many times as fast sdp is:"
    );
    let body = template.to_string();
    let last = format!("/api/deployments/{}", deployments[DEPLOYMENTS - 1].id);
    let same = |path: &str| vec![request("GET", path, &user, ""); CONNECTIONS];
    let puts = (0..CONNECTIONS).map(|number| request("PUT", &format!("/api/templates/t{number}"), &user, &body));
    for (what, times, requests, theirs) in [
        ("GET /api/templates/NAME", 500, same("/api/templates/t0"), peer.as_ref().map(Peer::template)),
        ("GET /api/deployments/ID", 500, same(&last), peer.as_ref().map(Peer::deployment)),
        ("GET /api/deployments, 50 of 1000", 60, same("/api/deployments"), peer.as_ref().map(Peer::list)),
        ("PUT /api/templates/NAME", 200, puts.collect(), peer.as_ref().map(|peer| peer.change(&body))),
    ] {
        let mut sides = vec![
            Side { name: "sdp", address: server.address, requests: requests.clone() },
            Side { name: "axum+rusqlite", address: bare.address, requests },
        ];
        sides.extend(theirs);
        let mut measured = vec![Vec::new(); sides.len()];
        // The first one warms up.
        for round in 0..=ROUNDS {
            for (side, measured) in sides.iter().zip(&mut measured) {
                let one = load(side.address, side.requests.clone(), times).await;
                if round > 0 {
                    measured.push(one);
                }
            }
        }
        println!("  {what}");
        for (side, theirs) in sides.iter().zip(&measured) {
            tell(side.name, &measured[0], theirs);
        }
    }
    if peer.is_none() {
        println!("pocketbase: not measured, it is not installed");
    }
}

fn tell(name: &str, ours: &[Measured], theirs: &[Measured]) {
    let speed = |measured: &[Measured]| {
        let mut speeds: Vec<_> = measured.iter().map(|it| it.per_second).collect();
        speeds.sort_by(f64::total_cmp);
        speeds[speeds.len() / 2]
    };
    let p99 = sdp_benches::median(theirs.iter().map(|it| it.percentile(99)).collect()).as_secs_f64() * 1e3;
    let (ours, theirs) = (speed(ours), speed(theirs));
    println!("    {name:<14} {theirs:>7.0}/s   p99 {p99:>7.2} ms   {:>6.2} x", ours / theirs);
}

fn deployment(number: usize) -> Deployment {
    Deployment {
        id: DeploymentId::new(),
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
