//! `sdp-agent images`: the container images that the configured repos need, and which of them are not on this machine.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use sdp_core::{DeployError, RepoName};
use sdp_docker::DockerDeployer;
use serde::Serialize;

use crate::{AgentConfig, adapters, config::DeployerKind};

/// What to do about images that are missing.
pub const CURE: &str = "images are never pulled: `docker save` them where they are, and `docker load` them here";

/// How long the engine may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// An image that repos run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NeededImage {
    /// Its name, as the configuration or the repo's recipe gives it.
    pub image: String,
    /// Who needs it.
    pub repos: Vec<RepoName>,
    /// Whether it is on this machine.
    pub present: bool,
}

/// The images that the configuration needs, by name. None where processes are deployed.
///
/// # Errors
/// [`DeployError`] when the engine cannot be asked.
pub async fn needed(config: &AgentConfig) -> Result<Vec<NeededImage>, DeployError> {
    if config.deployer.kind == DeployerKind::Process {
        return Ok(Vec::new());
    }
    let docker = adapters::docker(config);
    let action = format!("be used on {}", docker.socket.display());
    let too_long = DeployError::EngineAway { action, source: format!("no answer within {LIMIT:?}").into() };
    let connected = tokio::time::timeout(LIMIT, DockerDeployer::connect(docker)).await;
    of(config, &connected.unwrap_or(Err(too_long))?).await
}

/// The same, asked of an engine that is connected.
pub(crate) async fn of(config: &AgentConfig, docker: &DockerDeployer) -> Result<Vec<NeededImage>, DeployError> {
    let mut repos: BTreeMap<&str, Vec<RepoName>> = BTreeMap::new();
    for repo in &config.repo {
        if let Some(image) = repo.image.as_deref().or_else(|| repo.recipe.default_image()) {
            repos.entry(image).or_default().push(repo.name.clone());
        }
    }
    let images: Vec<_> = repos.keys().copied().collect();
    let missing = docker.missing_images(&images).await?;
    let needed = repos.into_iter().map(|(image, repos)| {
        let present = !missing.contains(&image);
        NeededImage { image: image.into(), repos, present }
    });
    Ok(needed.collect())
}

/// A line for each.
pub fn table(needed: &[NeededImage]) -> String {
    let width = needed.iter().map(|needed| needed.image.len()).max().unwrap_or_default();
    needed.iter().fold(String::new(), |mut text, NeededImage { image, repos, present }| {
        let state = if *present { "there  " } else { "missing" };
        let repos = repos.iter().map(RepoName::as_str).collect::<Vec<_>>().join(", ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{state}  {image:width$}  for {repos}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_a_line_that_says_whether_it_is_there_and_for_whom() {
        let repo = |name: &str| RepoName::new(name).unwrap();
        let needed = [
            NeededImage { image: "alpine:3.20".into(), repos: vec![repo("eredar"), repo("illidan")], present: true },
            NeededImage { image: "php:8.3-apache".into(), repos: vec![repo("erangel-ocean")], present: false },
        ];
        let table = table(&needed);
        assert_eq!(table, "there    alpine:3.20     for eredar, illidan\nmissing  php:8.3-apache  for erangel-ocean\n");
    }
}
