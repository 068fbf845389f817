//! An environment: where sandboxes live.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ids::PortRange,
    names::{AgentName, EnvName, EnvironmentName},
    units,
};

/// An environment as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// The agent whose gateway the routes of its sandboxes are of; the server's choice when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<AgentName>,
    /// The agents that its sandboxes may be deployed on; all when empty.
    #[serde(default)]
    pub agents: BTreeSet<AgentName>,
    /// Environment variables of everything deployed into its sandboxes, under a deployment's own.
    #[serde(default)]
    pub env: BTreeMap<EnvName, String>,
    /// The host ports that its sandboxes may use; those of the agents when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// How long its sandboxes live unless their maker says otherwise; the server's default when none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub sandbox_lifetime: Option<Duration>,
    /// After how long without use its sandboxes go to sleep; the server's default when none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub idle_after: Option<Duration>,
}

impl Environment {
    /// The name of the environment that there is without being made.
    pub const DEFAULT: &str = "default";

    /// An environment without settings of its own.
    pub fn new(name: EnvironmentName) -> Self {
        Self {
            name,
            gateway: None,
            agents: BTreeSet::new(),
            env: BTreeMap::new(),
            ports: None,
            sandbox_lifetime: None,
            idle_after: None,
        }
    }

    /// Whether deployments into its sandboxes may go to an agent.
    pub fn allows(&self, agent: &AgentName) -> bool {
        self.agents.is_empty() || self.agents.contains(agent)
    }
}

impl Default for EnvironmentName {
    fn default() -> Self {
        Self::new(Environment::DEFAULT).expect("a name of seven letters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_agents_named_means_all_of_them() {
        let mut environment = Environment::new(EnvironmentName::default());
        let (one, other) = ("micro-1".parse().unwrap(), "micro-2".parse().unwrap());
        assert!(environment.allows(&one) && environment.allows(&other));
        environment.agents.insert("micro-1".parse().unwrap());
        assert!(environment.allows(&one) && !environment.allows(&other));
    }
}
