//! What is so at the moment.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use sdp_core::{DeploymentState, SandboxState};

use crate::{ApiError, AppState};

/// One look at everything that is so at the moment.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    gauges: Vec<Gauge>,
}

/// One of them: its value for each set of labels.
#[derive(Debug)]
struct Gauge {
    name: &'static str,
    help: &'static str,
    values: Vec<(String, f64)>,
}

impl Gauges {
    pub(crate) async fn look(state: &AppState) -> Result<Self, ApiError> {
        let mut gauges = Self::default();
        let store = state.store();
        let (mut connected, mut seen, mut work) = (Vec::new(), Vec::new(), Vec::new());
        for agent in state.hub().agents().await? {
            let transport = agent.transport.map_or_else(|| "none".into(), |transport| transport.to_string());
            let label = format!("agent=\"{}\",transport=\"{transport}\"", agent.name);
            connected.push((label, f64::from(u8::from(agent.connected))));
            let label = format!("agent=\"{}\"", agent.name);
            work.push((label.clone(), f64::from(agent.active_deployments)));
            if let Some(last) = agent.last_seen {
                seen.push((label, Timestamp::now().duration_since(last).as_secs_f64().max(0.0)));
            }
        }
        gauges.add("agent_connected", "Whether an enrolled agent is connected, and how", connected);
        gauges.add("agent_last_seen_seconds", "How long ago an agent was heard of", seen);
        gauges.add("agent_deployments", "Deployments in work on an agent", work);

        let mut deployments: BTreeMap<_, f64> = BTreeMap::new();
        let live: Vec<_> = DeploymentState::ALL.into_iter().filter(|state| !state.is_final()).collect();
        for state in &live {
            deployments.insert(state.as_str(), 0.0);
        }
        for deployment in store.deployments_in(&live, None).await? {
            *deployments.entry(deployment.state.as_str()).or_default() += 1.0;
        }
        gauges.by_state("deployments", "Deployments that wait, are in work, run or are stopped", deployments);
        let states = SandboxState::ALL;
        let mut sandboxes: BTreeMap<_, f64> = states.into_iter().map(|state| (state.to_string(), 0.0)).collect();
        for sandbox in store.sandboxes().await? {
            *sandboxes.entry(sandbox.state.to_string()).or_default() += 1.0;
        }
        gauges.by_state("sandboxes", "Sandboxes", sandboxes);

        let logs = state.logs().stored().await?;
        let bytes: u64 = logs.iter().map(|log| log.bytes).sum();
        gauges.one("event_logs", "Deployments' logs on disk", logs.len() as f64);
        gauges.one("event_logs_bytes", "Their size", bytes as f64);
        if let Ok(disk) = rustix::fs::statvfs(&state.config().data_dir) {
            let of = |blocks: u64| (blocks * disk.f_frsize) as f64;
            gauges.one("data_dir_free_bytes", "What the data directory's disk has left", of(disk.f_bavail));
            gauges.one("data_dir_size_bytes", "The size of the data directory's disk", of(disk.f_blocks));
        }
        Ok(gauges)
    }

    fn add(&mut self, name: &'static str, help: &'static str, values: Vec<(String, f64)>) {
        self.gauges.push(Gauge { name, help, values });
    }

    fn one(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.add(name, help, vec![(String::new(), value)]);
    }

    fn by_state(&mut self, name: &'static str, help: &'static str, values: BTreeMap<impl fmt::Display, f64>) {
        let values = values.into_iter().map(|(state, value)| (format!("state=\"{state}\""), value));
        self.add(name, help, values.collect());
    }

    /// Names, states and numbers only: nothing that would have to be escaped.
    pub(super) fn encode(&self, text: &mut impl fmt::Write) -> fmt::Result {
        for Gauge { name, help, values } in &self.gauges {
            writeln!(text, "# HELP sdp_{name} {help}.\n# TYPE sdp_{name} gauge")?;
            for (labels, value) in values {
                match labels.as_str() {
                    "" => writeln!(text, "sdp_{name} {value}")?,
                    labels => writeln!(text, "sdp_{name}{{{labels}}} {value}")?,
                }
            }
        }
        Ok(())
    }
}
