//! The demo's story: a feature branch takes over one service of the gateway, and gives it back.

use std::{collections::BTreeMap, io::Write};

use futures_util::future::try_join_all;
use sdp_core::{
    Deployment, DeploymentState, EventKind, LogStream, RepoName, RouteTarget, StageStatus,
    api::{CreateDeployment, CreateSandbox, DeployedSandbox},
};

use crate::{Failed, api::Api, content, playground::Playground};

/// Tells what happens, on standard output or into a test's buffer.
pub type Teller<'a> = &'a mut (dyn Write + Send);

/// The answers the gateway gave for the service of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Before: the stable service's.
    pub before: String,
    /// While routed to the sandbox: the feature branch's.
    pub during: String,
    /// After the toggle back: the stable service's again.
    pub after: String,
}

/// Runs the story on a playground: stable → sandbox → stable.
///
/// # Errors
/// Says which step failed, with the server's own sentence.
pub async fn run(playground: &Playground, out: Teller<'_>) -> Result<Answers, Failed> {
    let sandbox = "demo";
    writeln!(out, "1. Sign in as {} with git credentials, checked by a real ls-remote", content::USER)?;
    let api = playground.sign_in().await?;

    writeln!(out, "2. Deploy the gateway, branch main")?;
    deploy(&api, None, content::GATEWAY, "main", out).await?;
    let before = playground.ask_gateway(content::SERVICE).await?;
    writeln!(out, "   gateway answers: {before}")?;

    writeln!(out, "3. Deploy {} {} into sandbox `{sandbox}`", content::SERVICE, content::FEATURE)?;
    let create = CreateSandbox::new(sandbox.parse()?);
    api.post::<_, serde_json::Value>("/api/sandboxes", &create).await?;
    let deployment = deploy(&api, Some(sandbox), content::SERVICE, content::FEATURE, out).await?;
    writeln!(out, "   it answers on {}", deployment.url.as_deref().unwrap_or("?"))?;

    writeln!(out, "4. Route {}_url to the sandbox", content::SERVICE)?;
    api.route(sandbox, content::SERVICE, RouteTarget::Sandbox).await?;
    let during = playground.ask_gateway(content::SERVICE).await?;
    writeln!(out, "   gateway answers: {during}")?;

    writeln!(out, "5. Toggle it back to ocp")?;
    api.route(sandbox, content::SERVICE, RouteTarget::Ocp).await?;
    let after = playground.ask_gateway(content::SERVICE).await?;
    writeln!(out, "   gateway answers: {after}")?;

    if before == after && before != during {
        Ok(Answers { before, during, after })
    } else {
        Err(Failed("the gateway's answers are not stable, sandbox, stable".into()))
    }
}

/// Deploys a branch, telling each stage as it ends.
///
/// # Errors
/// The failure's own sentence, after the build's output.
pub async fn deploy(
    api: &Api,
    sandbox: Option<&str>,
    repo: &str,
    branch: &str,
    out: Teller<'_>,
) -> Result<Deployment, Failed> {
    let deployment = api.deploy(sandbox, &of_branch(repo, branch)?).await?;
    let mut output = Vec::new();
    let mut told = Ok(());
    let ended = api
        .follow(deployment.id, |event| match event {
            EventKind::Stage { stage, status } if *status != StageStatus::Started => {
                told = writeln!(out, "   {stage:<7} {status}");
            }
            EventKind::Log { line, stream, .. } if *stream != LogStream::Sdp => output.push(line.clone()),
            _ => {}
        })
        .await?;
    told?;
    if ended.state == DeploymentState::Running {
        return Ok(ended);
    }
    for line in output {
        writeln!(out, "   | {line}")?;
    }
    Err(did_not_come_up(&ended))
}

/// Asks for a branch of a repo, and leaves all else to the platform.
///
/// # Errors
/// When one of them is no name.
pub fn of_branch(repo: &str, branch: &str) -> Result<CreateDeployment, Failed> {
    Ok(CreateDeployment::new(repo.parse()?, branch.parse()?))
}

/// Deploys every service of a sandbox, and answers them by repo when all of them run.
///
/// # Errors
/// Why one does not.
pub async fn deploy_all(api: &Api, sandbox: &str) -> Result<BTreeMap<RepoName, Deployment>, Failed> {
    let path = format!("/api/sandboxes/{sandbox}/deploy");
    let begun: DeployedSandbox = api.post(&path, &serde_json::json!({})).await?;
    if let Some(refused) = begun.refused.into_iter().next() {
        return Err(refused.problem.into());
    }
    let running = try_join_all(begun.deployments.into_iter().map(|deployment| comes_up(api, deployment))).await?;
    Ok(running.into_iter().map(|deployment| (deployment.key.repo.clone(), deployment)).collect())
}

/// Waits until a deployment that has begun runs.
///
/// # Errors
/// The failure's own sentence when it has ended otherwise.
pub async fn comes_up(api: &Api, deployment: Deployment) -> Result<Deployment, Failed> {
    let ended = api.follow(deployment.id, |_| ()).await?;
    if ended.state == DeploymentState::Running { Ok(ended) } else { Err(did_not_come_up(&ended)) }
}

fn did_not_come_up(ended: &Deployment) -> Failed {
    let reason = ended.failure.as_ref().map_or_else(|| ended.state.to_string(), |failure| failure.reason.clone());
    Failed(format!("{} {} did not come up: {reason}", ended.key, ended.branch))
}
