//! A whole SDP in one process, on real parts: a git host with basic authentication, a stand-in for
//! the stable cluster, the control plane, and two agents, each as it would be on a VM of its own.

use std::{
    fmt::{self, Write as _},
    fs::OpenOptions,
    io::{self, Write as _},
    net::TcpListener,
    ops::RangeInclusive,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sdp_agent::{Agent, AgentConfig, LinkState};
use sdp_core::{AgentName, Deployer, config::Layers};
use sdp_docker::{DockerConfig, DockerDeployer, SwarmConfig};
use sdp_git::testing::GitHost;
use sdp_server::Store;
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::{
    Failed,
    api::Api,
    content::{self, GATEWAY, SERVICES, USER},
    control::Control,
    daemon::Daemon,
    leftovers::{Leftovers, Runs},
    ports::PortBlock,
    stable::StableCluster,
};

/// The images that the demo's setup makes.
const SERVICE_IMAGE: &str = "sdp-base:dev";
const GATEWAY_IMAGE: &str = "sdp-apache-php:dev";
/// The URL prefix of the gateway.
const PREFIX: &str = "/erangel/";

/// How the agents run what they deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// In containers of the machine's engine.
    Docker,
    /// In containers of the engine with this socket.
    Engine(PathBuf),
    /// As services of a swarm, on the nodes with this label; its manager's engine has this socket.
    Swarm(PathBuf, &'static str),
    /// As processes of this machine.
    Process,
}

impl Runner {
    /// Containers where an engine answers and has the images, processes otherwise.
    pub async fn available() -> Self {
        let Ok(docker) = DockerDeployer::connect(DockerConfig::new("playground")).await else { return Self::Process };
        match docker.missing_images(&[SERVICE_IMAGE, GATEWAY_IMAGE]).await {
            Ok(missing) if missing.is_empty() => Self::Docker,
            _ => Self::Process,
        }
    }

    /// How what the agent `name` with its files in `folder` runs is found.
    fn runs(&self, name: &AgentName, folder: &Path) -> Runs {
        let docker = DockerConfig::new(name.as_str());
        match self {
            Self::Docker => Runs::Containers(docker),
            Self::Engine(socket) => Runs::Containers(DockerConfig { socket: socket.clone(), ..docker }),
            Self::Swarm(socket, _) => {
                Runs::Services(SwarmConfig { socket: socket.clone(), ..SwarmConfig::new(name.as_str()) })
            }
            Self::Process => Runs::Processes(folder.join("data").join("processes")),
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Docker | Self::Engine(_) => "docker",
            Self::Swarm(..) => "swarm",
            Self::Process => "process",
        }
    }

    /// The agents' `[deployer]` section.
    fn section(&self) -> String {
        let (publish, more) = match self {
            Self::Engine(socket) => ("127.0.0.1", format!("socket = {socket:?}\n")),
            Self::Swarm(socket, label) => {
                ("0.0.0.0", format!("socket = {socket:?}\nconstraints = [\"node.labels.{label}==yes\"]\n"))
            }
            Self::Docker | Self::Process => ("127.0.0.1", String::new()),
        };
        format!("[deployer]\nkind = \"{}\"\npublish = \"{publish}\"\n{more}", self.as_str())
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The control plane's port; another is taken when it is not free.
    pub port: u16,
    /// How the agents run things.
    pub runner: Runner,
    /// Whether the gateway routes each request by the sandbox's key that it carries.
    pub per_request: bool,
    /// More `[[repo]]` sections for the agent of the services, made from its folder and the git
    /// host.
    pub more_repos: fn(&Path, &GitHost) -> String,
    /// More of the agents' `[deployer]` section.
    pub deployer_settings: &'static str,
    /// More of the control plane's configuration.
    pub server_settings: String,
    /// The program that runs an agent as `PROGRAM agent CONFIG`, for agents that are processes of their own and can
    /// be killed. Parts of this process when absent.
    pub agent_program: Option<PathBuf>,
    /// The program that runs the control plane as `PROGRAM server CONFIG`, for one that is a process of its own.
    pub server_program: Option<PathBuf>,
    /// Whether the agents have the developer's credential for deployments that bring none.
    pub agents_sign_in: bool,
}

impl Options {
    /// Any free port, and nothing besides.
    pub fn new(runner: Runner) -> Self {
        Self {
            port: 0,
            runner,
            more_repos: |_, _| String::new(),
            deployer_settings: "",
            server_settings: String::new(),
            per_request: false,
            agent_program: None,
            server_program: None,
            agents_sign_in: false,
        }
    }
}

/// The running parts. [`shutdown`](Self::shutdown) ends them and removes what they made.
#[derive(Debug)]
pub struct Playground {
    git: GitHost,
    runner: Runner,
    password: String,
    control: Control,
    base: String,
    agents: Vec<RunningAgent>,
    agent_program: Option<PathBuf>,
    stable: StableCluster,
    gateway: String,
    dir: TempDir,
    _ports: PortBlock,
}

#[derive(Debug)]
struct RunningAgent {
    name: AgentName,
    /// None while it is stopped.
    agent: Option<AgentRun>,
    leftovers: Leftovers,
}

/// How an agent runs.
#[derive(Debug)]
enum AgentRun {
    InProcess(Box<Agent>),
    Process(Daemon),
}

impl Playground {
    /// Starts everything and waits until both agents are connected.
    ///
    /// # Errors
    /// Names the part that did not start.
    pub async fn start(options: Options) -> Result<Self, Failed> {
        let runner = options.runner;
        let dir = tempfile::Builder::new().prefix("sdp-playground-").tempdir()?;
        let password = format!("{:032x}", rand::random::<u128>());
        let git = GitHost::start(&[(USER, &password)]).await?;
        content::fill_services(&git).await?;
        let ports = PortBlock::take()?;
        let stable = StableCluster::start(&git, dir.path(), ports.stable(), USER, &password).await?;
        content::fill_gateway(&git, stable.urls()).await?;

        let is_free = |port: &u16| *port != 0 && TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let unique = Some(options.port).filter(is_free).unwrap_or(ports.server());
        let control = Control::start(dir.path(), unique, &options.server_settings, options.server_program).await?;
        let base = control.base();
        let mut agents = Vec::new();
        for (role, ports, repos) in [
            ("gateway", ports.gateways(), gateway_repo(&git, dir.path(), options.per_request)),
            ("micro", ports.services(), service_repos(&git, dir.path())),
        ] {
            // Containers are marked with their agent's name: two playgrounds do not share one.
            let name: AgentName = format!("{role}-{unique}").parse()?;
            let folder = dir.path().join(role);
            let more = if role == "micro" { (options.more_repos)(&folder, &git) } else { String::new() };
            let mut text =
                agent_config(&name, &base, &folder, &runner, &ports) + options.deployer_settings + &repos + &more;
            let token = control.enrol(&name).await?;
            std::fs::create_dir_all(&folder)?;
            write_secret(&folder.join("agent.token"), token.expose_secret())?;
            if options.agents_sign_in {
                let file = folder.join("git.password");
                write_secret(&file, &password)?;
                text += &format!("\n[git]\nuser = \"{USER}\"\npassword_file = {file:?}\n");
            }
            std::fs::write(folder.join("sdp-agent.toml"), text)?;
            let agent = Some(start_agent(&control, &name, &folder, options.agent_program.as_deref()).await?);
            agents.push(RunningAgent { leftovers: Leftovers::new(vec![runner.runs(&name, &folder)]), name, agent });
        }
        let gateway = format!("http://127.0.0.1:{}{PREFIX}", ports.gateways().start());
        let agent_program = options.agent_program;
        Ok(Self { git, runner, password, control, base, agents, agent_program, stable, gateway, dir, _ports: ports })
    }

    /// The git host, to push more branches to.
    pub fn git(&self) -> &GitHost {
        &self.git
    }

    /// The developer's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The address of the control plane.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Everything that this playground writes is below it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The control plane's database.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn store(&self) -> Result<Store, Failed> {
        self.control.store()
    }

    /// The directory of the control plane's database and logs.
    pub fn server_data(&self) -> &Path {
        self.control.data_dir()
    }

    /// What a control plane that is a process has logged.
    ///
    /// # Errors
    /// When it is none, or its log cannot be read.
    pub fn server_log(&self) -> Result<String, Failed> {
        self.control.log()
    }

    /// Stops the control plane, which is killed if it is a process; what is deployed runs on.
    pub async fn stop_server(&mut self) {
        self.control.stop().await;
    }

    /// Starts the control plane again, and waits until both agents are connected.
    ///
    /// # Errors
    /// When it does not start, or an agent does not connect.
    pub async fn start_server(&mut self) -> Result<(), Failed> {
        self.control.resume().await?;
        for agent in &self.agents {
            self.control.is_connected(&agent.name, agent.agent.is_some()).await?;
        }
        Ok(())
    }

    /// How the agents run things.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The address of the shared gateway, with a slash at its end.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Signs the developer in.
    ///
    /// # Errors
    /// The server's own sentence.
    pub async fn sign_in(&self) -> Result<Api, Failed> {
        Api::login(self.base.clone(), USER, &self.password).await
    }

    /// Asks the gateway for a service, and answers what it says.
    ///
    /// # Errors
    /// When the gateway does not answer with success.
    pub async fn ask_gateway(&self, service: &str) -> Result<String, Failed> {
        self.ask_gateway_with(service, &[]).await
    }

    /// Asks the gateway for a service in a request with these headers, and answers what it says.
    ///
    /// # Errors
    /// As [`ask_gateway`](Self::ask_gateway).
    pub async fn ask_gateway_with(&self, service: &str, headers: &[(&str, &str)]) -> Result<String, Failed> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        let request = client.get(format!("{}{service}/", self.gateway));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if status.is_success() { Ok(text.trim().to_owned()) } else { Err(Failed(format!("{status}: {}", text.trim()))) }
    }

    /// A deployer of an agent's own kind and mark: what it lists is what that agent runs.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn deployer(&self, role: &str) -> Result<Arc<dyn Deployer>, Failed> {
        self.runner.runs(self.agent_name(role)?, &self.dir.path().join(role)).deployer().await
    }

    /// The name of an agent.
    ///
    /// # Errors
    /// When there is none.
    pub fn agent_name(&self, role: &str) -> Result<&AgentName, Failed> {
        let mut names = self.agents.iter().map(|agent| &agent.name);
        names.find(|name| name.as_str().starts_with(role)).ok_or_else(|| Failed(format!("there is no agent {role}")))
    }

    /// What an agent that is a process has logged.
    ///
    /// # Errors
    /// When there is none, or its log cannot be read.
    pub fn agent_log(&self, role: &str) -> Result<String, Failed> {
        let agent = self.agents.iter().find(|agent| agent.name.as_str().starts_with(role));
        match agent.and_then(|agent| agent.agent.as_ref()) {
            Some(AgentRun::Process(daemon)) => daemon.log(),
            _ => Err(Failed(format!("there is no agent {role} that is a process"))),
        }
    }

    /// Stops an agent; what it runs goes on. One that is a process is killed.
    ///
    /// # Errors
    /// When there is none.
    pub async fn stop_agent(&mut self, role: &str) -> Result<(), Failed> {
        let stopped = self.agent(role)?;
        let name = stopped.name.clone();
        match stopped.agent.take() {
            None => return Ok(()),
            Some(AgentRun::InProcess(agent)) => agent.shutdown().await,
            Some(AgentRun::Process(daemon)) => drop(daemon),
        }
        self.control.is_connected(&name, false).await
    }

    /// Starts an agent that was stopped, and waits until it is connected.
    ///
    /// # Errors
    /// When there is none, or it does not connect.
    pub async fn start_agent(&mut self, role: &str) -> Result<(), Failed> {
        let folder = self.dir.path().join(role);
        let stopped = self.agent(role)?;
        if stopped.agent.is_none() {
            let name = stopped.name.clone();
            let started = start_agent(&self.control, &name, &folder, self.agent_program.as_deref()).await?;
            self.agent(role)?.agent = Some(started);
        }
        Ok(())
    }

    fn agent(&mut self, role: &str) -> Result<&mut RunningAgent, Failed> {
        let agent = self.agents.iter_mut().find(|agent| agent.name.as_str().starts_with(role));
        agent.ok_or_else(|| Failed(format!("there is no agent {role}")))
    }

    /// Where a person can go on from here.
    pub fn where_to_look(&self) -> String {
        let mut text = String::from("\nEverything stays up until Ctrl-C. Try:\n");
        let _ = writeln!(text, "  curl {}{}/", self.gateway, content::SERVICE);
        let _ = writeln!(
            text,
            "  TOKEN=$(curl -s {}/api/login -H 'content-type: application/json' \\\n    -d '{{\"username\":\"{USER}\",\"password\":\"{}\"}}' | sed 's/.*\"token\":\"\\([^\"]*\\)\".*/\\1/')",
            self.base, self.password
        );
        let _ = writeln!(text, "  curl -s -H \"Authorization: Bearer $TOKEN\" {}/api/deployments", self.base);
        let _ = writeln!(
            text,
            "  curl -s -X PUT -H \"Authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\\n    -d '{{\"target\":\"sandbox\"}}' {}/api/sandboxes/demo/routes/{}",
            self.base,
            content::SERVICE
        );
        let _ = write!(text, "  git clone {} (as {USER}, password above)", self.git.url(content::SERVICE));
        text
    }

    /// Ends everything, and removes containers, processes and files.
    ///
    /// # Errors
    /// The first part that could not be ended; the others are ended all the same.
    pub async fn shutdown(mut self) -> Result<(), Failed> {
        let mut removed = Ok(());
        for agent in self.agents {
            if let Some(AgentRun::InProcess(running)) = agent.agent {
                running.shutdown().await;
            }
            removed = removed.and(agent.leftovers.remove().await);
        }
        self.control.stop().await;
        removed.and(self.stable.shutdown().await)
    }
}

impl fmt::Display for Playground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  control plane  {}", self.base)?;
        for RunningAgent { name, .. } in &self.agents {
            writeln!(f, "  agent          {name} ({})", self.runner.as_str())?;
        }
        writeln!(f, "  git host       http://{}/scm/ (basic authentication)", self.git.address())?;
        for (service, url) in self.stable.urls() {
            writeln!(f, "  stable         {service} at {url}")?;
        }
        write!(f, "  gateway        {} (when deployed)", self.gateway)
    }
}

async fn start_agent(
    control: &Control,
    name: &AgentName,
    folder: &Path,
    program: Option<&Path>,
) -> Result<AgentRun, Failed> {
    let path = folder.join("sdp-agent.toml");
    if let Some(program) = program {
        let daemon = Daemon::start(program, "agent", &path, None)?;
        control.is_connected(name, true).await?;
        return Ok(AgentRun::Process(daemon));
    }
    let text = std::fs::read_to_string(&path)?;
    let layers = Layers::new().file(path, text);
    let agent = Agent::start(AgentConfig::load(layers, Vec::new(), &[])?).await?;
    let mut link = agent.link();
    let connected = link.wait_for(|state| matches!(state, LinkState::Connected { .. }));
    match tokio::time::timeout(Duration::from_secs(30), connected).await {
        Ok(Ok(_)) => Ok(AgentRun::InProcess(Box::new(agent))),
        _ => Err(Failed(format!("agent {name} did not connect to the server"))),
    }
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(secret.as_bytes())
}

fn agent_config(name: &AgentName, base: &str, folder: &Path, runner: &Runner, ports: &RangeInclusive<u16>) -> String {
    let (server, deployer) = (base.replacen("http", "ws", 1), runner.section());
    let (token, data) = (folder.join("agent.token"), folder.join("data"));
    format!(
        "name = \"{name}\"\nserver = \"{server}/ws/agent\"\ntoken_file = {token:?}\ndata_dir = {data:?}\n\
         advertise = \"127.0.0.1\"\n\n{deployer}port_range = \"{}-{}\"\n",
        ports.start(),
        ports.end(),
    )
}

fn service_repos(git: &GitHost, dir: &Path) -> String {
    let repo = |name: &str| {
        format!(
            "\n[[repo]]\nname = \"{name}\"\nservice = \"{name}\"\npath = {:?}\nremote = \"{}\"\nrecipe = \"go\"\n\
             image = \"{SERVICE_IMAGE}\"\ncontainer_port = 8080\nhealth = {{ http = \"/healthz\", timeout = \"10s\" }}\n",
            dir.join("repos").join(name),
            git.url(name),
        )
    };
    SERVICES.map(repo).concat()
}

fn gateway_repo(git: &GitHost, dir: &Path, per_request: bool) -> String {
    // In the host's network: it calls services that are published on the host's loopback address.
    format!(
        "\n[[repo]]\nname = \"{GATEWAY}\"\npath = {:?}\nremote = \"{}\"\n\
         recipe = \"php\"\nimage = \"{GATEWAY_IMAGE}\"\nurl_prefix = \"{PREFIX}\"\nnetwork = \"host\"\n\
         health = {{ http = \"{PREFIX}healthz\", timeout = \"30s\" }}\n\n\
         [gateway]\nrepo = \"{GATEWAY}\"\nconfig = \"application/config/config.php\"\nper_request = {per_request}\n",
        dir.join("repos").join(GATEWAY),
        git.url(GATEWAY),
    )
}
