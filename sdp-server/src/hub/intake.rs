//! Batches of events between the connection and the disk.
//!
//! While one group of batches is made durable the next gathers, so that many share one sync: the
//! busier an agent, the larger the groups. The connection's reader gathers; a task that is there only
//! while there are events makes durable, so that an idle connection takes no memory for it.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use futures_util::future::join_all;
use sdp_core::{
    AgentName, DeploymentId, ErrorCode,
    problem::chain,
    protocol::{CheckedBatch, ServerFrame},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinHandle},
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

/// How long the task waits for more before it ends.
const IDLE: Duration = Duration::from_secs(30);

/// Boxed, as frames are.
type Queued = Box<(Vec<CheckedBatch>, OwnedSemaphorePermit)>;

/// Takes the events of one connection.
pub(super) struct Intake<'a> {
    hub: &'a Hub,
    agent: &'a AgentName,
    /// Where acknowledgements go.
    frames: &'a Frames,
    gathered: Gathered,
    keeper: Option<Keeper>,
}

/// The task that makes batches durable. It ends with why the connection must end too, if it must.
struct Keeper {
    batches: mpsc::UnboundedSender<Queued>,
    task: JoinHandle<Result<(), End>>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(hub: &'a Hub, agent: &'a AgentName, frames: &'a Frames) -> Self {
        Self { hub, agent, frames, gathered: Gathered::default(), keeper: None }
    }

    /// Takes a batch, and answers whether there is enough to [hand over](Self::flush) now.
    pub(super) fn push(&mut self, batch: CheckedBatch) -> bool {
        self.gathered.push(batch)
    }

    /// Hands over what has come. Waits while there is no room; given up meanwhile, it has handed over nothing.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        while let Some(queued) = self.gathered.take().await {
            let keeper = self.keeper.get_or_insert_with(|| Keeper::start(self.hub, self.agent, self.frames));
            let Err(back) = keeper.batches.send(queued) else { break };
            self.gathered.put_back(back.0.0);
            self.ended().await?;
        }
        Ok(())
    }

    /// Ready when batches could not be made durable.
    pub(super) async fn failed(&mut self) -> End {
        loop {
            if let Err(end) = self.ended().await {
                return end;
            }
        }
    }

    /// Ready when the task, if there is one, has ended: because it was idle, or with an error.
    async fn ended(&mut self) -> Result<(), End> {
        let Some(keeper) = &mut self.keeper else { return pending().await };
        let ended = (&mut keeper.task).await;
        self.keeper = None;
        let ended = ended.unwrap_or_else(|error| Err(not_kept(&error)));
        if ended.is_err() {
            // What follows must wait until what failed is sent again.
            self.gathered = Gathered::default();
        }
        ended
    }

    /// Makes the last of what has come durable.
    pub(super) async fn finish(mut self) {
        let mut kept = self.flush().await;
        if let Some(Keeper { batches, task }) = self.keeper.take() {
            drop(batches);
            kept = kept.and(task.await.unwrap_or_else(|error| Err(not_kept(&error))));
        }
        if let Err(end) = kept {
            // What is not acknowledged is sent again on the next connection.
            tracing::warn!(agent = %self.agent, reason = end.reason(), "the last events of a connection were not kept");
        }
    }
}

impl Keeper {
    fn start(hub: &Hub, agent: &AgentName, frames: &Frames) -> Self {
        let (batches, queued) = mpsc::unbounded_channel();
        let task = hub.shared.tasks.spawn(run(hub.clone(), agent.clone(), queued, frames.clone()));
        Self { batches, task }
    }
}

fn not_kept(error: &JoinError) -> End {
    End::Gone(format!("its events were not kept: {error}"))
}

/// What has come and was not handed over.
struct Gathered {
    batches: Vec<CheckedBatch>,
    /// How many bytes that is.
    size: usize,
    room: Arc<Semaphore>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { batches: Vec::new(), size: 0, room: Arc::new(Semaphore::new(WAITING_BYTES as usize)) }
    }
}

impl Gathered {
    /// Takes a batch, and answers whether that is enough for a group.
    fn push(&mut self, batch: CheckedBatch) -> bool {
        self.size += bytes(&batch);
        self.batches.push(batch);
        self.size >= GROUP_BYTES
    }

    /// All of it, once there is room.
    async fn take(&mut self) -> Option<Queued> {
        if self.batches.is_empty() {
            return None;
        }
        let wanted = u32::try_from(self.size).unwrap_or(u32::MAX).min(WAITING_BYTES);
        // Never closed.
        let room = Arc::clone(&self.room).acquire_many_owned(wanted).await.ok()?;
        self.size = 0;
        Some(Box::new((CheckedBatch::joined(std::mem::take(&mut self.batches)), room)))
    }

    /// Takes back what nobody took.
    fn put_back(&mut self, batches: Vec<CheckedBatch>) {
        self.batches = batches;
        self.size = self.batches.iter().map(bytes).sum();
    }
}

/// The memory it takes, about.
fn bytes(batch: &CheckedBatch) -> usize {
    batch.batch().lines().len() + size_of_val(batch.changes())
}

/// Makes batches durable and acknowledges them, until no more come.
async fn run(
    hub: Hub,
    agent: AgentName,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    frames: Frames,
) -> Result<(), End> {
    let mut known = Known::new();
    while let Some(group) = next_group(&mut queued).await {
        keep(&hub, &agent, &mut known, group, &frames).await?;
        // Who follows is told now, before the next is taken: else they fall behind an agent that never pauses.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// What waits, up to a group; none when nothing came for long, and nothing more can.
async fn next_group(queued: &mut mpsc::UnboundedReceiver<Queued>) -> Option<Vec<Queued>> {
    let first = match timeout(IDLE, queued.recv()).await {
        Ok(first) => first?,
        Err(_) => {
            queued.close();
            // Something may have come just before that.
            queued.recv().await?
        }
    };
    let mut size: usize = first.0.iter().map(bytes).sum();
    let mut group = vec![first];
    while size < GROUP_BYTES
        && let Ok(more) = queued.try_recv()
    {
        size += more.0.iter().map(bytes).sum::<usize>();
        group.push(more);
    }
    Some(group)
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
    use crate::{config::AgentsConfig, events::EventLogs, metrics::Metrics, store::Store};

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
        let mut gathered = Gathered::default();
        let (id, other) = (DeploymentId::new(), DeploymentId::new());
        for batch in [batch(id, 1, 9), batch(id, 2, 9), batch(other, 1, 9), batch(id, 3, 9)] {
            assert!(!gathered.push(batch));
        }
        assert_eq!(seqs(&gathered.take().await.unwrap()), [(1, 2), (1, 1), (3, 3)]);
        assert!(gathered.take().await.is_none(), "nothing is handed over twice");
        assert!(gathered.push(batch(id, 4, GROUP_BYTES)), "a group is enough");
    }

    #[tokio::test]
    async fn what_has_no_room_waits_and_is_not_lost_when_that_is_given_up() {
        let mut gathered = Gathered::default();
        let id = DeploymentId::new();
        let half = WAITING_BYTES as usize / 2;
        gathered.push(batch(id, 1, half));
        let first = gathered.take().await.unwrap();
        gathered.push(batch(id, 2, half));
        assert!(gathered.take().now_or_never().is_none(), "there is no room");
        drop(first);
        assert_eq!(seqs(&gathered.take().await.unwrap()), [(2, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_for_long_is_handed_nothing_more_and_gives_what_came_before() {
        let (batches, mut queued) = mpsc::unbounded_channel();
        let mut gathered = Gathered::default();
        let id = DeploymentId::new();
        gathered.push(batch(id, 1, 9));
        let first = gathered.take().await.unwrap();
        let later = async {
            tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
            batches.send(first).unwrap();
        };
        let (group, ()) = tokio::join!(next_group(&mut queued), later);
        assert_eq!(seqs(&group.unwrap()[0]), [(1, 1)]);
        assert!(next_group(&mut queued).await.is_none());
        gathered.push(batch(id, 2, 9));
        let back = batches.send(gathered.take().await.unwrap()).unwrap_err();
        gathered.put_back(back.0.0);
        assert_eq!(seqs(&gathered.take().await.unwrap()), [(2, 2)]);
    }

    fn hub() -> (tempfile::TempDir, Hub) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("sdp.db")).unwrap();
        let logs = EventLogs::open(dir.path().join("logs")).unwrap();
        (dir, Hub::new(store, logs, AgentsConfig::default(), Metrics::default()))
    }

    #[tokio::test]
    async fn a_connection_that_ends_while_there_is_no_room_has_all_it_took_made_durable() {
        let (_dir, hub) = hub();
        let (agent, id) = ("micro".parse().unwrap(), DeploymentId::new());
        let (frames, mut acks) = mpsc::channel(64);
        let mut intake = Intake::new(&hub, &agent, &frames);
        let half = WAITING_BYTES as usize / 2 - 1024;
        for seq in 1..=3 {
            assert!(intake.push(batch(id, seq, half)));
            // Given up where it has to wait, as at the end of a connection.
            let handed_over = intake.flush().now_or_never();
            assert_eq!(handed_over.is_some(), seq < 3);
        }
        intake.finish().await;
        drop(frames);
        let mut acked = 0;
        while let Some(frame) = acks.recv().await {
            let ServerFrame::Ack { deployment, seq } = *frame else { panic!("{frame:?}") };
            assert!(deployment == id && seq > acked);
            acked = seq;
        }
        assert_eq!(acked, 3);
        assert_eq!(hub.shared.logs.last_seq(id).await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn events_after_a_long_pause_are_made_durable_too() {
        let (_dir, hub) = hub();
        let (agent, id) = ("micro".parse().unwrap(), DeploymentId::new());
        let (frames, mut acks) = mpsc::channel(64);
        let mut intake = Intake::new(&hub, &agent, &frames);
        for seq in 1..=3 {
            intake.push(batch(id, seq, 9));
            assert!(intake.flush().await.is_ok());
            assert_eq!(*acks.recv().await.unwrap(), ServerFrame::Ack { deployment: id, seq });
            // Once unnoticed, once while the connection waits for more.
            let wait = IDLE * 2;
            if seq == 1 {
                tokio::time::sleep(wait).await;
            } else {
                assert!(timeout(wait, intake.failed()).await.is_err());
                assert!(intake.keeper.is_none());
            }
        }
        intake.finish().await;
        assert_eq!(hub.shared.logs.last_seq(id).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn nothing_is_kept_after_what_could_not_be() {
        let (_dir, hub) = hub();
        let (agent, id, other) = ("micro".parse().unwrap(), DeploymentId::new(), DeploymentId::new());
        let (frames, _acks) = mpsc::channel(64);
        let mut intake = Intake::new(&hub, &agent, &frames);
        // There is a gap before it.
        intake.push(batch(id, 2, 9));
        assert!(intake.flush().await.is_ok());
        intake.push(batch(other, 1, 9));
        let End::Gone(reason) = intake.failed().await else { panic!("refused") };
        assert!(reason.contains("send again from number 1"), "{reason}");
        intake.finish().await;
        assert_eq!(hub.shared.logs.last_seq(other).await.unwrap(), 0);
    }
}
