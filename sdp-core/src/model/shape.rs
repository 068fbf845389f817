//! What a sandbox is made of, without what runs: the services with their branches, and the routes wanted.
//! Templates save it, and clones begin with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ids::HostPort,
    names::{BranchName, EnvName, RepoName, ServiceName},
    route::RouteTarget,
};

/// One service of a sandbox: which branch of which repo, and how it is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The repo.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
    /// The host port; none to have one kept or picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<HostPort>,
    /// Environment variables, over those of the environment and of the repo's configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, String>,
}

/// The services of a sandbox, each repo once, by repo. Written as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "Vec<ServiceSpec>", into = "Vec<ServiceSpec>")]
pub struct Services(BTreeMap<RepoName, ServiceSpec>);

/// A repo that a list of services has twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the repo {0} is listed twice; a sandbox has each repo once")]
pub struct RepeatedRepo(pub RepoName);

impl Services {
    /// The service of a repo.
    pub fn get(&self, repo: &RepoName) -> Option<&ServiceSpec> {
        self.0.get(repo)
    }

    /// Adds a service, in the place of what its repo had.
    pub fn set(&mut self, service: ServiceSpec) {
        self.0.insert(service.repo.clone(), service);
    }

    /// Takes the service of a repo out. False when it is none of these.
    pub fn remove(&mut self, repo: &RepoName) -> bool {
        self.0.remove(repo).is_some()
    }

    /// The services, by repo.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceSpec> {
        self.0.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without chosen host ports, which two sandboxes on one machine could not both have.
    pub fn without_ports(mut self) -> Self {
        self.0.values_mut().for_each(|service| service.host_port = None);
        self
    }

    /// Puts a repo on another branch. False when it is none of these.
    pub fn switch(&mut self, repo: &RepoName, branch: BranchName) -> bool {
        self.0.get_mut(repo).map(|service| service.branch = branch).is_some()
    }
}

impl TryFrom<Vec<ServiceSpec>> for Services {
    type Error = RepeatedRepo;
    fn try_from(list: Vec<ServiceSpec>) -> Result<Self, RepeatedRepo> {
        let mut services = BTreeMap::new();
        for service in list {
            let repo = service.repo.clone();
            if services.insert(repo.clone(), service).is_some() {
                return Err(RepeatedRepo(repo));
            }
        }
        Ok(Self(services))
    }
}

impl From<Services> for Vec<ServiceSpec> {
    fn from(services: Services) -> Self {
        services.0.into_values().collect()
    }
}

/// The shape of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Shape {
    /// Its services.
    #[serde(default)]
    pub services: Services,
    /// Where its routes are to go. Services not named are as the gateway's branch has them.
    #[serde(default)]
    pub routes: BTreeMap<ServiceName, RouteTarget>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(repo: &str, branch: &str, port: Option<u16>) -> ServiceSpec {
        ServiceSpec {
            repo: repo.parse().unwrap(),
            branch: branch.parse().unwrap(),
            host_port: port.map(|port| HostPort::new(port).unwrap()),
            env: BTreeMap::new(),
        }
    }

    #[test]
    fn a_repo_listed_twice_is_refused_by_name() {
        let twice = r#"[{"repo":"eredar","branch":"a"},{"repo":"eredar","branch":"b"}]"#;
        let error = serde_json::from_str::<Services>(twice).unwrap_err().to_string();
        assert!(error.contains("eredar is listed twice"), "{error}");
    }

    #[test]
    fn services_are_written_as_a_list_by_repo_and_read_back() {
        let services = Services::try_from(vec![service("b", "main", Some(7001)), service("a", "main", None)]).unwrap();
        let json = serde_json::to_string(&services).unwrap();
        assert_eq!(json, r#"[{"repo":"a","branch":"main"},{"repo":"b","branch":"main","host_port":7001}]"#);
        assert_eq!(serde_json::from_str::<Services>(&json).unwrap(), services);
    }

    #[test]
    fn a_copy_gives_up_its_ports_and_may_be_on_other_branches() {
        let mut services = Services::try_from(vec![service("a", "main", Some(7001))]).unwrap().without_ports();
        assert!(services.switch(&"a".parse().unwrap(), "x".parse().unwrap()));
        assert!(!services.switch(&"b".parse().unwrap(), "x".parse().unwrap()));
        assert_eq!(services.iter().collect::<Vec<_>>(), [&service("a", "x", None)]);
    }
}
