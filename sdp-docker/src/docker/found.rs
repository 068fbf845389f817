//! Containers as the engine shows them.

use std::collections::HashMap;

use bollard::models::{ContainerState, ContainerStateStatusEnum, ContainerSummary};
use sdp_core::{HostPort, Instance, InstanceKey, InstanceState};

use super::labels;

/// A container as the engine's list shows it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) ports: Vec<u16>,
    pub(crate) running: bool,
    /// The names and, as far as it has joined them once, ids of the networks it joins when it runs.
    pub(crate) networks: Vec<String>,
}

impl Found {
    pub(crate) fn new(summary: ContainerSummary) -> Option<Self> {
        let name = summary.names?.first()?.trim_start_matches('/').to_owned();
        let ports = summary.ports.unwrap_or_default().into_iter().filter_map(|port| port.public_port).collect();
        let running = summary.state.is_some_and(|state| matches!(state.to_string().as_str(), "running" | "restarting"));
        let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let networks = networks.into_iter().flat_map(|(name, joined)| [Some(name), joined.network_id]).flatten();
        let networks = networks.collect();
        Some(Self { id: summary.id?, name, labels: summary.labels.unwrap_or_default(), ports, running, networks })
    }

    pub(crate) fn is_of(&self, owner: &str) -> bool {
        self.labels.get(labels::OWNER).is_some_and(|label| label == owner)
    }

    /// Whether it publishes the port, or is ours and listens on it in the host's network.
    pub(crate) fn holds(&self, port: HostPort) -> bool {
        self.ports.contains(&port.get())
            || self.labels.get(labels::PORT).is_some_and(|label| *label == port.to_string())
    }

    pub(crate) fn describe(&self) -> String {
        match labels::key(&self.labels) {
            Some(InstanceKey { sandbox: Some(sandbox), repo }) => {
                format!("sandbox {sandbox}, repo {repo} (container {})", self.name)
            }
            Some(InstanceKey { sandbox: None, repo }) => {
                format!("the quick deploy of {repo} (container {})", self.name)
            }
            None => format!("container {}, which is not SDP's", self.name),
        }
    }

    pub(crate) fn instance(&self) -> Option<Instance> {
        let state = if self.running { InstanceState::Running } else { InstanceState::Exited { exit_code: 0 } };
        labels::instance(&self.id, &self.name, &self.labels, state)
    }
}

pub(crate) fn state_of(state: &ContainerState) -> InstanceState {
    let exit_code = state.exit_code.unwrap_or(0);
    match state.status {
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => InstanceState::Running,
        Some(ContainerStateStatusEnum::RESTARTING) => InstanceState::Restarting { exit_code },
        Some(ContainerStateStatusEnum::CREATED) => InstanceState::Created,
        _ => InstanceState::Exited { exit_code },
    }
}
