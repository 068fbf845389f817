//! Agents behind something that breaks WebSockets, on real sockets: they use plain HTTP, lose nothing,
//! and go back.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{sync::Arc, time::Duration};

use sdp_agent::{Agent, AgentConfig, LinkState, Parts};
use sdp_core::{
    Deployment, DeploymentState, Event, EventKind, LogStream, Transport, Verdict, api::CreateDeployment, config::Layers,
};
use sdp_examples::{
    api::Api,
    content::USER,
    middlebox::{Middlebox, Upgrades},
    ports::PortBlock,
};
use sdp_git::testing::GitHost;
use sdp_server::{Server, ServerConfig};
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;

const PASSWORD: &str = "a-password-of-the-tests";
const LINES: usize = 200;

struct Rig {
    server: Server,
    middlebox: Middlebox,
    agent: Agent,
    config: AgentConfig,
    git: GitHost,
    dir: TempDir,
    _ports: PortBlock,
}

impl Rig {
    async fn start(upgrades: Upgrades) -> Self {
        let (dir, ports) = (tempfile::tempdir().unwrap(), PortBlock::take().unwrap());
        let git = GitHost::start(&[(USER, PASSWORD)]).await.unwrap();
        git.create_repo("slow").await.unwrap();
        let script = format!("for i in $(seq {LINES}); do echo line $i; sleep 0.01; done\n");
        git.commit("slow", "main", None, &[("build.sh", script.as_bytes())], "slow").await.unwrap();

        let mut config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
        config.data_dir = dir.path().join("server");
        config.agents.ping = Duration::from_millis(500);
        let server = Server::bind(config).await.unwrap();
        let middlebox = Middlebox::start(server.local_addr()).await.unwrap();
        middlebox.upgrades(upgrades);

        let token = server.enrol(&"micro".parse().unwrap()).await.unwrap();
        let text = format!(
            "name = 'micro'\nserver = 'ws://{}/ws/agent'\ndata_dir = {:?}\nadvertise = '127.0.0.1'\n\
             [deployer]\nkind = 'process'\nport_range = '{}-{}'\n\
             [[repo]]\nname = 'slow'\npath = {:?}\nremote = '{}'\nrecipe = 'command'\nbuild = ['sh', 'build.sh']\n\
             run = ['sleep', '600']\nhealth = {{ command = ['true'] }}\n",
            middlebox.address(),
            dir.path().join("agent"),
            ports.services().start(),
            ports.services().end(),
            dir.path().join("slow"),
            git.url("slow"),
        );
        let env = vec![("SDP_AGENT__TOKEN".to_owned(), token.expose_secret().to_owned())];
        let config = AgentConfig::load(Layers::new().file("sdp-agent.toml", text), env, &[]).unwrap();
        let mut parts = Parts::real(&config).await.unwrap();
        parts.timing.first_pause = Duration::from_millis(20);
        parts.timing.longest_pause = Duration::from_millis(200);
        parts.timing.connect = Duration::from_secs(2);
        parts.timing.websocket_again = Duration::from_millis(300);
        let agent = Agent::start_with(config.clone(), parts).unwrap();
        Self { server, middlebox, agent, config, git, dir, _ports: ports }
    }

    async fn connected(&self, transport: Transport) {
        let mut link = self.agent.link();
        let wanted =
            |state: &LinkState| matches!(state, LinkState::Connected { transport: it, .. } if *it == transport);
        let connected = tokio::time::timeout(Duration::from_secs(60), link.wait_for(wanted)).await;
        connected
            .unwrap_or_else(|_| panic!("not connected by {transport}: {:?}", *self.agent.link().borrow()))
            .unwrap();
    }

    async fn sign_in(&self) -> Api {
        Api::login(format!("http://{}", self.server.local_addr()), USER, PASSWORD).await.map_err(|it| it.0).unwrap()
    }

    async fn deploy(&self, api: &Api) -> Deployment {
        let (repo, branch) = ("slow".parse().unwrap(), "main".parse().unwrap());
        let body = CreateDeployment::new(repo, branch);
        api.deploy(None, &body).await.map_err(|it| it.0).unwrap()
    }

    /// Every event of a deployment, as its log has them at the end.
    async fn ended(&self, api: &Api, deployment: &Deployment) -> Vec<Event> {
        let ended = tokio::time::timeout(Duration::from_secs(60), api.follow(deployment.id, |_| {})).await.unwrap();
        assert_eq!(ended.map_err(|it| it.0).unwrap().state, DeploymentState::Running);
        let path = self.dir.path().join(format!("server/logs/{}.log", deployment.id));
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn stop(self) {
        let api = self.sign_in().await;
        let running: Value = api.get("/api/deployments?state=running").await.map_err(|it| it.0).unwrap();
        for deployment in running["items"].as_array().unwrap() {
            let path = format!("/api/deployments/{}/stop", deployment["id"].as_str().unwrap());
            api.post::<_, Value>(&path, &()).await.map_err(|it| it.0).unwrap();
        }
        self.agent.shutdown().await;
        self.server.shutdown().await;
        drop(self.git);
    }
}

fn assert_whole(events: &[Event]) {
    assert!((1..).zip(events).all(|(place, event)| event.seq == place), "a gap or a duplicate");
    let line = |event: &Event| match &event.kind {
        EventKind::Log { stream: LogStream::Stdout, line, .. } => Some(line.clone()),
        _ => None,
    };
    let lines: Vec<_> = events.iter().filter_map(line).collect();
    assert_eq!(lines, (1..=LINES).map(|n| format!("line {n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_stands_in_wherever_websockets_do_not_get_through() {
    for upgrades in [Upgrades::Reset, Upgrades::Forbid, Upgrades::Mute] {
        let rig = Rig::start(upgrades).await;
        rig.connected(Transport::Http).await;
        let api = rig.sign_in().await;
        let agent: Value = api.get("/api/agents/micro").await.map_err(|it| it.0).unwrap();
        assert_eq!((&agent["connected"], &agent["transport"]), (&true.into(), &"http".into()), "{upgrades:?}");
        let deployment = rig.deploy(&api).await;
        assert_whole(&rig.ended(&api, &deployment).await);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_in_the_way_and_that_the_server_accepts_the_token() {
    let rig = Rig::start(Upgrades::Reset).await;
    let finding = async |config: &AgentConfig, check: &str| {
        let report = sdp_agent::doctor::examine(config).await;
        report.findings.into_iter().find(|finding| finding.check == check).unwrap()
    };
    let enrolment = finding(&rig.config, "enrolment").await;
    assert!(enrolment.verdict == Verdict::Ok && enrolment.evidence.contains("accepts micro"), "{enrolment:?}");
    let websocket = finding(&rig.config, "websocket").await;
    assert!(websocket.verdict == Verdict::Warning && websocket.evidence.contains("Upgrade header"), "{websocket:?}");
    let mut config = rig.config.clone();
    config.token = Some("another".into());
    let enrolment = finding(&config, "enrolment").await;
    assert!(enrolment.verdict == Verdict::Broken && enrolment.cure.is_some(), "{enrolment:?}");
    assert!(!format!("{enrolment:?}").contains("another"));
    rig.connected(Transport::Http).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_cost_nothing() {
    let rig = Rig::start(Upgrades::Reset).await;
    rig.connected(Transport::Http).await;
    let api = Arc::new(rig.sign_in().await);
    let deployment = rig.deploy(&api).await;
    let mut link = rig.agent.link();
    link.mark_unchanged();
    // Every request that is on its way, some with their answers, is lost each time.
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(37)).await;
        rig.middlebox.cut();
    }
    assert_whole(&rig.ended(&api, &deployment).await);
    assert!(!link.has_changed().unwrap(), "the session went on: {:?}", *link.borrow());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_websockets_get_through_again_the_agent_goes_back_to_them_in_the_middle_of_a_deployment() {
    let rig = Rig::start(Upgrades::Forbid).await;
    rig.connected(Transport::Http).await;
    let api = rig.sign_in().await;
    let deployment = rig.deploy(&api).await;
    rig.middlebox.upgrades(Upgrades::Pass);
    rig.connected(Transport::WebSocket).await;
    let agent: Value = api.get("/api/agents/micro").await.map_err(|it| it.0).unwrap();
    assert_eq!(agent["transport"], "websocket");
    // And to plain HTTP once more.
    rig.middlebox.upgrades(Upgrades::Reset);
    rig.middlebox.cut();
    rig.connected(Transport::Http).await;
    assert_whole(&rig.ended(&api, &deployment).await);
    rig.stop().await;
}
