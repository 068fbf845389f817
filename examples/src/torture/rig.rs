//! The daemons as processes, a git host, and what stands between them.

use std::{fs, net::SocketAddr, path::Path};

use sdp_core::{
    Deployment, DeploymentId, Event,
    api::{CreateDeployment, Page},
};
use sdp_git::testing::GitHost;
use sdp_server::{ServerConfig, Store};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::{
    Failed,
    api::Api,
    content::USER,
    daemon::Daemon,
    judge::LINES,
    leftovers::{Leftovers, Runs},
    middlebox::Middlebox,
    ports::PortBlock,
    traces::processes_in,
    wait::eventually,
};

/// A server and an agent as processes, and the git host they use.
pub(super) struct Rig {
    _git: GitHost,
    password: String,
    pub(super) address: SocketAddr,
    pub(super) middlebox: Middlebox,
    pub(super) server: Daemon,
    pub(super) agent: Daemon,
    /// Another agent's token.
    pub(super) token: String,
    _leftovers: Leftovers,
    dir: TempDir,
    _ports: PortBlock,
}

/// The name of an agent that is enrolled and does not run.
pub(super) const ABSENT: &str = "absent";

impl Rig {
    /// Starts everything. With `disks` the server's logs and the agent's outbox are on small disks of
    /// their own that can be filled, and both daemons' disks can be made to fail.
    pub(super) async fn start(program: &Path, disks: bool) -> Result<Self, Failed> {
        let dir = tempfile::Builder::new().prefix("sdp-torture-").tempdir()?;
        let ports = PortBlock::take()?;
        let password = format!("{:032x}", rand::random::<u128>());
        let git = GitHost::start(&[(USER, &password)]).await?;
        git.create_repo("slow").await?;
        // A build that nobody reads from any more stays, until somebody ends it.
        let line = "echo line $i || exec sleep 600; sleep 0.02";
        let script = format!("trap '' PIPE; for i in $(seq {LINES}); do {line}; done\n");
        git.commit("slow", "main", None, &[("build.sh", script.as_bytes())], "slow").await?;

        let address = SocketAddr::from(([127, 0, 0, 1], *ports.gateways().start()));
        let middlebox = Middlebox::start(address).await?;
        let (server_dir, agent_dir) = (dir.path().join("server"), dir.path().join("agent"));
        let (logs, outbox) = (server_dir.join("logs"), agent_dir.join("outbox"));
        fs::create_dir_all(&logs)?;
        fs::create_dir_all(&outbox)?;
        let server_config = dir.path().join("server.toml");
        fs::write(&server_config, format!("listen = \"{address}\"\ndata_dir = {server_dir:?}\n"))?;
        let config = ServerConfig { data_dir: server_dir, ..ServerConfig::default() };
        let store = Store::open(&config.data_dir.join("sdp.db"))?;
        let micro = sdp_server::auth::enrol(&store, &"micro".parse()?).await?;
        let absent = sdp_server::auth::enrol(&store, &ABSENT.parse()?).await?;
        drop(store);
        let token = dir.path().join("token");
        fs::write(&token, micro.expose_secret())?;
        let (services, repo) = (ports.services(), dir.path().join("slow"));
        // Whole paths, so that programs are started without fork: a child of fork waits for ever for a lock of what makes
        // disks fail, if another thread had it.
        let text = format!(
            "name = \"micro\"\nserver = \"ws://{}/ws/agent\"\ntoken_file = {token:?}\ndata_dir = {agent_dir:?}\n\
             advertise = \"127.0.0.1\"\n[deployer]\nkind = \"process\"\npublish = \"127.0.0.1\"\n\
             port_range = \"{}-{}\"\n[[repo]]\nname = \"slow\"\npath = {repo:?}\nremote = \"{}\"\nrecipe = \"command\"\n\
             build = [\"/bin/sh\", \"build.sh\"]\nrun = [\"/bin/sleep\", \"600\"]\nhealth = {{ command = [\"/bin/true\"] }}\n",
            middlebox.address(),
            services.start(),
            services.end(),
            git.url("slow"),
        );
        let agent_config = dir.path().join("agent.toml");
        fs::write(&agent_config, text)?;

        let leftovers = Leftovers::new(vec![Runs::Processes(agent_dir.join("processes"))]);
        let server = Daemon::start(program, "server", &server_config, disks.then_some(logs))?;
        let agent = Daemon::start(program, "agent", &agent_config, disks.then_some(outbox))?;
        let token = absent.expose_secret().to_owned();
        let _ports = ports;
        Ok(Self { _git: git, password, address, middlebox, server, agent, token, _leftovers: leftovers, dir, _ports })
    }

    /// Signs in as soon as the server is there and the agent is connected.
    pub(super) async fn sign_in(&self) -> Result<Api, Failed> {
        let base = format!("http://{}", self.address);
        let login = async || Api::login(base.as_str(), USER, &self.password).await.ok();
        eventually("a sign-in", login).await
    }

    /// Asks for a deployment into a sandbox, and answers whatever comes of the asking.
    pub(super) fn ask(&self, api: &Api, sandbox: &str) -> impl Future<Output = Result<Deployment, Failed>> + use<> {
        let (api, sandbox) = (api.clone(), sandbox.to_owned());
        async move {
            let (repo, branch) = ("slow".parse()?, "main".parse()?);
            let body = CreateDeployment::new(repo, branch);
            api.deploy(Some(&sandbox), &body).await
        }
    }

    /// The deployment once it has ended.
    pub(super) async fn ended(&self, api: &Api, id: DeploymentId) -> Result<Deployment, Failed> {
        let look = async || api.deployment(id).await.ok().filter(|deployment| !deployment.state.is_active());
        eventually("the deployment's end", look).await
    }

    /// Removes a sandbox.
    pub(super) async fn delete(&self, sandbox: &str) -> Result<(), Failed> {
        let api = self.sign_in().await?;
        let path = format!("/api/sandboxes/{sandbox}");
        let delete = async || api.send(reqwest::Method::DELETE, &path, None::<&()>).await.ok();
        eventually::<serde_json::Value>("the sandbox's deletion", delete).await?;
        let gone = async || {
            let page: Page<sdp_core::Sandbox> = api.get("/api/sandboxes?limit=500").await.ok()?;
            (!page.items.iter().any(|left| left.name.as_str() == sandbox)).then_some(())
        };
        eventually("the sandbox's end", gone).await
    }

    /// What is in the deployment's log, read from the file itself.
    pub(super) fn events(&self, id: DeploymentId) -> Result<Vec<Event>, Failed> {
        let path = self.server.sees(&self.dir.path().join("server").join("logs").join(format!("{id}.log")));
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Whether as many processes as expected have their directory in the sandbox's checkout.
    pub(super) async fn expect_processes(&self, sandbox: &str, expected: usize, complain: &mut impl FnMut(String)) {
        let folder = self.dir.path().join("agent").join("worktrees").join(sandbox);
        let count = async || (processes_in(&folder) == expected).then_some(());
        if eventually("the processes", count).await.is_err() {
            complain(format!("{} processes instead of {expected}", processes_in(&folder)));
        }
    }

    /// With the last lines of both daemons' logs.
    pub(super) fn explain(&self, failed: &Failed) -> Failed {
        let tail = |daemon: &Daemon| {
            let log = daemon.log().unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            format!("\n{}:\n  {}", daemon.role(), lines[lines.len().saturating_sub(20)..].join("\n  "))
        };
        Failed(format!("{failed}{}{}", tail(&self.server), tail(&self.agent)))
    }

    /// The panics that the daemons' logs tell of.
    pub(super) fn panics(&self) -> Result<Vec<String>, Failed> {
        let mut panics = Vec::new();
        for daemon in [&self.server, &self.agent] {
            let log = daemon.log()?;
            let lines = log.lines().filter(|line| line.contains("panicked"));
            panics.extend(lines.map(|line| format!("the {} panicked: {line}", daemon.role())));
        }
        Ok(panics)
    }
}
