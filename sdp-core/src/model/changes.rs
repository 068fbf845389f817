//! What has to change for a sandbox to be as it is wanted: a pure function of the two.

use std::{collections::BTreeSet, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    manifest::Manifest,
    names::{EnvironmentName, RepoName, SandboxName, ServiceName},
    route::RouteTarget,
    shape::{ServiceSpec, Shape},
};

/// What a sandbox is to be, with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The environment it lives in.
    pub environment: EnvironmentName,
    /// Its services and routes. A route to `ocp` is the same as none.
    pub shape: Shape,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl SandboxSpec {
    /// The document that, applied, gives the same.
    pub fn manifest(&self, name: SandboxName) -> Manifest {
        let mut routes = self.shape.routes.clone();
        routes.retain(|_, target| *target != RouteTarget::Ocp);
        Manifest {
            name: Some(name),
            environment: Some(self.environment.clone()),
            services: self.shape.services.clone(),
            routes,
            expires_at: Some(self.expires_at),
            ..Manifest::default()
        }
    }
}

/// A sandbox as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentSandbox {
    /// What it was made to be.
    pub spec: SandboxSpec,
    /// Its repos of which the last deployment failed or was cancelled, or that were never deployed.
    pub undeployed: BTreeSet<RepoName>,
}

/// One thing to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// The sandbox is made.
    Create {
        /// Where it lives.
        environment: EnvironmentName,
        /// When it expires.
        #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
        expires_at: Timestamp,
    },
    /// It expires at another time.
    SetExpiry {
        /// When it would have.
        #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
        from: Timestamp,
        /// When it does.
        #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
        to: Timestamp,
    },
    /// A service is torn down.
    RemoveService {
        /// Its repo.
        repo: RepoName,
    },
    /// A service is added, which deploys it.
    AddService {
        /// The service.
        service: ServiceSpec,
    },
    /// A service is deployed otherwise.
    ChangeService {
        /// As it was.
        from: ServiceSpec,
        /// As it is to be.
        to: ServiceSpec,
    },
    /// A service that is as wanted and did not come up is deployed again.
    DeployAgain {
        /// The service.
        service: ServiceSpec,
    },
    /// A route goes elsewhere.
    SetRoute {
        /// The service.
        service: ServiceName,
        /// Where it went.
        from: RouteTarget,
        /// Where it is to go.
        to: RouteTarget,
    },
}

/// A sandbox stays in the environment it was made in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it lives in environment {from} and cannot move to {to}; delete it first, or apply this under another name")]
pub struct Moved {
    /// Where it lives.
    pub from: EnvironmentName,
    /// Where it would.
    pub to: EnvironmentName,
}

/// What has to change for a sandbox, or none, to be as wanted: nothing if it is.
///
/// # Errors
/// [`Moved`].
pub fn changes(present: Option<&PresentSandbox>, wanted: &SandboxSpec) -> Result<Vec<Change>, Moved> {
    let mut changes = Vec::new();
    let made;
    let present = match present {
        Some(present) => present,
        None => {
            let (environment, expires_at) = (wanted.environment.clone(), wanted.expires_at);
            let first = Change::Create { environment, expires_at };
            made = after(None, &first);
            changes.push(first);
            match &made {
                Some(made) => made,
                None => return Ok(changes),
            }
        }
    };
    let (is, to_be) = (&present.spec, wanted);
    if is.environment != to_be.environment {
        return Err(Moved { from: is.environment.clone(), to: to_be.environment.clone() });
    }
    if is.expires_at != to_be.expires_at {
        changes.push(Change::SetExpiry { from: is.expires_at, to: to_be.expires_at });
    }
    let (services, wanted) = (&is.shape.services, &to_be.shape.services);
    let removed = services.iter().filter(|service| wanted.get(&service.repo).is_none());
    changes.extend(removed.map(|service| Change::RemoveService { repo: service.repo.clone() }));
    for service in wanted.iter() {
        match services.get(&service.repo) {
            None => changes.push(Change::AddService { service: service.clone() }),
            Some(from) if from != service => {
                changes.push(Change::ChangeService { from: from.clone(), to: service.clone() });
            }
            Some(_) if present.undeployed.contains(&service.repo) => {
                changes.push(Change::DeployAgain { service: service.clone() });
            }
            Some(_) => {}
        }
    }
    let (routes, wanted) = (&is.shape.routes, &to_be.shape.routes);
    let names: BTreeSet<_> = routes.keys().chain(wanted.keys()).collect();
    for service in names {
        let from = routes.get(service).unwrap_or(&RouteTarget::Ocp);
        let to = wanted.get(service).unwrap_or(&RouteTarget::Ocp);
        if from != to {
            changes.push(Change::SetRoute { service: service.clone(), from: from.clone(), to: to.clone() });
        }
    }
    Ok(changes)
}

/// A sandbox after one change. One that is not there is only there after [`Change::Create`].
pub fn after(present: Option<PresentSandbox>, change: &Change) -> Option<PresentSandbox> {
    let Some(mut sandbox) = present else {
        let Change::Create { environment, expires_at } = change else { return None };
        let (environment, expires_at) = (environment.clone(), *expires_at);
        let spec = SandboxSpec { environment, shape: Shape::default(), expires_at };
        return Some(PresentSandbox { spec, undeployed: BTreeSet::new() });
    };
    let shape = &mut sandbox.spec.shape;
    match change {
        Change::Create { .. } => {}
        Change::SetExpiry { to, .. } => sandbox.spec.expires_at = *to,
        Change::RemoveService { repo } => {
            shape.services.remove(repo);
            sandbox.undeployed.remove(repo);
        }
        Change::AddService { service }
        | Change::ChangeService { to: service, .. }
        | Change::DeployAgain { service } => {
            sandbox.undeployed.remove(&service.repo);
            shape.services.set(service.clone());
        }
        Change::SetRoute { service, to: RouteTarget::Ocp, .. } => drop(shape.routes.remove(service)),
        Change::SetRoute { service, to, .. } => drop(shape.routes.insert(service.clone(), to.clone())),
    }
    Some(sandbox)
}

impl Change {
    /// The service that it deploys.
    pub fn deploys(&self) -> Option<&ServiceSpec> {
        match self {
            Self::AddService { service } | Self::ChangeService { to: service, .. } | Self::DeployAgain { service } => {
                Some(service)
            }
            _ => None,
        }
    }
}

/// In a few words for people. Values of environment variables are left out.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { environment, .. } => write!(f, "made in environment {environment}"),
            Self::SetExpiry { to, .. } => write!(f, "expires at {to}"),
            Self::RemoveService { repo } => write!(f, "{repo} removed"),
            Self::AddService { service } => write!(f, "{} added on {}", service.repo, service.branch),
            Self::ChangeService { to, .. } => write!(f, "{} changed, on {}", to.repo, to.branch),
            Self::DeployAgain { service } => write!(f, "{} deployed again on {}", service.repo, service.branch),
            Self::SetRoute { service, to: RouteTarget::Ocp, .. } => write!(f, "{service} to the stable cluster"),
            Self::SetRoute { service, to: RouteTarget::Sandbox, .. } => write!(f, "{service} to its own deployment"),
            Self::SetRoute { service, to: RouteTarget::Url(url), .. } => write!(f, "{service} to {url}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::btree_map, option, prelude::*};

    use super::*;
    use crate::model::{ids::HostPort, shape::Services};

    /// Few names, so that two shapes have some in common; values that YAML could take for something else.
    fn service() -> impl Strategy<Value = ServiceSpec> {
        let text = prop_oneof![
            "\\PC{0,12}",
            Just("no".to_owned()),
            Just("null".into()),
            Just("1e3".into()),
            Just("a: b #c".into()),
            Just(" x\r\ny\n".into()),
            Just("~".into()),
            Just("&a".into()),
        ];
        let env = btree_map("[A-C]", text, 0..3);
        ("[a-d]", "[a-c]", option::of(7000u16..7003), env).prop_map(|(repo, branch, port, env)| ServiceSpec {
            repo: repo.parse().unwrap(),
            branch: branch.parse().unwrap(),
            host_port: port.map(|port| HostPort::new(port).unwrap()),
            env: env.into_iter().map(|(name, value)| (name.parse().unwrap(), value)).collect(),
        })
    }

    pub(crate) fn spec() -> impl Strategy<Value = SandboxSpec> {
        let services = prop::collection::vec(service(), 0..5);
        let target = prop_oneof![
            Just(RouteTarget::Sandbox),
            "[a-z]{1,3}".prop_map(|host| RouteTarget::Url(format!("http://{host}:1/").parse().unwrap())),
        ];
        let routes = btree_map("[s-v]", target, 0..4);
        (services, routes, 1_000_000i64..1_000_003).prop_map(|(list, routes, end)| {
            let mut services = Services::default();
            list.into_iter().for_each(|service| services.set(service));
            let routes = routes.into_iter().map(|(name, target)| (name.parse().unwrap(), target)).collect();
            SandboxSpec {
                environment: EnvironmentName::default(),
                shape: Shape { services, routes },
                expires_at: Timestamp::from_microsecond(end * 1_000_001).unwrap(),
            }
        })
    }

    fn present() -> impl Strategy<Value = Option<PresentSandbox>> {
        option::of((spec(), prop::collection::btree_set("[a-d]", 0..4)).prop_map(|(spec, undeployed)| {
            let undeployed = undeployed.into_iter().map(|repo| repo.parse().unwrap());
            let undeployed = undeployed.filter(|repo| spec.shape.services.get(repo).is_some()).collect();
            PresentSandbox { spec, undeployed }
        }))
    }

    proptest! {
        #[test]
        fn the_changes_lead_from_what_is_to_what_is_wanted(is in present(), wanted in spec()) {
            let changes = changes(is.as_ref(), &wanted).unwrap();
            let then = changes.iter().fold(is, after);
            prop_assert_eq!(then, Some(PresentSandbox { spec: wanted, undeployed: BTreeSet::new() }));
        }

        #[test]
        fn what_is_as_wanted_needs_no_change_and_no_change_is_empty(is in present(), wanted in spec()) {
            let spec = wanted.clone();
            let there = PresentSandbox { spec, undeployed: BTreeSet::new() };
            prop_assert_eq!(changes(Some(&there), &wanted), Ok(Vec::new()));
            for change in changes(is.as_ref(), &wanted).unwrap() {
                match change {
                    Change::ChangeService { from, to } => prop_assert!(from != to && from.repo == to.repo),
                    Change::SetRoute { from, to, .. } => prop_assert_ne!(from, to),
                    Change::SetExpiry { from, to } => prop_assert_ne!(from, to),
                    Change::DeployAgain { service } => prop_assert!(is.as_ref().unwrap().undeployed.contains(&service.repo)),
                    Change::Create { .. } => prop_assert!(is.is_none()),
                    Change::AddService { .. } | Change::RemoveService { .. } => {}
                }
            }
        }

        #[test]
        fn a_change_reads_back_from_its_json(is in present(), wanted in spec()) {
            for change in changes(is.as_ref(), &wanted).unwrap() {
                let json = serde_json::to_string(&change).unwrap();
                prop_assert_eq!(serde_json::from_str::<Change>(&json).unwrap(), change);
            }
        }
    }

    #[test]
    fn a_route_to_the_stable_cluster_is_the_same_as_none() {
        let mut spec = SandboxSpec {
            environment: EnvironmentName::default(),
            shape: Shape::default(),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        let there = PresentSandbox { spec: spec.clone(), undeployed: BTreeSet::new() };
        spec.shape.routes.insert("eredar".parse().unwrap(), RouteTarget::Ocp);
        assert_eq!(changes(Some(&there), &spec), Ok(Vec::new()));
        assert!(spec.manifest("pay".parse().unwrap()).routes.is_empty());
    }

    #[test]
    fn a_sandbox_does_not_move() {
        let spec = SandboxSpec {
            environment: EnvironmentName::default(),
            shape: Shape::default(),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        let there = PresentSandbox { spec: spec.clone(), undeployed: BTreeSet::new() };
        let elsewhere = SandboxSpec { environment: "qa".parse().unwrap(), ..spec };
        assert_eq!(changes(Some(&there), &elsewhere).unwrap_err().to.as_str(), "qa");
    }
}
