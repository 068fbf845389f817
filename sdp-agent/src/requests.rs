//! The server's requests, each answered once.

use std::{borrow::Cow, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use sdp_core::{
    Branch, Credentials, DeployError, Deployer, ErrorCode, Examination, ExecCommand, ExecEvent, Gateways, InstanceKey,
    Problem, RepoSource, RouteStore, SandboxName, api,
    problem::chain,
    protocol::{CredentialsFrame, Outcome, OutputStep, Reply, ReplyBody, Request, RequestBody},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    AgentConfig,
    config::DeployerConfig,
    disk, doctor,
    output::{Command, Outputs, Piece},
    redact::Redactor,
    work::Work,
};

/// The longest that any request may take, whatever its deadline says.
const LONGEST: Duration = Duration::from_secs(3600);

/// Carries requests out. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    pub(crate) source: Arc<dyn RepoSource>,
    pub(crate) deployer: Arc<dyn Deployer>,
    pub(crate) gateways: Option<Gateways>,
    pub(crate) work: Work,
    pub(crate) redactor: Redactor,
    pub(crate) config: Arc<AgentConfig>,
    /// One examination at a time: two would meet in the files that they try.
    pub(crate) examining: Arc<Mutex<()>>,
    pub(crate) outputs: Outputs,
}

impl Requests {
    /// Carries a request out and answers it within its deadline. Work that has begun by then is
    /// not torn: it is told to stop, and ends as it can.
    pub(crate) async fn answer(&self, request: Request) -> Reply {
        let Request { id, deadline_ms, body } = request;
        let deadline = Duration::from_millis(deadline_ms).min(LONGEST);
        let redactor = match credentials_of(&body) {
            Some(credentials) => self.redactor.clone().credentials(credentials),
            None => self.redactor.clone(),
        };
        let cancel = CancellationToken::new();
        let work = tokio::spawn(self.clone().perform(body, deadline, cancel.clone()));
        let outcome = match tokio::time::timeout(deadline, work).await {
            Ok(Ok(Ok(body))) => Outcome::Ok(body),
            Ok(Ok(Err(problem))) => Outcome::Problem(redactor.problem(problem)),
            Ok(Err(_)) => {
                let sentence = "the agent failed while it carried the request out; its log says more";
                Outcome::Problem(Problem::new(ErrorCode::Internal, sentence))
            }
            Err(_) => {
                cancel.cancel();
                let sentence = format!("the agent was not done within {} ms", deadline.as_millis());
                Outcome::Problem(Problem::new(ErrorCode::Timeout, sentence))
            }
        };
        Reply { id, outcome }
    }

    async fn perform(
        self,
        body: RequestBody,
        deadline: Duration,
        cancel: CancellationToken,
    ) -> Result<ReplyBody, Problem> {
        match body {
            RequestBody::Verify { repo, credentials } => {
                let repo = repo.or_else(|| self.gateways.as_ref().map(|gateways| gateways.repo().clone()));
                let verified = self.source.verify(repo.as_ref(), &credentials.0, &cancel).await;
                verified.map_err(|error| Problem::from(&error))?;
            }
            RequestBody::Branches { repo, credentials, query, limit } => {
                let credentials = credentials.map(|frame| frame.0);
                let branches = self.source.branches(&repo, credentials.as_ref(), &cancel).await;
                let branches = branches.map_err(|error| Problem::from(&error))?;
                return Ok(ReplyBody::Branches { branches: matching(branches, query.as_deref(), limit) });
            }
            RequestBody::Deploy { request, credentials } => {
                self.work.deploy(*request, credentials.map(|frame| frame.0))?;
            }
            RequestBody::Cancel { deployment } => self.work.cancel(deployment)?,
            RequestBody::Stop { key } => self.work.stop(&key, &cancel).await?,
            RequestBody::Restart { key } => self.work.restart(&key, &cancel).await?,
            RequestBody::Remove { key } => self.work.remove(&key, &cancel).await?,
            RequestBody::Retire { deployment } => self.work.retire(deployment),
            RequestBody::Instances => {
                let instances = self.deployer.list().await.map_err(|error| Problem::from(&error))?;
                return Ok(ReplyBody::Instances { instances });
            }
            RequestBody::Stats { key } => {
                let (instance, stats) = tokio::join!(self.deployer.inspect(&key), self.deployer.stats(&key));
                let instance = Box::new(instance.map_err(|error| Problem::from(&error))?);
                return Ok(ReplyBody::Stats { instance, stats: stats.map_err(|error| Problem::from(&error))? });
            }
            RequestBody::Output { key, reader, step } => {
                let Piece { mut lines, ended, exit_code } = match step {
                    OutputStep::Begin(options) => {
                        let lines = self.deployer.logs(&key, options).await.map_err(|error| Problem::from(&error))?;
                        self.outputs.begin(reader, lines.map_ok(ExecEvent::Line).boxed()).await?
                    }
                    OutputStep::Exec(command) => {
                        let command = self.run(&key, &command, &cancel).await?;
                        self.outputs.begin_command(reader, command).await?
                    }
                    // The answer has to be there before the deadline, or what it holds is lost.
                    OutputStep::Next => self.outputs.go_on(reader, deadline / 2).await?,
                    OutputStep::End => {
                        self.outputs.end(reader);
                        Piece { ended: true, ..Piece::default() }
                    }
                };
                for line in &mut lines {
                    if let Cow::Owned(masked) = self.redactor.text(&line.line) {
                        line.line = masked;
                    }
                }
                return Ok(ReplyBody::Output { lines, ended, exit_code });
            }
            RequestBody::Disks => {
                let disks = disk::of(&self.config).into_iter().filter_map(|disk| {
                    disk.inspect_err(|error| tracing::warn!(error = chain(error), "a disk cannot be told")).ok()
                });
                return Ok(ReplyBody::Disks { disks: disks.collect() });
            }
            RequestBody::Examine => {
                let examined = cancel.run_until_cancelled(async {
                    let _turn = self.examining.lock().await;
                    doctor::examine(&self.config).await
                });
                let Some(mut examination) = examined.await else {
                    return Err(Problem::new(ErrorCode::Timeout, "nobody waits for the examination any more"));
                };
                self.redact(&mut examination);
                return Ok(ReplyBody::Examined { examination });
            }
            RequestBody::Checkouts => {
                let keys = self.source.sandbox_checkouts().await.map_err(|error| Problem::from(&error))?;
                return Ok(ReplyBody::Checkouts { keys });
            }
            RequestBody::Routes { sandbox } => {
                let routes = self.routes(sandbox.as_ref())?;
                let table = routes.table().await.map_err(|error| Problem::from(&error))?;
                return Ok(ReplyBody::Routes { table });
            }
            RequestBody::Explain { question, sandbox } => {
                let routes = self.routes(sandbox.as_ref())?;
                let explanation = routes.explain(&question).await.map_err(|error| Problem::from(&error))?;
                return Ok(ReplyBody::Explanation { explanation });
            }
            RequestBody::ApplyRoutes { changes, sandbox } => {
                let table =
                    self.routes(sandbox.as_ref())?.apply(&changes).await.map_err(|error| Problem::from(&error))?;
                self.work.gateway_may_have_changed();
                return Ok(ReplyBody::Routes { table });
            }
            _ => {
                let sentence = "this agent does not know that request; it is older than the server: update it";
                return Err(Problem::new(ErrorCode::Unsupported, sentence));
            }
        }
        Ok(ReplyBody::Done)
    }

    /// Runs a command, if the operator allows it and there is a place for it.
    async fn run(
        &self,
        key: &InstanceKey,
        command: &ExecCommand,
        cancel: &CancellationToken,
    ) -> Result<Command, Problem> {
        let DeployerConfig { exec, exec_timeout: limit, .. } = self.config.deployer;
        if !exec {
            return Err(api::exec::not_allowed_by(&self.config.name));
        }
        let place = self.outputs.admit_command()?;
        tracing::info!(%key, program = command.program(), "running a command");
        let begin = async {
            // Those that an earlier agent left are ended by then.
            self.work.ready().await;
            self.deployer.exec(key, command).await
        };
        let begun = tokio::select! {
            begun = begin => begun,
            () = cancel.cancelled() => Err(DeployError::Cancelled),
            () = self.outputs.closed().cancelled() => Err(DeployError::Cancelled),
        };
        let events = begun.map_err(|error| Problem::from(&error))?;
        Ok(Command { events, place, limit })
    }

    fn redact(&self, examination: &mut Examination) {
        for finding in &mut examination.findings {
            finding.evidence = self.redactor.text(&finding.evidence).into_owned();
        }
    }

    fn routes(&self, sandbox: Option<&SandboxName>) -> Result<Arc<dyn RouteStore>, Problem> {
        let sentence = "this agent has no gateway: add [gateway] to its configuration, or ask the agent that has it";
        let gateways = self.gateways.as_ref().ok_or_else(|| Problem::new(ErrorCode::NotFound, sentence))?;
        gateways.routes(sandbox).map_err(|error| Problem::from(&error))
    }
}

fn credentials_of(body: &RequestBody) -> Option<&Credentials> {
    match body {
        RequestBody::Verify { credentials, .. } => Some(&credentials.0),
        RequestBody::Branches { credentials, .. } | RequestBody::Deploy { credentials, .. } => {
            credentials.as_ref().map(|CredentialsFrame(credentials)| credentials)
        }
        _ => None,
    }
}

fn matching(branches: Vec<Branch>, query: Option<&str>, limit: u32) -> Vec<Branch> {
    let query = query.unwrap_or_default().to_lowercase();
    let matches = |branch: &Branch| branch.name.as_str().to_lowercase().contains(&query);
    branches.into_iter().filter(matches).take(limit as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_found_by_any_part_of_their_name_and_limited() {
        let branch = |name: &str| Branch { name: name.parse().unwrap(), commit: "a".repeat(40).parse().unwrap() };
        let all = || vec![branch("feature/SHOP-1"), branch("main"), branch("shop")];
        let names = |found: Vec<Branch>| found.into_iter().map(|branch| branch.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(matching(all(), Some("shop"), 10)), ["feature/SHOP-1", "shop"]);
        assert_eq!(names(matching(all(), Some("SHOP"), 1)), ["feature/SHOP-1"]);
        assert_eq!(names(matching(all(), None, 2)), ["feature/SHOP-1", "main"]);
    }
}
