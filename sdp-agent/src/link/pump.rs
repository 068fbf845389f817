//! Events on their way from the outbox to the server.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sdp_core::{
    DeploymentId,
    problem::chain,
    protocol::{AgentFrame, EventBatch},
};
use tokio::sync::mpsc;

use crate::outbox::Outbox;

/// How many bytes of one deployment may be sent and not acknowledged.
const WINDOW_BYTES: usize = 1024 * 1024;

/// The pause after the outbox could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// How far one deployment is sent on this connection.
#[derive(Debug, Default)]
struct Cursor {
    sent: u64,
    in_flight: VecDeque<(u64, usize)>,
}

impl Cursor {
    fn sent(&mut self, batch: &EventBatch) {
        self.sent = batch.last();
        self.in_flight.push_back((batch.last(), batch.lines().len()));
    }

    fn acked(&mut self, seq: u64) {
        while self.in_flight.pop_front_if(|(last, _)| *last <= seq).is_some() {}
    }

    fn has_room(&self) -> bool {
        self.in_flight.iter().map(|(_, bytes)| bytes).sum::<usize>() < WINDOW_BYTES
    }
}

/// Sends what the server lacks, one batch of each deployment in turn, until nobody takes frames
/// any more. `acked` is how far the server says it is.
pub(super) async fn pump(outbox: &Outbox, acked: BTreeMap<DeploymentId, u64>, frames: &mpsc::Sender<AgentFrame>) {
    let resume = |(deployment, sent)| (deployment, Cursor { sent, in_flight: VecDeque::new() });
    let mut cursors: BTreeMap<_, _> = acked.into_iter().map(resume).collect();
    let mut changes = outbox.changes();
    loop {
        changes.borrow_and_update();
        cursors.retain(|deployment, _| outbox.progress(*deployment).is_some());
        let (mut sent, mut failed) = (false, false);
        for deployment in outbox.deployments() {
            let Some(progress) = outbox.progress(deployment) else { continue };
            let cursor: &mut Cursor = cursors.entry(deployment).or_default();
            cursor.acked(progress.acked);
            if !cursor.has_room() {
                continue;
            }
            match outbox.batch(deployment, cursor.sent).await {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    cursor.sent(&batch);
                    sent = true;
                    if frames.send(AgentFrame::Events(batch)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%deployment, error = chain(&error), "events cannot be sent");
                    failed = true;
                }
            }
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        } else if !sent && changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use sdp_core::{EventKind, EventSink, Stage};

    use super::*;

    async fn filled(deployments: usize, lines: usize) -> (tempfile::TempDir, Outbox, Vec<DeploymentId>) {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        let ids: Vec<_> = (0..deployments).map(|_| DeploymentId::new()).collect();
        for id in &ids {
            let sink = outbox.sink(*id).unwrap();
            for _ in 0..lines {
                sink.accept(EventKind::note(Stage::Build, "x".repeat(1000))).await.unwrap();
            }
        }
        (dir, outbox, ids)
    }

    fn batch(frame: Option<AgentFrame>) -> EventBatch {
        match frame {
            Some(AgentFrame::Events(batch)) => batch,
            other => panic!("expected events, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn deployments_take_turns_however_much_one_has_to_say() {
        let (_dir, outbox, ids) = filled(3, 600).await;
        let (frames, mut sent) = mpsc::channel(1);
        let pumping = pump(&outbox, BTreeMap::new(), &frames);
        let reading = async {
            let mut first = Vec::new();
            for _ in 0..3 {
                first.push(batch(sent.recv().await).deployment());
            }
            drop(sent);
            first
        };
        let (first, ()) = tokio::join!(reading, pumping);
        assert_eq!(first, ids);
    }

    #[tokio::test]
    async fn what_is_not_acknowledged_stays_within_the_window_and_goes_on_after_an_acknowledgement() {
        let (_dir, outbox, ids) = filled(1, 3000).await;
        let (frames, mut sent) = mpsc::channel(100);
        let pumping = pump(&outbox, BTreeMap::from([(ids[0], 10)]), &frames);
        let reading = async {
            let (mut bytes, mut last) = (0, 10);
            while bytes < WINDOW_BYTES {
                let batch = batch(sent.recv().await);
                assert_eq!(batch.first(), last + 1, "no gap, no duplicate");
                (bytes, last) = (bytes + batch.lines().len(), batch.last());
            }
            assert!(sent.try_recv().is_err(), "the window is full");
            outbox.ack(ids[0], last);
            assert_eq!(batch(sent.recv().await).first(), last + 1);
            drop(sent);
            outbox.ack(ids[0], last);
        };
        tokio::select! {
            () = reading => {}
            () = pumping => panic!("the pump ended"),
        }
    }
}
