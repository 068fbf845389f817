//! Batches of events between the connection and the disk.
//!
//! While one group of batches is made durable the next gathers, so that many share one sync: the
//! busier an agent, the larger the groups.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use sdp_core::{
    AgentName, DeploymentId, ErrorCode,
    problem::chain,
    protocol::{EventBatch, ServerFrame},
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
use crate::events::EventLogError;

/// How many bytes of one agent may wait for the disk before its connection is read no further.
const WAITING_BYTES: u32 = 8 * 1024 * 1024;

/// How many bytes share a sync: enough that its cost vanishes, and few enough that an agent that has
/// filled its window sends on while the first of it is being synced.
const GROUP_BYTES: usize = 256 * 1024;

/// Boxed, as frames are.
type Queued = Box<(EventBatch, OwnedSemaphorePermit)>;

/// Where a connection's reader puts batches.
pub(super) struct Queue {
    batches: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

pub(super) fn queue() -> (Queue, mpsc::UnboundedReceiver<Queued>) {
    let (batches, queued) = mpsc::unbounded_channel();
    (Queue { batches, room: Arc::new(Semaphore::new(WAITING_BYTES as usize)) }, queued)
}

impl Queue {
    /// Waits while there is no room.
    pub(super) async fn push(&self, batch: EventBatch) {
        let bytes = u32::try_from(batch.lines().len()).unwrap_or(u32::MAX).min(WAITING_BYTES);
        // Neither is ever closed while the connection lives.
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(bytes).await {
            let _ = self.batches.send(Box::new((batch, room)));
        }
    }
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
        let mut bytes = first.0.lines().len();
        let mut taken = vec![first];
        while bytes < GROUP_BYTES
            && let Ok(more) = queued.try_recv()
        {
            bytes += more.0.lines().len();
            taken.push(more);
        }
        // Boxed, so that a connection without events takes no memory for it.
        if let Err(end) = Box::pin(keep(hub, agent, &mut known, taken, frames)).await {
            return end;
        }
    }
    End::Gone("nobody reads the connection".into())
}

/// Makes a group of batches durable and acknowledges them.
async fn keep(hub: &Hub, agent: &AgentName, known: &mut Known, taken: Vec<Queued>, frames: &Frames) -> Result<(), End> {
    let mut groups: BTreeMap<DeploymentId, Vec<EventBatch>> = BTreeMap::new();
    let mut rooms = Vec::with_capacity(taken.len());
    for (batch, room) in taken.into_iter().map(|queued| *queued) {
        groups.entry(batch.deployment()).or_default().push(batch);
        rooms.push(room);
    }
    for id in groups.keys() {
        hub.meet(agent, known, *id).await.map_err(|error| end(&error))?;
    }
    let known = &*known;
    let ingested = groups.into_iter().map(async |(id, batches)| {
        let (mut acked, mut result) = (None, Ok(()));
        for batch in EventBatch::joined(batches) {
            match hub.ingest(known, &batch).await {
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
        IngestError::Log(EventLogError::Batch(_)) => refused(ErrorCode::BadRequest, chain(error)),
        // Not acknowledged, so kept by the agent, which sends again on its next connection.
        _ => End::Gone(chain(error)),
    }
}
