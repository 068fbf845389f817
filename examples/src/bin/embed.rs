//! Deploys a branch in-process, with no control plane: `embed REMOTE BRANCH` with a Go service's
//! repository, user and password from `GIT_USER` and `GIT_PASSWORD` if it wants some.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::{env, net::Ipv4Addr, sync::Arc};

use sdp_core::{
    Credentials, DeployRequest, InstanceKey,
    deploy::{Pipeline, PortPool},
    testing::ChannelSink,
};
use sdp_docker::{ProcessConfig, ProcessDeployer};
use sdp_examples::Failed;
use sdp_git::{GitConfig, GitRepos};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let [remote, branch] = [1, 2].map(|n| env::args().nth(n));
    let (Some(remote), Some(branch)) = (remote, branch) else {
        return Err(Failed("usage: embed REMOTE BRANCH".into()));
    };
    let credentials = match (env::var("GIT_USER"), env::var("GIT_PASSWORD")) {
        (Ok(user), Ok(password)) => Some(Credentials::new(user.parse()?, password.into())),
        _ => None,
    };
    let dir = env::temp_dir().join("sdp-embed");
    let spec = serde_json::json!({ "name": "service", "path": dir.join("checkout"), "remote": remote, "recipe": "go" });
    let source = GitRepos::new(GitConfig::new(vec![serde_json::from_value(spec)?], dir.join("worktrees")))?;
    let deployer = ProcessDeployer::new(ProcessConfig::new(dir.join("processes")))?;
    let ports = Arc::new(PortPool::new(20_000..=29_999, Ipv4Addr::LOCALHOST.into()));
    let pipeline = Pipeline::new(Arc::new(source), Arc::new(deployer.clone()), ports, "127.0.0.1");

    let request = DeployRequest::new(InstanceKey::quick("service".parse()?), branch.parse()?);
    let (sink, mut events) = ChannelSink::new(64);
    let tell = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            println!("{}", event.kind);
        }
    });
    let finished = pipeline.run(&request, credentials, &sink, &CancellationToken::new()).await;
    drop(sink);
    tell.await?;
    let instance = finished.instance.ok_or_else(|| Failed(finished.failure.map(|f| f.reason).unwrap_or_default()))?;
    println!("{branch} answers on http://127.0.0.1:{} until Ctrl-C", instance.host_port);
    tokio::signal::ctrl_c().await?;
    Ok(deployer.shutdown().await?)
}
