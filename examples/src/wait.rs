//! Waiting for what is to come, instead of for a time.

use std::{fmt::Debug, time::Duration};

use crate::Failed;

/// Long enough for the slowest machine: what does not come within this does not come.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again until there is something to see.
///
/// # Errors
/// When [`PATIENCE`] has ended.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T, Failed> {
    let seen = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    seen.await.map_err(|_| Failed(format!("{what} did not come within {PATIENCE:?}")))
}

/// Asks again until the answer is as wanted.
///
/// # Errors
/// When [`PATIENCE`] has ended: what was answered last.
pub async fn until<T: Debug>(
    what: &str,
    mut ask: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> Result<(), Failed> {
    let mut last = None;
    let look = async || {
        let answer = ask().await;
        if wanted(&answer) {
            return Some(());
        }
        last = Some(answer);
        None
    };
    eventually(what, look).await.map_err(|failed| Failed(format!("{failed}; at last it was {last:?}")))
}
