//! `sdp-agent doctor`: what works here and what does not, with the evidence and the cure.
//!
//! Nothing is changed, and a running agent is not disturbed: the checks look, and open connections
//! that they close again.

mod machine;
mod server;

use std::time::Duration;

pub use sdp_core::findings::{Finding, Report, Verdict};

use crate::AgentConfig;

/// How long one check may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Runs every check, side by side, and answers their findings in a fixed order.
pub async fn examine(config: &AgentConfig) -> Report {
    let (server, deployer, remotes) =
        tokio::join!(server::check(config), machine::deployer(config), machine::remotes(config));
    let mut findings = vec![machine::token(config), machine::data_dir(config)];
    findings.extend(server);
    findings.extend(deployer);
    findings.extend(machine::toolchains(config));
    findings.extend(remotes);
    findings.extend(machine::disks(config));
    findings.extend(machine::gateway(config));
    Report { findings }
}
