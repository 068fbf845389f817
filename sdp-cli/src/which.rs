//! Which deployment somebody means.

use std::path::Path;

use clap::Args;
use sdp_core::{
    Deployment, DeploymentId, DeploymentState, RepoName, SandboxName, UserName, api::DeploymentFilter, client::Client,
};

use crate::{error::CliError, git};

/// A deployment by its id, or the newest of a repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    Id(DeploymentId),
    Newest(RepoName),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let newest = text.parse().map(Self::Newest);
        newest.map_err(|_| "name a deployment by its id, as `sdp history` shows it, or a repo for its newest".into())
    }
}

/// The arguments that name one.
#[derive(Debug, Args)]
pub(crate) struct WhichDeployment {
    /// A deployment's id, or a repo for its newest; the repo of this checkout when left out. What changes something takes
    /// your own newest, unless a sandbox is named.
    #[arg(value_name = "DEPLOYMENT|REPO")]
    which: Option<Which>,
    /// With a repo: its newest in this sandbox.
    #[arg(long, short)]
    sandbox: Option<SandboxName>,
}

impl WhichDeployment {
    /// Finds it, to look at.
    pub(crate) async fn find(&self, client: &Client) -> Result<Deployment, CliError> {
        self.newest(client, None).await
    }

    /// Finds it, to change: somebody else's only by its id or in its sandbox.
    pub(crate) async fn find_to_change(&self, client: &Client) -> Result<Deployment, CliError> {
        let user = self.owner(client).await?;
        self.newest(client, user).await
    }

    /// Finds it, to look at its program: of a repo's the newest that has one.
    pub(crate) async fn find_program(&self, client: &Client) -> Result<Deployment, CliError> {
        self.program(client, None).await
    }

    /// Finds it, to do something where its program runs: as [`find_program`](Self::find_program), and somebody else's only
    /// by its id or in its sandbox.
    pub(crate) async fn find_program_to_change(&self, client: &Client) -> Result<Deployment, CliError> {
        let user = self.owner(client).await?;
        self.program(client, user).await
    }

    /// Whose it has to be, to be changed.
    async fn owner(&self, client: &Client) -> Result<Option<UserName>, CliError> {
        let is_named = matches!(self.which, Some(Which::Id(_))) || self.sandbox.is_some();
        Ok(if is_named { None } else { Some(client.me().await?.user) })
    }

    async fn program(&self, client: &Client, user: Option<UserName>) -> Result<Deployment, CliError> {
        if let Which::Newest(repo) = self.meant()? {
            for state in [DeploymentState::Running, DeploymentState::Stopped] {
                let filter = DeploymentFilter { state: Some(state), user: user.clone(), ..self.filter(&repo) };
                if let Some(newest) = client.deployments(&filter).await?.items.into_iter().next() {
                    return Ok(newest);
                }
            }
        }
        self.newest(client, user).await
    }

    fn meant(&self) -> Result<Which, CliError> {
        match &self.which {
            Some(which) => Ok(which.clone()),
            None => Ok(Which::Newest(git::here(Path::new("."))?.repo)),
        }
    }

    fn filter(&self, repo: &RepoName) -> DeploymentFilter {
        let (repo, sandbox) = (Some(repo.clone()), self.sandbox.clone());
        DeploymentFilter { repo, sandbox, limit: Some(1), ..DeploymentFilter::default() }
    }

    async fn newest(&self, client: &Client, user: Option<UserName>) -> Result<Deployment, CliError> {
        let repo = match self.meant()? {
            Which::Id(id) => return Ok(client.deployment(id).await?),
            Which::Newest(repo) => repo,
        };
        let filter = DeploymentFilter { user: user.clone(), ..self.filter(&repo) };
        let newest = client.deployments(&filter).await?.items.into_iter().next();
        newest.ok_or_else(|| {
            let place = self.sandbox.as_ref().map(|name| format!(" in sandbox {name}")).unwrap_or_default();
            let who = user.as_ref().map(|user| format!(" by {user}")).unwrap_or_default();
            CliError::nothing(
                format!("nothing of {repo} was ever deployed{place}{who}"),
                "`sdp history` shows what was",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_an_id_and_a_repo_a_repo() {
        let id = DeploymentId::new();
        assert_eq!(id.to_string().parse(), Ok(Which::Id(id)));
        assert_eq!("eredar".parse(), Ok(Which::Newest("eredar".parse().unwrap())));
        assert!("A b".parse::<Which>().unwrap_err().contains("sdp history"));
    }
}
