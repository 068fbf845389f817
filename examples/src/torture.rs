//! Blows to the real daemons in the middle of deployments, counted: what must never happen, did it?
//!
//! The server and the agent are processes of their own, killed with SIGKILL at a random moment of a
//! deployment and started again at once; the connection between them is reset, or lets nothing pass
//! any more.

use std::{
    fmt,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use rand::RngExt as _;
use sdp_core::{
    Deployment, DeploymentId, DeploymentState, Event, EventKind, LogStream,
    api::{CreateDeployment, CreateSandbox, Page},
};
use sdp_git::testing::GitHost;
use sdp_server::{ServerConfig, Store};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use crate::{
    Failed,
    api::Api,
    content::USER,
    leftovers::{Leftovers, Runs},
    middlebox::Middlebox,
    ports::PortBlock,
};

/// How many lines the build prints, one every 20 ms.
const LINES: usize = 40;
/// A strike comes within this time after the deployment was asked for; one takes about a second.
const STRIKE_WITHIN: Duration = Duration::from_millis(1500);
/// How long anything may take to be in order again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    KillServer,
    KillAgent,
    CutLink,
    StallLink,
}

/// How often each.
#[derive(Debug, Clone, Copy)]
pub struct Strikes {
    /// The server, the agent, and the link between them, in turns.
    pub each: usize,
    /// The link, so that both sides have to notice by themselves; each takes some 20 s.
    pub stalls: usize,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Report {
    server_kills: usize,
    agent_kills: usize,
    link_cuts: usize,
    link_stalls: usize,
    running: usize,
    failed: usize,
    never_accepted: usize,
    events: usize,
    violations: Vec<String>,
}

impl Report {
    /// What must not have happened and did, a sentence each.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "killed: the server {} times, the agent {} times", self.server_kills, self.agent_kills)?;
        writeln!(f, "link: reset {} times, half-open {} times", self.link_cuts, self.link_stalls)?;
        writeln!(
            f,
            "deployments: {} running, {} failed and said why, {} never accepted",
            self.running, self.failed, self.never_accepted
        )?;
        writeln!(f, "events: {} read back, each once and in order", self.events)?;
        write!(f, "violations: {}", self.violations.len())?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// A server and an agent as processes, and the git host they use.
struct Torture {
    _git: GitHost,
    password: String,
    program: PathBuf,
    base: String,
    proxy: Middlebox,
    server: Child,
    agent: Child,
    _leftovers: Leftovers,
    dir: TempDir,
    _ports: PortBlock,
}

/// Strikes. `program` is the harness itself, which runs as `PROGRAM server CONFIG` and `PROGRAM agent
/// CONFIG` too.
///
/// # Errors
/// When the parts cannot be started; what they do wrong is in the report.
pub async fn run(program: &Path, strikes: Strikes) -> Result<Report, Failed> {
    let mut torture = Torture::start(program.to_owned()).await?;
    let mut report = Report::default();
    let turns = std::iter::repeat_n([Strike::KillServer, Strike::KillAgent, Strike::CutLink], strikes.each).flatten();
    let rounds = turns.chain(std::iter::repeat_n(Strike::StallLink, strikes.stalls));
    for (round, strike) in rounds.enumerate() {
        torture.round(round, strike, &mut report).await.map_err(|failed| torture.explain(&failed))?;
    }
    torture.look_for_panics(&mut report)?;
    Ok(report)
}

impl Torture {
    async fn start(program: PathBuf) -> Result<Self, Failed> {
        let dir = tempfile::Builder::new().prefix("sdp-torture-").tempdir()?;
        let ports = PortBlock::take()?;
        let password = format!("{:032x}", rand::random::<u128>());
        let git = GitHost::start(&[(USER, &password)]).await?;
        git.create_repo("slow").await?;
        let script = format!("for i in $(seq {LINES}); do echo line $i; sleep 0.02; done\n");
        git.commit("slow", "main", None, &[("build.sh", script.as_bytes())], "slow").await?;

        let address = SocketAddr::from(([127, 0, 0, 1], ports.gateway()));
        let proxy = Middlebox::start(address).await?;
        let (server_dir, agent_dir) = (dir.path().join("server"), dir.path().join("agent"));
        fs::create_dir_all(&server_dir)?;
        fs::write(dir.path().join("server.toml"), format!("listen = \"{address}\"\ndata_dir = {server_dir:?}\n"))?;
        let config = ServerConfig { data_dir: server_dir, ..ServerConfig::default() };
        let store = Store::open(&config.data_dir.join("sdp.db"))?;
        let token = sdp_server::auth::enrol(&store, &"micro".parse()?).await?;
        drop(store);
        fs::write(dir.path().join("token"), token.expose_secret())?;
        let (services, repo) = (ports.services(), dir.path().join("slow"));
        let text = format!(
            "name = \"micro\"\nserver = \"ws://{}/ws/agent\"\ntoken_file = {:?}\ndata_dir = {agent_dir:?}\n\
             advertise = \"127.0.0.1\"\n[deployer]\nkind = \"process\"\npublish = \"127.0.0.1\"\n\
             port_range = \"{}-{}\"\n[[repo]]\nname = \"slow\"\npath = {repo:?}\nremote = \"{}\"\nrecipe = \"command\"\n\
             build = [\"sh\", \"build.sh\"]\nrun = [\"sleep\", \"600\"]\nhealth = {{ command = [\"true\"] }}\n",
            proxy.address(),
            dir.path().join("token"),
            services.start(),
            services.end(),
            git.url("slow"),
        );
        fs::write(dir.path().join("agent.toml"), text)?;

        let leftovers = Leftovers::new(vec![Runs::Processes(agent_dir.join("processes"))]);
        let server = spawn(&program, dir.path(), "server")?;
        let agent = spawn(&program, dir.path(), "agent")?;
        let base = format!("http://{address}");
        Ok(Self { _git: git, password, program, base, proxy, server, agent, _leftovers: leftovers, dir, _ports: ports })
    }

    async fn round(&mut self, round: usize, strike: Strike, report: &mut Report) -> Result<(), Failed> {
        let api = self.sign_in().await?;
        let sandbox = format!("t{round}");
        let create = CreateSandbox { name: sandbox.parse()?, environment: None, expires_in: None };
        api.post::<_, serde_json::Value>("/api/sandboxes", &create).await?;
        let asking = tokio::spawn({
            let (api, sandbox) = (api.clone(), sandbox.clone());
            async move {
                let (repo, branch) = ("slow".parse()?, "main".parse()?);
                let body = CreateDeployment { repo, branch, host_port: None, env: Default::default(), agent: None };
                api.deploy(Some(&sandbox), &body).await
            }
        });
        let pause = STRIKE_WITHIN.mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::time::sleep(pause).await;
        self.strike(strike, report)?;
        // What it says is of no matter: whether the deployment exists is asked afterwards.
        let _ = asking.await?;

        let api = self.sign_in().await?;
        let page: Page<Deployment> = api.get(&format!("/api/deployments?sandbox={sandbox}")).await?;
        let ended = match page.items.first() {
            None => {
                report.never_accepted += 1;
                None
            }
            Some(deployment) => Some(self.ended(&api, deployment.id).await?),
        };
        let mut complain = |what: String| {
            report.violations.push(format!("round {round}, {strike:?} after {pause:?}: {what}"));
        };
        if let Some(deployment) = &ended {
            let events = self.events(deployment.id)?;
            judge(deployment, &events, &mut complain);
            if strike != Strike::KillAgent && deployment.state == DeploymentState::Failed && !events.is_empty() {
                complain(format!("{strike:?} failed a deployment that had begun: {:?}", deployment.failure));
            }
            report.events += events.len();
            match deployment.state {
                DeploymentState::Running => report.running += 1,
                _ => report.failed += 1,
            }
        }
        let runs = usize::from(ended.is_some_and(|deployment| deployment.state == DeploymentState::Running));
        self.expect_processes(&sandbox, runs, &mut complain).await;
        self.delete(&sandbox).await?;
        self.expect_processes(&sandbox, 0, &mut complain).await;
        Ok(())
    }

    fn strike(&mut self, strike: Strike, report: &mut Report) -> Result<(), Failed> {
        let count = match strike {
            Strike::KillServer => {
                restart(&mut self.server, &self.program, self.dir.path(), "server")?;
                &mut report.server_kills
            }
            Strike::KillAgent => {
                restart(&mut self.agent, &self.program, self.dir.path(), "agent")?;
                &mut report.agent_kills
            }
            Strike::CutLink => {
                self.proxy.cut();
                &mut report.link_cuts
            }
            Strike::StallLink => {
                self.proxy.stall();
                &mut report.link_stalls
            }
        };
        *count += 1;
        Ok(())
    }

    /// Signs in as soon as the server is there and the agent is connected.
    async fn sign_in(&self) -> Result<Api, Failed> {
        let login = async || Api::login(self.base.as_str(), USER, &self.password).await.ok();
        patiently("a sign-in", login).await
    }

    async fn ended(&self, api: &Api, id: DeploymentId) -> Result<Deployment, Failed> {
        let look = async || api.deployment(id).await.ok().filter(|deployment| !deployment.state.is_active());
        patiently("the deployment's end", look).await
    }

    async fn delete(&self, sandbox: &str) -> Result<(), Failed> {
        let api = self.sign_in().await?;
        let path = format!("/api/sandboxes/{sandbox}");
        let delete = async || api.send(reqwest::Method::DELETE, &path, None::<&()>).await.ok();
        patiently::<serde_json::Value>("the sandbox's end", delete).await.map(drop)
    }

    /// What is in the deployment's log, read from the file itself.
    fn events(&self, id: DeploymentId) -> Result<Vec<Event>, Failed> {
        let path = self.dir.path().join("server").join("logs").join(format!("{id}.log"));
        let text = if path.exists() { fs::read_to_string(path)? } else { String::new() };
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Whether as many processes as expected have their directory in the sandbox's checkout.
    async fn expect_processes(&self, sandbox: &str, expected: usize, complain: &mut impl FnMut(String)) {
        let folder = self.dir.path().join("agent").join("worktrees").join(sandbox);
        let count = async || (processes_in(&folder) == expected).then_some(());
        if patiently("the processes", count).await.is_err() {
            complain(format!("{} processes instead of {expected}", processes_in(&folder)));
        }
    }

    /// With the last lines of both daemons' logs.
    fn explain(&self, failed: &Failed) -> Failed {
        let tail = |role: &str| {
            let log = fs::read_to_string(self.dir.path().join(format!("{role}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            format!("\n{role}:\n  {}", lines[lines.len().saturating_sub(10)..].join("\n  "))
        };
        Failed(format!("{failed}{}{}", tail("server"), tail("agent")))
    }

    fn look_for_panics(&self, report: &mut Report) -> Result<(), Failed> {
        for role in ["server", "agent"] {
            let log = fs::read_to_string(self.dir.path().join(format!("{role}.log")))?;
            let panics = log.lines().filter(|line| line.contains("panicked"));
            report.violations.extend(panics.map(|line| format!("the {role} panicked: {line}")));
        }
        Ok(())
    }
}

impl Drop for Torture {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.server] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Judges a deployment that has ended by its log.
fn judge(deployment: &Deployment, events: &[Event], complain: &mut impl FnMut(String)) {
    for (place, event) in (1..).zip(events) {
        if event.seq != place {
            return complain(format!("event {} stands where {place} was expected", event.seq));
        }
    }
    let mut state = DeploymentState::Queued;
    let mut lines = Vec::new();
    for event in events {
        match &event.kind {
            EventKind::State { state: next, .. } => {
                if *next != state && !state.can_become(*next) {
                    complain(format!("{state} became {next}"));
                }
                state = *next;
            }
            EventKind::Log { stream: LogStream::Stdout, line, .. } => lines.push(line.as_str()),
            _ => {}
        }
    }
    if !events.is_empty() && state != deployment.state {
        complain(format!("the log ends with {state}, the database says {}", deployment.state));
    }
    let whole: Vec<_> = (1..=LINES).map(|n| format!("line {n}")).collect();
    let as_expected = match deployment.state {
        DeploymentState::Running => lines == whole,
        _ => lines.len() <= LINES && lines == whole[..lines.len()],
    };
    if !as_expected {
        complain(format!("{} of the build's {LINES} lines, or in another order", lines.len()));
    }
    if deployment.state == DeploymentState::Failed && deployment.failure.as_ref().is_none_or(|it| it.reason.is_empty())
    {
        complain("it failed and does not say why".into());
    }
}

fn spawn(program: &Path, dir: &Path, role: &str) -> Result<Child, Failed> {
    let log = File::options().create(true).append(true).open(dir.join(format!("{role}.log")))?;
    let mut command = Command::new(program);
    Ok(command.arg(role).arg(dir.join(format!("{role}.toml"))).stderr(log).spawn()?)
}

fn restart(child: &mut Child, program: &Path, dir: &Path, role: &str) -> Result<(), Failed> {
    child.kill()?;
    child.wait()?;
    *child = spawn(program, dir, role)?;
    Ok(())
}

fn processes_in(folder: &Path) -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(|it| fs::read_link(it.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))).count()
}

async fn patiently<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> Result<T, Failed> {
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    seen.await.map_err(|_| Failed(format!("{what} did not come within {PATIENCE:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: EventKind) -> Event {
        serde_json::from_value(serde_json::json!({"seq": seq, "at": "2026-01-02T03:04:05Z", "type": "weather"}))
            .map(|event: Event| Event { kind, ..event })
            .unwrap()
    }

    fn complaints(state: &str, events: &[Event]) -> Vec<String> {
        let deployment = serde_json::json!({
            "id": DeploymentId::new(), "repo": "slow", "branch": "main", "agent": "micro", "state": state,
            "user": "ada", "created_at": "2026-01-02T03:04:05Z", "stages": []
        });
        let mut complaints = Vec::new();
        judge(&serde_json::from_value(deployment).unwrap(), events, &mut |what| complaints.push(what));
        complaints
    }

    #[test]
    fn what_must_not_happen_is_complained_of() {
        let state = |seq, state| event(seq, EventKind::state(state));
        let (queued, source) = (DeploymentState::Queued, DeploymentState::Source);
        assert!(complaints("source", &[state(1, queued), state(2, source)]).is_empty());
        for (ended, events) in [
            ("source", vec![state(1, queued), state(3, source)]),
            ("queued", vec![state(1, source), state(2, queued)]),
            ("build", vec![state(1, source)]),
            ("running", vec![state(1, DeploymentState::Running)]),
            ("failed", vec![]),
        ] {
            assert!(!complaints(ended, &events).is_empty(), "{ended} {events:?}");
        }
    }
}
