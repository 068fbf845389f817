//! Removing the logs of deployments that ended long ago, or that take too much of the disk.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use sdp_core::DeploymentId;

use crate::{AppState, events::StoredLog};

pub(super) async fn run(state: &AppState) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = &state.config().logs;
    // Before the list of logs: one that begins meanwhile is too young to go.
    let active: HashSet<_> = state.store().active_deployments(None).await?.into_iter().map(|it| it.id).collect();
    let ended = state.logs().stored().await?.into_iter().filter(|log| !active.contains(&log.id)).collect();
    let doomed = doomed(ended, SystemTime::now(), config.keep, config.total_mib.saturating_mul(1024 * 1024));
    for id in &doomed {
        state.logs().remove(*id).await?;
    }
    if !doomed.is_empty() {
        tracing::info!(logs = doomed.len(), "removed old logs");
    }
    Ok(())
}

/// Those nothing was added to for longer than `keep`, and the oldest of the others until what is
/// left has `total` bytes at most.
fn doomed(mut logs: Vec<StoredLog>, now: SystemTime, keep: Duration, total: u64) -> Vec<DeploymentId> {
    logs.sort_by_key(|log| (log.modified, log.id));
    let mut bytes: u64 = logs.iter().map(|log| log.bytes).sum();
    let mut doomed = Vec::new();
    for log in logs {
        let is_old = now.duration_since(log.modified).is_ok_and(|age| age > keep);
        if !is_old && bytes <= total {
            break;
        }
        bytes -= log.bytes;
        doomed.push(log.id);
    }
    doomed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_go_and_then_the_oldest_until_the_rest_fits() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ids: Vec<_> = (0..5).map(|_| DeploymentId::new()).collect();
        let logs = || {
            let ages = [10, 500, 100, 50, 300];
            let log = |(id, age): (&DeploymentId, u64)| StoredLog {
                id: *id,
                bytes: 100,
                modified: now - Duration::from_secs(age),
            };
            ids.iter().zip(ages).map(log).collect()
        };
        let doomed = |keep, total| doomed(logs(), now, Duration::from_secs(keep), total);
        assert_eq!(doomed(1000, 500), []);
        assert_eq!(doomed(299, 500), [ids[1], ids[4]]);
        assert_eq!(doomed(1000, 499), [ids[1]]);
        assert_eq!(doomed(400, 250), [ids[1], ids[4], ids[2]]);
        assert_eq!(doomed(1000, 0).len(), 5);
    }
}
