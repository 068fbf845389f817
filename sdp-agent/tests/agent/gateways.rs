//! Gateways: the shared one, and those that sandboxes bring.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use sdp_core::{
    DeploymentState, ErrorCode, HostPort, InstanceKey, Override, OverrideKind, OwnGateways, RouteChanges, RouteError,
    RouteQuestion, RouteStore, SandboxName,
    protocol::{ReplyBody, RequestBody},
    testing::{MemoryDeployer, MemoryRepos, MemoryRoutes},
};

use crate::support::*;

const CONFIG: &str = "[[repo]]\nname = 'gateway'\npath = '/x'\nremote = 'https://g/x.git'\nrecipe = 'php'\n\
    [gateway]\nrepo = 'gateway'\nconfig = 'config.php'\nper_request = true\n";

/// Makes a gateway in memory for each sandbox that is asked for.
#[derive(Debug, Clone, Default)]
struct Own(Arc<Mutex<BTreeMap<SandboxName, MemoryRoutes>>>);

impl OwnGateways for Own {
    fn routes_of(&self, sandbox: &SandboxName) -> Result<Arc<dyn RouteStore>, RouteError> {
        let mut made = self.0.lock().unwrap();
        assert!(!made.contains_key(sandbox), "it is kept");
        let routes = MemoryRoutes::new("main", [("eredar", "http://eredar.ocp.example")]);
        made.insert(sandbox.clone(), routes.clone());
        Ok(Arc::new(routes))
    }
}

fn pay() -> SandboxName {
    "pay".parse().unwrap()
}

fn to_pay() -> RouteChanges {
    let over = Override::new("http://127.0.0.1:9001".parse().unwrap(), OverrideKind::Sandbox, pay());
    let services = [("eredar".parse().unwrap(), Some(over))].into();
    RouteChanges { services, by: Some(pay()), ..RouteChanges::default() }
}

#[tokio::test]
async fn a_sandboxs_own_gateway_has_routes_of_its_own() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let repos = MemoryRepos::with_repo("gateway").branch("gateway", "main", &[]);
    let shared = MemoryRoutes::new("main", [("eredar", "http://eredar.ocp.example")]);
    let own = Own::default();
    let parts = parts(repos, MemoryDeployer::default());
    let parts = parts.routes(Arc::new(shared.clone())).own_gateways(Arc::new(own.clone()));
    let agent = sdp_agent::Agent::start_with(config(&server, dir.path(), CONFIG), parts).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    let inventory = &connection.hello().inventory;
    let gateway = inventory.gateway.clone().unwrap();
    assert!(gateway.per_request && gateway.own_gateways);
    assert_eq!(inventory.port_range.as_ref().unwrap().to_string(), "20000-29999");

    let key = InstanceKey::in_sandbox(pay(), "gateway".parse().unwrap());
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    let routes = own.0.lock().unwrap()[&pay()].clone();
    assert_eq!((routes.reloads(), shared.reloads()), (1, 0), "its routes were applied, and no other's");

    let sandbox = Some(pay());
    let apply = RequestBody::ApplyRoutes { changes: to_pay(), sandbox: sandbox.clone() };
    let Ok(ReplyBody::Routes { table }) = connection.call(apply).await else { panic!("no table") };
    assert_eq!(table.routes[0].value, "http://127.0.0.1:9001");
    assert_eq!(shared.file()["eredar"], "http://eredar.ocp.example");
    let read = RequestBody::Routes { sandbox: sandbox.clone() };
    assert_eq!(connection.call(read).await, Ok(ReplyBody::Routes { table }));

    let question = RouteQuestion { service: "eredar".parse().unwrap(), header: None, cookie: None, baggage: None };
    for (sandbox, target) in [(sandbox, "http://127.0.0.1:9001"), (None, "http://eredar.ocp.example")] {
        let explain = RequestBody::Explain { question: question.clone(), sandbox };
        let Ok(ReplyBody::Explanation { explanation }) = connection.call(explain).await else { panic!("no answer") };
        assert_eq!(explanation.target.as_deref(), Some(target));
    }

    // One of that name that comes later begins anew.
    assert_eq!(connection.call(RequestBody::Remove { key: key.clone() }).await, Ok(ReplyBody::Done));
    own.0.lock().unwrap().clear();
    let again = connection.deploy(&key, "main").await;
    connection.until_state(again, DeploymentState::Running).await;
    assert_eq!(own.0.lock().unwrap()[&pay()].file()["eredar"], "http://eredar.ocp.example");
    agent.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_lets_sandboxes_bring_none_says_so_and_touches_no_other() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let repos = MemoryRepos::with_repo("gateway").branch("gateway", "main", &[]);
    let shared = MemoryRoutes::new("main", [("eredar", "http://eredar.ocp.example")]);
    let parts = parts(repos, MemoryDeployer::default()).routes(Arc::new(shared.clone()));
    let agent = sdp_agent::Agent::start_with(config(&server, dir.path(), CONFIG), parts).unwrap();
    let mut connection = server.welcome(Log::new()).await;
    assert!(!connection.hello().inventory.gateway.as_ref().unwrap().own_gateways);
    let key = InstanceKey::in_sandbox(pay(), "gateway".parse().unwrap());
    let deployment = connection.deploy(&key, "main").await;
    connection.until_state(deployment, DeploymentState::Running).await;
    let apply = RequestBody::ApplyRoutes { changes: to_pay(), sandbox: Some(pay()) };
    let problem = connection.call(apply).await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::Unsupported);
    assert!(problem.detail.contains("pay"), "{problem}");
    assert_eq!((shared.reloads(), &*shared.file()["eredar"]), (0, "http://eredar.ocp.example"));
    agent.shutdown().await;
}

/// The port that a deployment of `request` comes to answer on.
async fn port_of(connection: &mut Connection, request: sdp_core::DeployRequest) -> HostPort {
    let deployment = request.deployment;
    let deploy = RequestBody::Deploy { request: Box::new(request), credentials: None };
    assert_eq!(connection.call(deploy).await, Ok(ReplyBody::Done));
    connection.until_state(deployment, DeploymentState::Running).await;
    let port = connection.log[&deployment].iter().find_map(|event| match &event.kind {
        sdp_core::EventKind::Endpoint { host_port, .. } => Some(*host_port),
        _ => None,
    });
    port.unwrap()
}

#[tokio::test]
async fn a_port_that_the_server_picked_is_taken_unless_a_stranger_has_it() {
    let (server, dir) = (Server::start().await, tempfile::tempdir().unwrap());
    let repos = MemoryRepos::with_repo("eredar").branch("eredar", "main", &[]);
    let agent = start(&server, dir.path(), parts(repos, MemoryDeployer::default()));
    let mut connection = server.welcome(Log::new()).await;
    // Below those that Linux gives to outgoing connections, and out of the agent's own range.
    let bound = |port: &u16| TcpListener::bind(("127.0.0.1", *port));
    let free = (30_000..32_000).find(|port| bound(port).is_ok()).unwrap();
    let wanted = |port: u16| {
        let picked_port = Some(port.try_into().unwrap());
        sdp_core::DeployRequest { picked_port, ..request(&quick("eredar"), "main") }
    };
    assert_eq!(port_of(&mut connection, wanted(free)).await.get(), free);
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = stranger.local_addr().unwrap().port();
    assert_ne!(port_of(&mut connection, wanted(taken)).await.get(), taken);
    agent.shutdown().await;
}
