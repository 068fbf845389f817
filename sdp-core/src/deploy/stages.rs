//! What each stage does, and how it is undone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    machine::Input,
    pipeline::Pipeline,
    ports::{PortLease, PortPick, PortWish},
    slots::BuildSlot,
};
use crate::{
    deployer::{Artifact, DeployError, DeployJob, LogOptions, Probe, Replacement},
    events::{EventSink, SinkError},
    model::{
        agent::RepoInfo,
        credentials::Credentials,
        deployment::{DeployRequest, Failure, Stage},
        event::EventKind,
        instance::{Instance, InstanceState},
        names::EnvName,
        repo::{Checkout, RepoSpec},
        route::{RouteChanges, RouteOrigin, RouteTable},
        units::format_duration,
    },
    problem::{ErrorCode, Problem, chain},
    repos::RepoError,
    routes::RouteStore,
};

/// How many of an unhealthy instance's last lines its failure quotes.
const LAST_LINES: u32 = 10;

/// How long the health check waits for an engine that is away.
const ENGINE_PATIENCE: Duration = Duration::from_secs(60);

/// How often a picked port that turns out taken is replaced by another.
const PORT_PICKS: u32 = 10;

/// A failure told as a deployment's.
pub(super) fn failure(stage: Option<Stage>, problem: &Problem) -> Failure {
    Failure { stage, code: problem.code, reason: problem.detail.clone(), previous_restored: None }
}

/// One deployment's stages, and what they have done so far.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    pipeline: &'a Pipeline,
    request: &'a DeployRequest,
    credentials: Option<Credentials>,
    sink: &'a dyn EventSink,
    progress: Mutex<Progress>,
}

/// What has been done so far. Locked for moments only, never across an await.
#[derive(Debug, Default)]
struct Progress {
    repo: Option<RepoSpec>,
    env: BTreeMap<EnvName, String>,
    port: Option<PortLease>,
    /// The checkout before `source`, and whether `source` has begun to change it.
    previous_checkout: Option<Checkout>,
    source_begun: bool,
    job: Option<DeployJob>,
    artifact: Option<Artifact>,
    /// When the previous instance began to be replaced.
    swap_began: Option<Instant>,
    replacement: Option<Replacement>,
    /// The running instance that is left as it is.
    kept: Option<Instance>,
    waits: Waits,
}

/// The time that a deployment has waited for others.
#[derive(Debug, Default)]
struct Waits {
    ended: Duration,
    since: Option<Instant>,
}

/// Whether a stage had something to do.
enum Did {
    Work,
    Nothing,
}

impl<'a> Stages<'a> {
    pub(super) fn new(
        pipeline: &'a Pipeline,
        request: &'a DeployRequest,
        credentials: Option<Credentials>,
        sink: &'a dyn EventSink,
    ) -> Self {
        Self { pipeline, request, credentials, sink, progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn emit(&self, kind: EventKind) -> Result<(), SinkError> {
        self.sink.accept(kind).await.map(drop)
    }

    async fn note(&self, stage: Stage, line: impl Into<String>) -> Result<(), Problem> {
        self.emit(EventKind::note(stage, line)).await.map_err(|error| Problem::from(&error))
    }

    /// Checks, before anything is touched, what can be checked: repo, variables, port.
    pub(super) async fn admit(&self) -> Result<(), Problem> {
        let key = &self.request.key;
        let repos = self.pipeline.source.repos();
        let Some(repo) = repos.into_iter().find(|repo| repo.name == key.repo) else {
            return Err(Problem::from(&RepoError::UnknownRepo { repo: key.repo.clone() }).field("repo"));
        };
        let mut env = repo.env.clone();
        env.extend(self.request.env.clone());
        if let Some((name, _)) = env.iter().find(|(_, value)| value.contains('\0')) {
            let problem = Problem::new(ErrorCode::InvalidInput, format!("the value of `{name}` has a NUL character"));
            return Err(problem.field(format!("env.{name}")));
        }
        let running = self.pipeline.deployer.list().await.map_err(|error| Problem::from(&error))?;
        // A service is reached through the gateway's route, which is pointed at the new port.
        let is_routed = key.sandbox.is_some() && repo.service.is_some();
        let wish = match (self.request.host_port, self.request.picked_port) {
            (Some(port), _) => PortWish::This(port),
            // Who picked one knows whether the routes will follow.
            (None, None) if is_routed => PortWish::Another,
            (None, _) => PortWish::Same,
        };
        let pick = PortPick { port: self.request.picked_port, range: self.request.port_range.as_ref() };
        let lease = self.pipeline.ports.lease(key, wish, pick, &running);
        let port = lease.map_err(|error| Problem::from(&error))?;
        let mut progress = self.progress();
        (progress.repo, progress.env, progress.port) = (Some(repo), env, Some(port));
        Ok(())
    }

    pub(super) async fn run(&self, stage: Stage, cancel: CancellationToken) -> Input {
        let outcome = match stage {
            Stage::Source => self.source(&cancel).await,
            Stage::Build => self.build(&cancel).await,
            Stage::Start => self.start(&cancel).await,
            Stage::Health => self.health(&cancel).await,
            Stage::Routes => self.routes().await,
        };
        match outcome {
            Ok(did) => Input::StageDone { skipped: matches!(did, Did::Nothing) },
            Err(problem) => Input::StageFailed(failure(Some(stage), &problem)),
        }
    }

    async fn source(&self, cancel: &CancellationToken) -> Result<Did, Problem> {
        let DeployRequest { key, branch, commit, deployment, .. } = self.request;
        let credentials = self.credentials.as_ref();
        let source = &self.pipeline.source;
        // One that cannot be read is healed by `prepare`, and is nothing to go back to.
        let previous = source.checkout(key).await.unwrap_or_default();
        {
            let mut progress = self.progress();
            (progress.previous_checkout, progress.source_begun) = (previous, true);
        }
        let checkout = match commit {
            Some(commit) => source.prepare_commit(key, branch, commit, credentials, self.sink, cancel).await,
            None => source.prepare(key, branch, credentials, self.sink, cancel).await,
        };
        let checkout = checkout.map_err(|error| Problem::from(&error))?;
        let found = EventKind::Source { branch: checkout.branch.clone(), commit: checkout.commit.clone() };
        self.emit(found).await.map_err(|error| Problem::from(&error))?;
        let mut progress = self.progress();
        let (Some(repo), Some(port)) = (progress.repo.clone(), &progress.port) else { return Err(out_of_order()) };
        progress.job = Some(DeployJob {
            deployment: *deployment,
            key: key.clone(),
            repo,
            checkout,
            host_port: port.port(),
            env: progress.env.clone(),
        });
        Ok(Did::Work)
    }

    async fn build(&self, cancel: &CancellationToken) -> Result<Did, Problem> {
        let job = self.job()?;
        let _slot = self.build_slot(cancel).await?;
        let artifact = self.pipeline.deployer.build(&job, self.sink, cancel).await.map_err(|e| Problem::from(&e))?;
        let reused = artifact.reused;
        self.progress().artifact = Some(artifact);
        Ok(if reused { Did::Nothing } else { Did::Work })
    }

    /// Waits until it may build.
    async fn build_slot(&self, cancel: &CancellationToken) -> Result<Option<BuildSlot>, Problem> {
        let Some(slots) = &self.pipeline.builds else { return Ok(None) };
        if let Some(slot) = slots.try_take() {
            return Ok(Some(slot));
        }
        let limit = slots.limit();
        let line = format!("waiting: as many builds run on this machine as may at once ({limit})");
        self.note(Stage::Build, line).await?;
        self.progress().waits.since = Some(Instant::now());
        let slot = tokio::select! {
            slot = slots.take() => Ok(Some(slot)),
            () = cancel.cancelled() => Err(Problem::from(&DeployError::Cancelled)),
        };
        let waited = {
            let waits = &mut self.progress().waits;
            let waited = waits.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            waits.ended += waited;
            waited
        };
        let ms = waited.as_millis();
        self.note(Stage::Build, format!("waited {ms} ms")).await?;
        slot
    }

    /// How long it has waited for other deployments so far.
    pub(super) fn waited(&self) -> Duration {
        let waits = &self.progress().waits;
        waits.ended + waits.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    async fn start(&self, cancel: &CancellationToken) -> Result<Did, Problem> {
        let mut job = self.job()?;
        let artifact = self.progress().artifact.clone().ok_or_else(out_of_order)?;
        if let Some(kept) = self.as_it_would_be(&job, &artifact).await? {
            let line = format!("{} runs this commit with these settings already: it is left as it is", kept.name);
            self.note(Stage::Start, line).await?;
            self.progress().kept = Some(kept.clone());
            self.tell_endpoint(&job.repo, &kept).await?;
            return Ok(Did::Nothing);
        }
        let mut picks_left = PORT_PICKS;
        self.progress().swap_began = Some(Instant::now());
        let replacement = loop {
            match self.pipeline.deployer.start(&job, &artifact, self.sink, cancel).await {
                Ok(replacement) => break replacement,
                // A port that was picked, not asked for, may have been taken while the build ran.
                Err(DeployError::PortTaken { port, holder }) if self.request.host_port.is_none() && picks_left > 0 => {
                    picks_left -= 1;
                    self.note(Stage::Start, format!("port {port} is taken by {holder}; picking another")).await?;
                    job = self.pick_another_port().await?;
                }
                Err(error) => return Err(Problem::from(&error)),
            }
        };
        let current = replacement.current.clone();
        self.progress().replacement = Some(replacement);
        self.tell_endpoint(&job.repo, &current).await?;
        Ok(Did::Work)
    }

    /// The running instance, when it is healthy and nothing of it would be another one after a start.
    async fn as_it_would_be(&self, job: &DeployJob, artifact: &Artifact) -> Result<Option<Instance>, Problem> {
        if self.request.force {
            return Ok(None);
        }
        let deployer = &self.pipeline.deployer;
        let unchanged = deployer.unchanged(job, artifact).await.map_err(|error| Problem::from(&error))?;
        let on_its_port = |instance: &Instance| self.request.host_port.is_none_or(|port| port == instance.host_port);
        let Some(instance) = unchanged.filter(on_its_port) else { return Ok(None) };
        let healthy = matches!(deployer.probe(&instance, &job.repo.health.probe).await, Ok(Probe::Healthy));
        Ok(healthy.then_some(instance))
    }

    async fn tell_endpoint(&self, repo: &RepoSpec, instance: &Instance) -> Result<(), Problem> {
        let host = instance.host.as_deref().unwrap_or(&self.pipeline.advertise);
        let endpoint = EventKind::Endpoint {
            host_port: instance.host_port,
            url: RepoInfo::from(repo).url(host, instance.host_port),
            instance: instance.name.clone(),
        };
        self.emit(endpoint).await.map_err(|error| Problem::from(&error))
    }

    async fn pick_another_port(&self) -> Result<DeployJob, Problem> {
        let mut running = self.pipeline.deployer.list().await.map_err(|error| Problem::from(&error))?;
        // The port of the instance before is what has just been refused.
        running.retain(|instance| instance.key != self.request.key);
        let mut progress = self.progress();
        progress.port = None;
        let pick = PortPick { port: None, range: self.request.port_range.as_ref() };
        let lease = self.pipeline.ports.lease(&self.request.key, PortWish::Same, pick, &running);
        let lease = lease.map_err(|error| Problem::from(&error))?;
        let job = progress.job.as_mut().ok_or_else(out_of_order)?;
        job.host_port = lease.port();
        let job = job.clone();
        progress.port = Some(lease);
        Ok(job)
    }

    async fn health(&self, cancel: &CancellationToken) -> Result<Did, Problem> {
        if self.progress().kept.is_some() {
            return Ok(Did::Nothing);
        }
        let check = self.job()?.repo.health;
        let replacement = self.progress().replacement.clone().ok_or_else(out_of_order)?;
        let deployer = &self.pipeline.deployer;
        let began = Instant::now();
        let (mut told, mut absence) = (String::new(), Absence::default());
        loop {
            let probe = tokio::select! {
                probe = deployer.probe(&replacement.current, &check.probe) => probe,
                () = cancel.cancelled() => Err(DeployError::Cancelled),
            };
            let probe = match probe {
                Err(error @ DeployError::EngineAway { .. }) if absence.lasts() <= ENGINE_PATIENCE => {
                    absence.goes_on();
                    Ok(Probe::NotYet(chain(&error)))
                }
                probe => probe.inspect(|_| absence.ends()),
            };
            match probe.map_err(|error| Problem::from(&error))? {
                Probe::Healthy => {
                    let ms = began.elapsed().as_millis();
                    self.note(Stage::Health, format!("healthy after {ms} ms")).await?;
                    self.tell_gap(&replacement).await?;
                    return Ok(Did::Work);
                }
                // An engine that comes back starts only what had proved healthy.
                Probe::TakenDown => {
                    self.note(Stage::Health, "the container engine was restarted; starting the instance again").await?;
                    deployer.restart(&self.request.key).await.map_err(|error| Problem::from(&error))?;
                }
                Probe::Dead { exit_code, last_lines } => {
                    let tail = crate::deployer::tail(&last_lines);
                    let text = format!("{} exited with {exit_code}{tail}", replacement.current.name);
                    return Err(Problem::new(ErrorCode::Unhealthy, text));
                }
                Probe::NotYet(reason) if began.elapsed() >= check.timeout + absence.total() => {
                    let tail = crate::deployer::tail(&self.last_lines().await);
                    let limit = format_duration(check.timeout);
                    let text = format!("not healthy after {limit}: {reason}; its program still runs{tail}");
                    return Err(Problem::new(ErrorCode::Unhealthy, text));
                }
                Probe::NotYet(reason) => {
                    if reason != told {
                        self.note(Stage::Health, format!("waiting: {reason}")).await?;
                        told = reason;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(check.interval) => {}
                () = cancel.cancelled() => return Err(Problem::from(&DeployError::Cancelled)),
            }
        }
    }

    /// Says how long nobody served while one instance took the other's place.
    async fn tell_gap(&self, replacement: &Replacement) -> Result<(), Problem> {
        let Some(previous) = &replacement.previous else { return Ok(()) };
        let (port, began) = (previous.host_port, self.progress().swap_began);
        let line = match began {
            _ if replacement.beside => format!("no gap: the previous instance serves on port {port} meanwhile"),
            Some(began) if previous.state == InstanceState::Running => {
                format!("nobody served for at most {} ms", began.elapsed().as_millis())
            }
            _ => return Ok(()),
        };
        self.note(Stage::Health, line).await
    }

    async fn routes(&self) -> Result<Did, Problem> {
        let Some(routes) = self.routes_of_this_gateway()? else { return Ok(Did::Nothing) };
        let defaults = routes.snapshot(&self.request.branch).await.map_err(|error| Problem::from(&error))?;
        self.note(Stage::Routes, format!("{} services have defaults on this branch", defaults.services.len())).await?;
        let table = routes.apply(&RouteChanges::default()).await.map_err(|error| Problem::from(&error))?;
        self.tell_routes(table).await?;
        Ok(Did::Work)
    }

    async fn tell_routes(&self, table: RouteTable) -> Result<(), Problem> {
        for warning in table.warnings {
            self.note(Stage::Routes, format!("warning: {warning}")).await?;
        }
        for route in table.routes.into_iter().filter(|route| route.origin != RouteOrigin::Ocp) {
            self.emit(EventKind::Route { route }).await.map_err(|error| Problem::from(&error))?;
        }
        Ok(())
    }

    /// Undoes what was done. What cannot be undone is told and gone past: the rest is undone all
    /// the same.
    pub(super) async fn revert(&self) -> Input {
        let (replacement, previous) = {
            let mut progress = self.progress();
            let previous = progress.previous_checkout.take().filter(|_| progress.source_begun);
            (progress.replacement.take(), previous)
        };
        // First the checkout: the previous instance may be served from it.
        let rewound = match &previous {
            Some(previous) => self.rewind(previous).await,
            None => false,
        };
        let restored = match &replacement {
            Some(replacement) => self.put_back(replacement).await,
            None => None,
        };
        if rewound
            && let Ok(Some(routes)) = self.routes_of_this_gateway()
            && let Err(error) = routes.apply(&RouteChanges::default()).await
        {
            self.tell(format!("the overrides could not be applied again: {}", chain(&error))).await;
        }
        Input::Reverted { restored }
    }

    async fn rewind(&self, previous: &Checkout) -> bool {
        let rewound = self.pipeline.source.rewind(&self.request.key, previous).await;
        if let Err(error) = &rewound {
            self.tell(format!("the checkout could not be put back: {}", chain(error))).await;
        }
        rewound.is_ok()
    }

    async fn put_back(&self, replacement: &Replacement) -> Option<bool> {
        match self.pipeline.deployer.revert(replacement).await {
            Ok(false) => None,
            Ok(true) => {
                self.tell("the previous instance serves again").await;
                Some(true)
            }
            Err(error) => {
                self.tell(format!("the previous instance could not be put back: {}", chain(&error))).await;
                replacement.previous.as_ref().map(|_| false)
            }
        }
    }

    pub(super) async fn settle(&self) -> Input {
        let replacement = self.progress().replacement.clone();
        // One that serves on beside it is ended later: see `Pipeline::retire`.
        let replacement = replacement.map(|it| if it.beside { Replacement { previous: None, ..it } } else { it });
        if let Some(replacement) = replacement
            && let Err(error) = self.pipeline.deployer.settle(&replacement).await
        {
            self.tell(format!("the previous instance could not be removed: {}", chain(&error))).await;
        }
        Input::Settled
    }

    /// Tells something on the way out, where a sink that fails changes nothing any more.
    async fn tell(&self, line: impl Into<String>) {
        if let Err(error) = self.emit(EventKind::note(Stage::Start, line)).await {
            tracing::error!(error = chain(&error), "an event of a deployment was lost");
        }
    }

    /// What was made, or what was left as it is.
    pub(super) fn into_result(self) -> (Option<Replacement>, Option<Instance>) {
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        (progress.replacement, progress.kept)
    }

    fn job(&self) -> Result<DeployJob, Problem> {
        self.progress().job.clone().ok_or_else(out_of_order)
    }

    /// The gateway's routes, when this deployment is of a gateway itself: the shared one, or the sandbox's own.
    fn routes_of_this_gateway(&self) -> Result<Option<Arc<dyn RouteStore>>, Problem> {
        let Some(gateways) = &self.pipeline.gateways else { return Ok(None) };
        gateways.routes_of(&self.request.key).map_err(|error| Problem::from(&error))
    }

    async fn last_lines(&self) -> Vec<String> {
        use futures_util::StreamExt;
        let options = LogOptions { tail: Some(LAST_LINES), follow: false };
        match self.pipeline.deployer.logs(&self.request.key, options).await {
            Ok(lines) => lines.filter_map(async |line| line.ok().map(|line| line.line)).collect().await,
            Err(_) => Vec::new(),
        }
    }
}

/// The times during a health check that the engine was away. They are not the program's.
#[derive(Debug, Default)]
struct Absence {
    since: Option<Instant>,
    past: Duration,
}

impl Absence {
    fn goes_on(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn ends(&mut self) {
        if let Some(since) = self.since.take() {
            self.past += since.elapsed();
        }
    }

    /// How long the present one has lasted.
    fn lasts(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn total(&self) -> Duration {
        self.past + self.lasts()
    }
}

fn out_of_order() -> Problem {
    Problem::new(ErrorCode::Internal, "a stage ran before the one it needs; please report this")
}
