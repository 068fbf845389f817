//! What a daemon tells the supervisor that started it, where that is systemd or speaks its protocol
//! (`NOTIFY_SOCKET`, `WATCHDOG_USEC`). Without one, nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells that the daemon is ready, and from now on that it is alive, if the supervisor wants to know: as often as it
/// needs, for as long as the runtime carries out what it is given.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn ready() {
    tell(&[NotifyState::Ready]);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tokio::spawn(keep_telling(limit / 3));
    }
}

/// Tells how the daemon is, in a sentence for the operator.
pub fn status(sentence: &str) {
    // A message has a line for each thing told.
    tell(&[NotifyState::Status(&sentence.replace(['\r', '\n'], " "))]);
}

/// Tells that the daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

async fn keep_telling(every: Duration) {
    loop {
        // Each time by a task that some thread of the runtime must take up and finish.
        if tokio::spawn(async {}).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(every).await;
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the supervisor cannot be told how the daemon is");
    }
}
