//! The one pipeline: drives the state machine through the traits.

use std::{collections::VecDeque, num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    machine::{Command, Deadlines, Input, Machine},
    ports::PortPool,
    slots::BuildSlots,
    stages::{Stages, failure},
};
use crate::{
    deployer::{DeployError, Deployer, Replacement},
    events::EventSink,
    gateways::Gateways,
    model::{
        credentials::Credentials,
        deployment::{DeployRequest, DeploymentState, Failure},
        instance::Instance,
        names::RepoName,
        units::format_duration,
    },
    problem::{ErrorCode, Problem, chain},
    repos::RepoSource,
    routes::RouteStore,
};

/// Runs deployments: source, build, start, health, routes.
///
/// Cheap to clone and to share; deployments of different keys run side by side. Whoever calls
/// [`run`](Self::run) serialises the deployments of one key.
#[derive(Debug, Clone)]
pub struct Pipeline {
    pub(super) source: Arc<dyn RepoSource>,
    pub(super) deployer: Arc<dyn Deployer>,
    pub(super) gateways: Option<Gateways>,
    pub(super) ports: Arc<PortPool>,
    pub(super) advertise: String,
    pub(super) builds: Option<BuildSlots>,
    deadlines: Deadlines,
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// `running`, `failed` or `cancelled`.
    pub state: DeploymentState,
    /// Why it failed, when it did.
    pub failure: Option<Failure>,
    /// What runs now because of it.
    pub instance: Option<Instance>,
    /// Whether that ran before: it was as it would be made now.
    pub kept: bool,
    /// Set while the previous instance serves on, on its own port: [`Pipeline::retire`] ends it once
    /// nobody is sent there any more. The next deployment of the key does it too.
    pub retiring: Option<Replacement>,
}

impl Pipeline {
    /// A pipeline over a source of repos and a deployer; routes to what it deploys name the host
    /// `advertise`.
    pub fn new(
        source: Arc<dyn RepoSource>,
        deployer: Arc<dyn Deployer>,
        ports: Arc<PortPool>,
        advertise: impl Into<String>,
    ) -> Self {
        Self {
            source,
            deployer,
            gateways: None,
            ports,
            advertise: advertise.into(),
            builds: None,
            deadlines: Deadlines::default(),
        }
    }

    /// Says which repo is the gateway, and where its routes are.
    pub fn gateway(self, repo: RepoName, routes: Arc<dyn RouteStore>) -> Self {
        self.gateways(Gateways::new(repo, routes))
    }

    /// Says which repo is the gateway, and where the routes of the shared one and of sandboxes' own are.
    pub fn gateways(mut self, gateways: Gateways) -> Self {
        self.gateways = Some(gateways);
        self
    }

    /// Sets how many deployments may build at once; any number otherwise. The others wait, which counts against no
    /// deadline.
    pub fn builds(mut self, limit: NonZeroUsize) -> Self {
        self.builds = Some(BuildSlots::new(limit));
        self
    }

    /// Sets how long each stage may take.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Runs one deployment to its end, telling everything to `sink`. Never fails otherwise than by
    /// its answer, and returns only when nothing of it is under way any more.
    ///
    /// When `sink` stops accepting before the last stage is done, the deployment is undone and fails.
    /// Dropping the future abandons the deployment where it is: cancel it instead.
    pub async fn run(
        &self,
        request: &DeployRequest,
        credentials: Option<Credentials>,
        sink: &dyn EventSink,
        cancel: &CancellationToken,
    ) -> Finished {
        let stages = Stages::new(self, request, credentials, sink);
        let mut machine = Machine::new(self.deadlines.clone());
        let mut todo: VecDeque<Command> = machine.enqueue().into();
        let admitted = tokio::select! {
            biased;
            () = cancel.cancelled() => Input::Cancel,
            admitted = stages.admit() => admitted.map_or_else(refused, |()| Input::Begin),
            () = tokio::time::sleep(self.deadlines.admission) => refused(late(self.deadlines.admission)),
        };
        todo.extend(machine.on(admitted, Duration::ZERO));
        drive(&mut machine, todo, &stages, cancel).await;
        let (state, failure) = machine.ended().expect("drive returns when the machine has ended");
        let failure = failure.cloned();
        let (replacement, kept) = match state {
            DeploymentState::Running => stages.into_result(),
            _ => (None, None),
        };
        let instance = replacement.as_ref().map(|replacement| replacement.current.clone()).or_else(|| kept.clone());
        let retiring = replacement.filter(|replacement| replacement.beside);
        Finished { state, failure, instance, kept: kept.is_some(), retiring }
    }

    /// Ends what a deployment left serving beside itself. Called in turn with the key's deployments.
    ///
    /// # Errors
    /// [`DeployError`], as [`Deployer::retire`].
    pub async fn retire(&self, replacement: &Replacement) -> Result<(), DeployError> {
        match &replacement.previous {
            Some(previous) => self.deployer.retire(previous).await,
            None => Ok(()),
        }
    }
}

fn refused(problem: Problem) -> Input {
    Input::Fail(failure(None, &problem))
}

fn late(limit: Duration) -> Problem {
    let limit = format_duration(limit);
    let text = format!("what runs on this agent was not known within {limit}; see its engine's log, and deploy again");
    Problem::new(ErrorCode::Timeout, text)
}

/// Carries out the machine's commands until it has ended.
async fn drive(machine: &mut Machine, mut todo: VecDeque<Command>, stages: &Stages<'_>, cancel: &CancellationToken) {
    let began = Instant::now();
    // Stands still while the deployment waits for others.
    let elapsed = || began.elapsed().saturating_sub(stages.waited());
    let mut work: Option<BoxFuture<'_, Input>> = None;
    let mut abort = CancellationToken::new();
    let (mut cancel_told, mut sink_failed) = (false, false);
    loop {
        while let Some(command) = todo.pop_front() {
            match command {
                Command::Emit(kind) => {
                    let Err(error) = stages.emit(kind).await else { continue };
                    tracing::error!(error = chain(&error), "an event of a deployment was lost");
                    if !std::mem::replace(&mut sink_failed, true) {
                        let failure = failure(None, &Problem::from(&error));
                        todo.extend(machine.on(Input::Fail(failure), elapsed()));
                    }
                }
                Command::Run(stage) => {
                    abort = CancellationToken::new();
                    work = Some(stages.run(stage, abort.clone()).boxed());
                }
                Command::Abort => abort.cancel(),
                Command::Revert => work = Some(stages.revert().boxed()),
                Command::Settle => work = Some(stages.settle().boxed()),
            }
        }
        let Some(pending) = work.as_mut().filter(|_| machine.ended().is_none()) else { return };
        let deadline = machine.deadline().map(|after| began + after + stages.waited());
        let input = tokio::select! {
            input = pending => {
                work = None;
                input
            }
            () = cancel.cancelled(), if !cancel_told => {
                cancel_told = true;
                Input::Cancel
            }
            () = sleep_until(deadline) => Input::Tick,
        };
        todo.extend(machine.on(input, elapsed()));
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
