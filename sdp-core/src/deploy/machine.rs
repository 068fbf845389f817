//! The state machine of one deployment. It does no I/O and has no clock: inputs and the time since
//! the deployment began go in, commands come out.
//!
//! Whoever drives it carries the commands out in order and feeds back what happened. Every
//! [`EventKind::State`] and [`EventKind::Stage`] of a pipeline comes from here, so that every change
//! of state that anyone sees is a legal one.

use std::time::Duration;

use crate::{
    model::{
        deployment::{DeploymentState, Failure, Stage, StageStatus},
        event::EventKind,
        units::format_duration,
    },
    problem::ErrorCode,
};

/// How long each stage may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// What is looked at before the first stage. Default 1 minute.
    pub admission: Duration,
    /// `source`. Default 10 minutes, for the first clone of a large repository.
    pub source: Duration,
    /// `build`. Default 20 minutes: the repo's own `build_timeout` comes first.
    pub build: Duration,
    /// `start`. Default 2 minutes.
    pub start: Duration,
    /// `health`. Default 10 minutes: the repo's own health time-out comes first.
    pub health: Duration,
    /// `routes`. Default 1 minute.
    pub routes: Duration,
    /// How long an aborted stage may take to return, and putting the previous instance back may
    /// take. Default 1 minute.
    pub grace: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            admission: Duration::from_secs(60),
            source: Duration::from_secs(600),
            build: Duration::from_secs(1200),
            start: Duration::from_secs(120),
            health: Duration::from_secs(600),
            routes: Duration::from_secs(60),
            grace: Duration::from_secs(60),
        }
    }
}

impl Deadlines {
    fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Source => self.source,
            Stage::Build => self.build,
            Stage::Start => self.start,
            Stage::Health => self.health,
            Stage::Routes => self.routes,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The deployment's turn has come.
    Begin,
    /// The stage under way did what it is for.
    StageDone {
        /// Whether there was nothing to do.
        skipped: bool,
    },
    /// The stage under way failed.
    StageFailed(Failure),
    /// Something outside the stage makes going on impossible.
    Fail(Failure),
    /// A person cancels.
    Cancel,
    /// Time has passed.
    Tick,
    /// The previous instance was put back, or there was none ([`Command::Revert`]).
    Reverted {
        /// Whether it serves again; none when there was none, or nothing had changed.
        restored: Option<bool>,
    },
    /// The previous instance is gone ([`Command::Settle`]).
    Settled,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Tell this.
    Emit(EventKind),
    /// Run this stage and answer with [`Input::StageDone`] or [`Input::StageFailed`].
    Run(Stage),
    /// Have the stage under way stop; it still answers.
    Abort,
    /// Drop the stage under way, if it has not answered; undo what was done, and answer with
    /// [`Input::Reverted`].
    Revert,
    /// Make the new instance final, and answer with [`Input::Settled`].
    Settle,
}

/// How an attempt that does not reach `running` ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Cancelled,
    Failed(Failure),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    New,
    Queued,
    Stage(Stage),
    Aborting(Stage, End),
    Reverting(End),
    Settling,
    Ended(DeploymentState, Option<Failure>),
}

/// One deployment on its way.
///
/// ```
/// use std::time::Duration;
/// use sdp_core::{Stage, deploy::{Command, Deadlines, Input, Machine}};
/// let mut machine = Machine::new(Deadlines::default());
/// machine.enqueue();
/// let commands = machine.on(Input::Begin, Duration::ZERO);
/// assert!(commands.contains(&Command::Run(Stage::Source)));
/// ```
#[derive(Debug)]
pub struct Machine {
    phase: Phase,
    deadlines: Deadlines,
    deadline: Option<Duration>,
}

impl Machine {
    /// A deployment that nobody has been told of yet.
    pub fn new(deadlines: Deadlines) -> Self {
        Self { phase: Phase::New, deadlines, deadline: None }
    }

    /// Puts it into the queue. The first call; others do nothing.
    pub fn enqueue(&mut self) -> Vec<Command> {
        if self.phase != Phase::New {
            return Vec::new();
        }
        self.phase = Phase::Queued;
        vec![emit_state(DeploymentState::Queued)]
    }

    /// Takes an input at `now`, the time since the deployment began. Inputs that do not fit the
    /// present phase change nothing.
    pub fn on(&mut self, input: Input, now: Duration) -> Vec<Command> {
        match (self.phase.clone(), input) {
            (Phase::Queued, Input::Begin) => self.enter(Stage::Source, now),
            (Phase::Queued, Input::Cancel) => self.end(End::Cancelled),
            (Phase::Queued, Input::Fail(failure)) => self.end(End::Failed(failure)),

            (Phase::Stage(stage), Input::StageDone { skipped }) => {
                let status = if skipped { StageStatus::Skipped } else { StageStatus::Done };
                let mut commands = vec![emit_stage(stage, status)];
                match stage.next() {
                    Some(next) => commands.extend(self.enter(next, now)),
                    None => {
                        self.move_to(Phase::Settling, Some(now + self.deadlines.grace));
                        commands.push(Command::Settle);
                    }
                }
                commands
            }
            (Phase::Stage(stage), Input::StageFailed(failure)) => self.revert(stage, End::Failed(failure), now),
            (Phase::Stage(stage), Input::Cancel) => self.abort(stage, End::Cancelled, now),
            (Phase::Stage(stage), Input::Fail(failure)) => self.abort(stage, End::Failed(failure), now),
            (Phase::Stage(stage), Input::Tick) if self.is_due(now) => {
                let limit = format_duration(self.deadlines.of(stage));
                let failure = Failure {
                    stage: Some(stage),
                    code: ErrorCode::Timeout,
                    reason: format!("stage {stage} took longer than {limit}"),
                    previous_restored: None,
                };
                self.abort(stage, End::Failed(failure), now)
            }

            (Phase::Aborting(stage, end), Input::StageDone { .. } | Input::StageFailed(_)) => {
                self.revert(stage, end, now)
            }
            (Phase::Aborting(stage, end), Input::Tick) if self.is_due(now) => self.revert(stage, end, now),

            (Phase::Reverting(end), Input::Reverted { restored }) => self.end(with_restored(end, restored)),
            (Phase::Reverting(end), Input::Tick) if self.is_due(now) => self.end(with_restored(end, Some(false))),

            (Phase::Settling, Input::Settled) => self.run(),
            (Phase::Settling, Input::Tick) if self.is_due(now) => self.run(),

            _ => Vec::new(),
        }
    }

    /// When [`Input::Tick`] is due next, as time since the deployment began.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The state it ended in, and why if it failed; none while it is on its way.
    pub fn ended(&self) -> Option<(DeploymentState, Option<&Failure>)> {
        match &self.phase {
            Phase::Ended(state, failure) => Some((*state, failure.as_ref())),
            _ => None,
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    fn move_to(&mut self, phase: Phase, deadline: Option<Duration>) {
        self.phase = phase;
        self.deadline = deadline;
    }

    fn enter(&mut self, stage: Stage, now: Duration) -> Vec<Command> {
        self.move_to(Phase::Stage(stage), Some(now + self.deadlines.of(stage)));
        vec![emit_state(stage.into()), emit_stage(stage, StageStatus::Started), Command::Run(stage)]
    }

    fn abort(&mut self, stage: Stage, end: End, now: Duration) -> Vec<Command> {
        self.move_to(Phase::Aborting(stage, end), Some(now + self.deadlines.grace));
        vec![Command::Abort]
    }

    fn revert(&mut self, stage: Stage, end: End, now: Duration) -> Vec<Command> {
        let status = match end {
            End::Cancelled => StageStatus::Cancelled,
            End::Failed(_) => StageStatus::Failed,
        };
        self.move_to(Phase::Reverting(end), Some(now + self.deadlines.grace));
        vec![emit_stage(stage, status), Command::Revert]
    }

    fn run(&mut self) -> Vec<Command> {
        self.move_to(Phase::Ended(DeploymentState::Running, None), None);
        vec![emit_state(DeploymentState::Running)]
    }

    fn end(&mut self, end: End) -> Vec<Command> {
        let (state, failure) = match end {
            End::Cancelled => (DeploymentState::Cancelled, None),
            End::Failed(failure) => (DeploymentState::Failed, Some(failure)),
        };
        self.move_to(Phase::Ended(state, failure.clone()), None);
        vec![Command::Emit(EventKind::State { state, failure })]
    }
}

fn with_restored(end: End, previous_restored: Option<bool>) -> End {
    match end {
        End::Failed(failure) => End::Failed(Failure { previous_restored, ..failure }),
        End::Cancelled => End::Cancelled,
    }
}

fn emit_state(state: DeploymentState) -> Command {
    Command::Emit(EventKind::state(state))
}

fn emit_stage(stage: Stage, status: StageStatus) -> Command {
    Command::Emit(EventKind::Stage { stage, status })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failure() -> Failure {
        Failure { stage: None, code: ErrorCode::Internal, reason: "x".into(), previous_restored: None }
    }

    fn begun() -> Machine {
        let mut machine = Machine::new(Deadlines::default());
        machine.enqueue();
        machine.on(Input::Begin, Duration::ZERO);
        machine
    }

    const DONE: Input = Input::StageDone { skipped: false };

    #[test]
    fn five_done_stages_and_a_settled_replacement_make_it_run() {
        let mut machine = begun();
        for _ in 0..4 {
            assert!(matches!(machine.on(DONE, Duration::ZERO).last(), Some(Command::Run(_))));
        }
        assert_eq!(machine.on(DONE, Duration::ZERO).last(), Some(&Command::Settle));
        assert_eq!(machine.on(Input::Settled, Duration::ZERO), [emit_state(DeploymentState::Running)]);
        assert_eq!(machine.ended(), Some((DeploymentState::Running, None)));
    }

    #[test]
    fn cancelling_waits_for_the_stage_then_reverts_even_when_the_stage_made_it() {
        let mut machine = begun();
        assert_eq!(machine.on(Input::Cancel, Duration::ZERO), [Command::Abort]);
        let commands = machine.on(DONE, Duration::ZERO);
        assert_eq!(commands, [emit_stage(Stage::Source, StageStatus::Cancelled), Command::Revert]);
        machine.on(Input::Reverted { restored: None }, Duration::ZERO);
        assert_eq!(machine.ended(), Some((DeploymentState::Cancelled, None)));
    }

    #[test]
    fn a_stage_that_ignores_its_deadline_and_the_abort_is_dropped() {
        let mut machine = begun();
        let due = machine.deadline().unwrap();
        assert_eq!(machine.on(Input::Tick, due - Duration::from_millis(1)), []);
        assert_eq!(machine.on(Input::Tick, due), [Command::Abort]);
        let due = machine.deadline().unwrap();
        assert_eq!(machine.on(Input::Tick, due).last(), Some(&Command::Revert));
        let due = machine.deadline().unwrap();
        machine.on(Input::Tick, due);
        let (state, failure) = machine.ended().unwrap();
        assert_eq!((state, failure.unwrap().code), (DeploymentState::Failed, ErrorCode::Timeout));
        assert_eq!(failure.unwrap().previous_restored, Some(false));
    }

    #[test]
    fn what_is_cancelled_in_the_queue_never_starts() {
        let mut machine = Machine::new(Deadlines::default());
        machine.enqueue();
        assert_eq!(machine.on(Input::Cancel, Duration::ZERO), [emit_state(DeploymentState::Cancelled)]);
        assert_eq!(machine.on(Input::Begin, Duration::ZERO), []);
    }

    fn inputs() -> impl Strategy<Value = Vec<(Input, u64)>> {
        let input = prop_oneof![
            2 => Just(Input::Begin),
            6 => any::<bool>().prop_map(|skipped| Input::StageDone { skipped }),
            1 => Just(Input::StageFailed(failure())),
            1 => Just(Input::Fail(failure())),
            1 => Just(Input::Cancel),
            2 => Just(Input::Tick),
            2 => any::<Option<bool>>().prop_map(|restored| Input::Reverted { restored }),
            2 => Just(Input::Settled),
        ];
        proptest::collection::vec((input, 0u64..400), 0..40)
    }

    proptest! {
        #[test]
        fn whatever_happens_every_state_seen_is_a_legal_transition(inputs in inputs()) {
            let mut machine = Machine::new(Deadlines::default());
            let mut commands = machine.enqueue();
            let mut now = Duration::ZERO;
            for (input, seconds) in inputs {
                now += Duration::from_secs(seconds);
                commands.extend(machine.on(input, now));
            }
            let mut state: Option<DeploymentState> = None;
            let (mut replaced_by, mut undone, mut open) = (false, false, None);
            for command in commands {
                match command {
                    Command::Emit(EventKind::State { state: next, .. }) => {
                        if let Some(before) = state {
                            prop_assert!(before.can_become(next), "{} -> {}", before, next);
                        }
                        state = Some(next);
                    }
                    Command::Emit(EventKind::Stage { stage, status: StageStatus::Started }) => {
                        prop_assert_eq!(open.replace(stage), None, "one stage at a time");
                    }
                    Command::Emit(EventKind::Stage { stage, .. }) => {
                        prop_assert_eq!(open.take(), Some(stage), "a stage ends once, after it began");
                    }
                    Command::Emit(_) => {}
                    Command::Run(stage) => {
                        prop_assert!(!undone && !replaced_by, "nothing runs after the end has begun");
                        prop_assert_eq!(open, Some(stage));
                    }
                    Command::Abort => prop_assert!(open.is_some()),
                    Command::Revert => { prop_assert!(!undone && !replaced_by); undone = true; }
                    Command::Settle => { prop_assert!(!undone && !replaced_by); replaced_by = true; }
                }
            }
            let ended = machine.ended().map(|(ended, _)| ended);
            if let Some(ended) = ended {
                prop_assert_eq!(state, Some(ended));
                prop_assert_eq!(machine.deadline(), None);
            }
        }

        #[test]
        fn time_alone_ends_every_deployment_that_has_begun(inputs in inputs()) {
            let mut machine = begun();
            let mut now = Duration::ZERO;
            for (input, seconds) in inputs {
                now += Duration::from_secs(seconds);
                machine.on(input, now);
            }
            for _ in 0..4 {
                if let Some(deadline) = machine.deadline() {
                    now = now.max(deadline);
                    machine.on(Input::Tick, now);
                }
            }
            prop_assert!(machine.ended().is_some());
        }
    }
}
