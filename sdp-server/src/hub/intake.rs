//! Batches of events between the connection and the disk.
//!
//! While one group of batches is made durable the next gathers, so that many share one sync: the
//! busier an agent, the larger the groups.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use sdp_core::{
    AgentName, DeploymentId, ErrorCode,
    problem::chain,
    protocol::{CheckedBatch, ServerFrame},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    Frames, Hub,
    ingest::{IngestError, Known},
    session::{End, WRITE, refused},
};

/// How many bytes of one agent may wait for the disk before its connection is read no further.
const WAITING_BYTES: u32 = 8 * 1024 * 1024;

/// How many bytes share a sync: enough that its cost vanishes, and few enough that an agent that has
/// filled its window sends on while the first of it is being synced.
const GROUP_BYTES: usize = 256 * 1024;

/// Boxed, as frames are.
type Queued = Box<(Vec<CheckedBatch>, OwnedSemaphorePermit)>;

/// Where a connection's reader puts batches.
pub(super) struct Queue {
    gathered: Vec<CheckedBatch>,
    /// How many bytes that is.
    size: usize,
    batches: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

pub(super) fn queue() -> (Queue, mpsc::UnboundedReceiver<Queued>) {
    let (batches, queued) = mpsc::unbounded_channel();
    (Queue { gathered: Vec::new(), size: 0, batches, room: Arc::new(Semaphore::new(WAITING_BYTES as usize)) }, queued)
}

impl Queue {
    /// Takes a batch, and hands over what has come when that is enough for a group.
    pub(super) async fn push(&mut self, batch: CheckedBatch) {
        self.size += bytes(&batch);
        self.gathered.push(batch);
        if self.size >= GROUP_BYTES {
            self.flush().await;
        }
    }

    /// Hands over what has come. Waits while there is no room; given up meanwhile, it has handed over nothing.
    pub(super) async fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let wanted = u32::try_from(self.size).unwrap_or(u32::MAX).min(WAITING_BYTES);
        // Neither is ever closed while the connection lives.
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(wanted).await {
            self.size = 0;
            let batches = CheckedBatch::joined(std::mem::take(&mut self.gathered));
            let _ = self.batches.send(Box::new((batches, room)));
        }
    }
}

fn bytes(batch: &CheckedBatch) -> usize {
    batch.batch().lines().len()
}

/// Makes batches durable and acknowledges them, to the connection's end.
pub(super) async fn run(
    hub: &Hub,
    agent: &AgentName,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    frames: &Frames,
) -> End {
    let mut known = Known::new();
    while let Some(first) = queued.recv().await {
        let mut size: usize = first.0.iter().map(bytes).sum();
        let mut taken = vec![first];
        while size < GROUP_BYTES
            && let Ok(more) = queued.try_recv()
        {
            size += more.0.iter().map(bytes).sum::<usize>();
            taken.push(more);
        }
        // Boxed, so that a connection without events takes no memory for it.
        if let Err(end) = Box::pin(keep(hub, agent, &mut known, taken, frames)).await {
            return end;
        }
        // Who follows is told now, before the next is taken: else they fall behind an agent that never pauses.
        tokio::task::yield_now().await;
    }
    End::Gone("nobody reads the connection".into())
}

/// Makes a group of batches durable and acknowledges them.
async fn keep(hub: &Hub, agent: &AgentName, known: &mut Known, taken: Vec<Queued>, frames: &Frames) -> Result<(), End> {
    let mut groups: BTreeMap<DeploymentId, Vec<CheckedBatch>> = BTreeMap::new();
    let mut rooms = Vec::with_capacity(taken.len());
    for (batches, room) in taken.into_iter().map(|queued| *queued) {
        for batch in batches {
            groups.entry(batch.batch().deployment()).or_default().push(batch);
        }
        rooms.push(room);
    }
    for id in groups.keys() {
        hub.meet(agent, known, *id).await.map_err(|error| end(&error))?;
    }
    let known = &*known;
    let ingested = groups.into_iter().map(async |(id, batches)| {
        let (mut acked, mut result) = (None, Ok(()));
        for batch in CheckedBatch::joined(batches) {
            match hub.ingest(known, batch).await {
                Ok(seq) => acked = Some(seq),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        (id, acked, result)
    });
    let ingested = join_all(ingested).await;
    drop(rooms);
    let mut failure = None;
    for (deployment, acked, result) in ingested {
        if let Some(seq) = acked
            && timeout(WRITE, frames.send(Box::new(ServerFrame::Ack { deployment, seq }))).await.is_err()
        {
            return Err(End::Gone(format!("agent {agent} does not read")));
        }
        failure = failure.or(result.err());
    }
    failure.map_or(Ok(()), |error| Err(end(&error)))
}

fn end(error: &IngestError) -> End {
    match error {
        IngestError::Foreign { .. } => refused(ErrorCode::NotAllowed, chain(error)),
        // Not acknowledged, so kept by the agent, which sends again on its next connection.
        _ => End::Gone(chain(error)),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sdp_core::protocol::EventBatch;

    use super::*;

    /// One line of `bytes` bytes, about.
    fn batch(id: DeploymentId, seq: u64, bytes: usize) -> CheckedBatch {
        let line = format!(
            "{{\"seq\":{seq},\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"log\",\"stage\":\"build\",\"stream\":\"stdout\",\"line\":\"{}\"}}\n",
            "x".repeat(bytes)
        );
        EventBatch::new(id, seq, line.into()).unwrap().checked().unwrap()
    }

    fn seqs(queued: &Queued) -> Vec<(u64, u64)> {
        queued.0.iter().map(|one| (one.batch().first(), one.batch().last())).collect()
    }

    #[tokio::test]
    async fn what_comes_together_is_handed_over_together() {
        let (mut queue, mut queued) = queue();
        let (id, other) = (DeploymentId::new(), DeploymentId::new());
        for batch in [batch(id, 1, 9), batch(id, 2, 9), batch(other, 1, 9), batch(id, 3, 9)] {
            queue.push(batch).await;
        }
        assert!(queued.try_recv().is_err());
        queue.flush().await;
        assert_eq!(seqs(&queued.try_recv().unwrap()), [(1, 2), (1, 1), (3, 3)]);
        queue.flush().await;
        assert!(queued.try_recv().is_err(), "nothing is handed over twice");
        queue.push(batch(id, 4, GROUP_BYTES)).await;
        assert_eq!(seqs(&queued.try_recv().unwrap()), [(4, 4)], "a group is enough");
    }

    #[tokio::test]
    async fn what_has_no_room_waits_and_is_not_lost_when_that_is_given_up() {
        let (mut queue, mut queued) = queue();
        let id = DeploymentId::new();
        let half = WAITING_BYTES as usize / 2;
        queue.push(batch(id, 1, half)).await;
        assert!(queue.push(batch(id, 2, half)).now_or_never().is_none(), "there is no room");
        let first = queued.try_recv().unwrap();
        assert!(queued.try_recv().is_err());
        drop(first);
        queue.flush().await;
        assert_eq!(seqs(&queued.try_recv().unwrap()), [(2, 2)]);
    }
}
