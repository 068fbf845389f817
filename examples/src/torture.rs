//! Blows to the real daemons in the middle of deployments, counted: what must never happen, did it?
//!
//! The server and the agent are processes of their own, killed with SIGKILL at a random moment of a
//! deployment and started again at once; the connection between them is reset, lets nothing pass any
//! more, or is robbed of WebSockets; their disks are full or fail; and frames come that make no sense.

mod frames;
mod rig;

use std::{fmt, path::Path, time::Duration};

use rand::RngExt as _;
use sdp_core::{
    Deployment, DeploymentState,
    api::{CreateSandbox, Page},
};

use self::rig::Rig;
use crate::{Failed, judge::judge, middlebox::Upgrades};

/// A strike comes within this time after the deployment was asked for; one takes about a second.
const STRIKE_WITHIN: Duration = Duration::from_millis(1500);
/// How long a disk is full or fails.
const DISK_TROUBLE: Duration = Duration::from_secs(1);

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strike {
    KillServer,
    KillAgent,
    CutLink,
    BlockUpgrades,
    AllowUpgrades,
    StallLink,
    FillServersDisk,
    FillAgentsDisk,
    FailServersDisk,
    FailAgentsDisk,
}

/// How often each.
#[derive(Debug, Clone, Copy)]
pub struct Strikes {
    /// The server and the agent killed, and the link between them reset, in turns.
    pub each: usize,
    /// The link blocked, so that both sides have to notice by themselves; each takes some 20 s.
    pub stalls: usize,
    /// Disks full and disks failing, under the server and under the agent, in turns.
    pub disks: usize,
    /// Frames that make no sense, to the server and to the agent.
    pub frames: usize,
}

impl Strikes {
    /// A hundred kills, or another number, and all else in proportion.
    pub fn times(times: usize) -> Self {
        Self { each: times, stalls: times.div_ceil(10), disks: times.div_ceil(4), frames: times * 100 }
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Report {
    strikes: std::collections::BTreeMap<Strike, usize>,
    running: usize,
    failed: usize,
    never_accepted: usize,
    events: usize,
    frames: frames::Count,
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
        let count = |strike| self.strikes.get(&strike).copied().unwrap_or_default();
        writeln!(
            f,
            "killed: the server {} times, the agent {} times",
            count(Strike::KillServer),
            count(Strike::KillAgent)
        )?;
        writeln!(
            f,
            "link: reset {} times, half-open {}, WebSockets blocked {} and allowed again {}",
            count(Strike::CutLink),
            count(Strike::StallLink),
            count(Strike::BlockUpgrades),
            count(Strike::AllowUpgrades)
        )?;
        writeln!(
            f,
            "disks: full {} times under the server's logs and {} under the agent's outbox, failing {} and {}",
            count(Strike::FillServersDisk),
            count(Strike::FillAgentsDisk),
            count(Strike::FailServersDisk),
            count(Strike::FailAgentsDisk)
        )?;
        writeln!(f, "frames: {}", self.frames)?;
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

/// Strikes. `program` is the harness itself, which runs as `PROGRAM server CONFIG` and `PROGRAM agent
/// CONFIG` too.
///
/// # Errors
/// When the parts cannot be started; what they do wrong is in the report.
pub async fn run(program: &Path, strikes: Strikes) -> Result<Report, Failed> {
    use Strike::{
        AllowUpgrades, BlockUpgrades, CutLink, FailAgentsDisk, FailServersDisk, FillAgentsDisk, FillServersDisk,
        KillAgent, KillServer, StallLink,
    };
    let mut report = Report::default();
    let turns = (0..strikes.each).flat_map(|turn| {
        // Every second turn goes over plain HTTP.
        let upgrades = if turn % 2 == 0 { BlockUpgrades } else { AllowUpgrades };
        [KillServer, KillAgent, CutLink, upgrades]
    });
    let blows = turns.chain(std::iter::repeat_n(StallLink, strikes.stalls));
    strike_all(program, false, blows, strikes.frames, &mut report).await?;
    let disks = [FillServersDisk, FillAgentsDisk, FailServersDisk, FailAgentsDisk];
    if strikes.disks > 0 {
        let blows = std::iter::repeat_n(disks, strikes.disks).flatten();
        strike_all(program, true, blows, 0, &mut report).await?;
    }
    Ok(report)
}

async fn strike_all(
    program: &Path,
    disks: bool,
    blows: impl Iterator<Item = Strike>,
    nonsense: usize,
    report: &mut Report,
) -> Result<(), Failed> {
    let mut rig = Rig::start(program, disks).await?;
    for (number, strike) in blows.enumerate() {
        round(&mut rig, number, strike, report).await.map_err(|failed| rig.explain(&failed))?;
    }
    if nonsense > 0 {
        frames::pelt(&rig, program, nonsense, report).await.map_err(|failed| rig.explain(&failed))?;
    }
    report.violations.extend(rig.panics()?);
    Ok(())
}

/// A deployment into a sandbox of its own, and a strike in the middle of it.
async fn round(rig: &mut Rig, number: usize, strike: Strike, report: &mut Report) -> Result<(), Failed> {
    let api = rig.sign_in().await?;
    let sandbox = format!("t{number}");
    let create = CreateSandbox::new(sandbox.parse()?);
    api.post::<_, serde_json::Value>("/api/sandboxes", &create).await?;
    let asking = tokio::spawn(rig.ask(&api, &sandbox));
    let pause = STRIKE_WITHIN.mul_f64(rand::rng().random_range(0.0..1.0));
    tokio::time::sleep(pause).await;
    deal(rig, strike).await?;
    *report.strikes.entry(strike).or_default() += 1;
    // What it says is of no matter: whether the deployment exists is asked afterwards.
    let _ = asking.await?;

    let api = rig.sign_in().await?;
    let page: Page<Deployment> = api.get(&format!("/api/deployments?sandbox={sandbox}")).await?;
    let ended = match page.items.first() {
        None => {
            report.never_accepted += 1;
            None
        }
        Some(deployment) => Some(rig.ended(&api, deployment.id).await?),
    };
    let mut complain = |what: String| {
        report.violations.push(format!("round {number}, {strike:?} after {pause:?}: {what}"));
    };
    if let Some(deployment) = &ended {
        let events = rig.events(deployment.id)?;
        judge(deployment, &events, &mut complain);
        let may_fail = matches!(strike, Strike::KillAgent | Strike::FailAgentsDisk);
        if !may_fail && deployment.state == DeploymentState::Failed && !events.is_empty() {
            complain(format!("it failed a deployment that had begun: {:?}", deployment.failure));
        }
        report.events += events.len();
        match deployment.state {
            DeploymentState::Running => report.running += 1,
            _ => report.failed += 1,
        }
    }
    let runs = usize::from(ended.is_some_and(|deployment| deployment.state == DeploymentState::Running));
    rig.expect_processes(&sandbox, runs, &mut complain).await;
    rig.delete(&sandbox).await?;
    rig.expect_processes(&sandbox, 0, &mut complain).await;
    Ok(())
}

async fn deal(rig: &mut Rig, strike: Strike) -> Result<(), Failed> {
    let trouble = tokio::time::sleep(DISK_TROUBLE);
    match strike {
        Strike::KillServer => rig.server.restart()?,
        Strike::KillAgent => rig.agent.restart()?,
        Strike::CutLink => rig.middlebox.cut(),
        Strike::StallLink => rig.middlebox.stall(),
        // The agent tries again after a minute, or when it has to connect anyway.
        Strike::AllowUpgrades => rig.middlebox.upgrades(Upgrades::Pass),
        Strike::BlockUpgrades => {
            rig.middlebox.upgrades(Upgrades::Reset);
            rig.middlebox.cut();
        }
        Strike::FillServersDisk | Strike::FillAgentsDisk => {
            let daemon = if strike == Strike::FillServersDisk { &rig.server } else { &rig.agent };
            daemon.fill_disk()?;
            trouble.await;
            daemon.empty_disk()?;
        }
        Strike::FailServersDisk | Strike::FailAgentsDisk => {
            let daemon = if strike == Strike::FailServersDisk { &rig.server } else { &rig.agent };
            daemon.fail_disk(true).await?;
            trouble.await;
            daemon.fail_disk(false).await?;
        }
    }
    Ok(())
}
