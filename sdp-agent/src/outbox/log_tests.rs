use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use sdp_core::testing::conformance::events;

use super::*;
use crate::outbox::Outbox;

fn note(text: &str) -> EventKind {
    EventKind::note(Stage::Build, text)
}

async fn all(outbox: &Outbox, deployment: DeploymentId) -> Vec<Event> {
    let (mut read, mut seq) = (Vec::new(), 0);
    while let Some(batch) = outbox.batch(deployment, seq).await.unwrap() {
        assert!(batch.first() == seq + 1 && batch.lines().len() <= MAX_BATCH_BYTES);
        read.extend(batch.events().unwrap());
        seq = batch.last();
    }
    read
}

#[tokio::test]
async fn the_outbox_keeps_the_contract_of_a_sink() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, deployment) = (Outbox::open(dir.path()).unwrap(), DeploymentId::new());
    let sink = outbox.sink(deployment).unwrap();
    events::suite(&sink, async || all(&outbox, deployment).await).await;
}

#[tokio::test]
async fn an_ended_deployments_file_goes_with_its_last_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, deployment) = (Outbox::open(dir.path()).unwrap(), DeploymentId::new());
    let sink = outbox.sink(deployment).unwrap();
    sink.accept_all([note("a"), EventKind::state(DeploymentState::Running)]).await;
    outbox.ack(deployment, 1);
    assert_eq!(outbox.unacked()[0].last, 2);
    outbox.ack(deployment, 2);
    assert!(outbox.unacked().is_empty() && std::fs::read_dir(dir.path()).unwrap().next().is_none());
    outbox.ack(deployment, 99);
}

#[tokio::test]
async fn a_deployment_under_way_is_held_though_all_of_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, deployment) = (Outbox::open(dir.path()).unwrap(), DeploymentId::new());
    outbox.sink(deployment).unwrap().accept_all([note("a")]).await;
    outbox.ack(deployment, 1);
    assert_eq!(outbox.unacked().len(), 1);
    outbox.sink(deployment).unwrap().accept_all([note("b")]).await;
    assert_eq!(outbox.batch(deployment, 1).await.unwrap().unwrap().first(), 2);
}

#[tokio::test]
async fn texts_that_would_not_fit_into_a_frame_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, deployment) = (Outbox::open(dir.path()).unwrap(), DeploymentId::new());
    outbox.sink(deployment).unwrap().accept_all([note(&"\u{1}é".repeat(1_000_000))]).await;
    let events = all(&outbox, deployment).await;
    let EventKind::Log { line, .. } = &events[0].kind else { panic!("not a line") };
    assert!(line.len() < 40_000 && line.ends_with("… (cut: 3000000 bytes)"), "{}", line.len());
}

trait AcceptAll {
    async fn accept_all(&self, kinds: impl IntoIterator<Item = EventKind>);
}

impl<S: sdp_core::EventSink> AcceptAll for S {
    async fn accept_all(&self, kinds: impl IntoIterator<Item = EventKind>) {
        for kind in kinds {
            self.accept(kind).await.unwrap();
        }
    }
}

/// A file on a disk that is full, or fails, for a number of calls: writes are torn, or syncs fail.
#[derive(Debug)]
struct FullDisk {
    file: File,
    trouble: io::ErrorKind,
    torn_writes: AtomicU32,
    failing_syncs: AtomicU32,
}

fn once(counter: &AtomicU32) -> bool {
    counter.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Medium for FullDisk {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if once(&self.torn_writes) {
            Medium::write_all_at(&self.file, &bytes[..bytes.len() / 2], offset)?;
            return Err(self.trouble.into());
        }
        Medium::write_all_at(&self.file, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Medium::read_exact_at(&self.file, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Medium::set_len(&self.file, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if once(&self.failing_syncs) {
            return Err(self.trouble.into());
        }
        Medium::sync_data(&self.file)
    }
}

fn on_full_disk(path: &Path, trouble: io::ErrorKind, torn_writes: u32, failing_syncs: u32) -> Arc<Log> {
    let mut log = Log::open(DeploymentId::new(), path, watch::Sender::new(())).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    log.medium = Box::new(FullDisk {
        file,
        trouble,
        torn_writes: AtomicU32::new(torn_writes),
        failing_syncs: AtomicU32::new(failing_syncs),
    });
    Arc::new(log)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_or_fails_delays_events_and_loses_none() {
    for trouble in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::Other] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (log, open) = (on_full_disk(&path, trouble, 3, 2), CancellationToken::new());
        assert_eq!(accept(&log, note("a"), &open).await.unwrap(), 1);
        assert_eq!(accept(&log, EventKind::state(DeploymentState::Source), &open).await.unwrap(), 2);
        assert_eq!(log.batch(0).unwrap().unwrap().events().unwrap().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_the_wait_for_a_full_disk_and_leaves_a_readable_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, closing) = (on_full_disk(&path, io::ErrorKind::StorageFull, u32::MAX, 0), CancellationToken::new());
    closing.cancel();
    let error = accept(&log, note("a"), &closing).await.unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

/// A disk as Linux shows it: reads come from the cache, and a failed sync forgets what was to be
/// written.
#[derive(Debug, Default)]
struct ForgetfulDisk {
    state: Mutex<Forgetful>,
    failing_syncs: AtomicU32,
}

#[derive(Debug, Default)]
struct Forgetful {
    cache: Vec<u8>,
    dirty: Vec<std::ops::Range<usize>>,
    durable: Vec<u8>,
}

impl Medium for Arc<ForgetfulDisk> {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let range = offset as usize..offset as usize + bytes.len();
        let len = state.cache.len().max(range.end);
        state.cache.resize(len, 0);
        state.cache[range.clone()].copy_from_slice(bytes);
        state.dirty.push(range);
        Ok(())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        bytes.copy_from_slice(&self.state.lock().unwrap().cache[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state.lock().unwrap().cache.truncate(len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let dirty = std::mem::take(&mut state.dirty);
        if once(&self.failing_syncs) {
            return Err(io::Error::other("the disk is broken"));
        }
        let Forgetful { cache, durable, .. } = &mut *state;
        durable.resize(cache.len(), 0);
        for range in dirty {
            let range = range.start.min(cache.len())..range.end.min(cache.len());
            durable[range.clone()].copy_from_slice(&cache[range]);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_on_the_disk_also_after_syncs_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(DeploymentId::new(), &dir.path().join("log"), watch::Sender::new(())).unwrap();
    let disk = Arc::new(ForgetfulDisk { failing_syncs: AtomicU32::new(2), ..ForgetfulDisk::default() });
    log.medium = Box::new(Arc::clone(&disk));
    let (log, open) = (Arc::new(log), CancellationToken::new());
    accept(&log, note("a"), &open).await.unwrap();
    assert!(log.batch(0).is_err(), "what is not synced is not sent");
    accept(&log, note("b"), &open).await.unwrap();
    // Its first sync fails.
    accept(&log, EventKind::state(DeploymentState::Source), &open).await.unwrap();
    let batch = log.batch(0).unwrap().unwrap();
    assert_eq!(batch.events().unwrap().len(), 3);
    assert_eq!(disk.state.lock().unwrap().durable, **batch.lines());
}

#[derive(Debug, Clone)]
enum Step {
    Accept(usize, bool),
    Ack(u64),
    Read(u64),
    Reopen(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let torn = prop_oneof![
        Just(Vec::new()),
        Just(b"{\"seq\":1,\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"log\"".to_vec()),
        Just(vec![0; 50]),
        Just(b"nonsense\n{}\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 1..100),
    ];
    let step = prop_oneof![
        6 => (0usize..20_000, any::<bool>()).prop_map(|(len, durable)| Step::Accept(len, durable)),
        2 => (0u64..60).prop_map(Step::Ack),
        2 => (0u64..60).prop_map(Step::Read),
        1 => torn.prop_map(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_the_accepted_events_are_read_back_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let deployment = DeploymentId::new();
            let mut outbox = Outbox::open(dir.path()).unwrap();
            outbox.sink(deployment).unwrap();
            let (mut expected, mut acked) = (Vec::<EventKind>::new(), 0);
            for step in steps {
                match step {
                    Step::Accept(len, durable) => {
                        let kind = match durable {
                            true => EventKind::state(DeploymentState::Build),
                            false => note(&"x".repeat(len)),
                        };
                        let seq = outbox.sink(deployment).unwrap();
                        let seq = sdp_core::EventSink::accept(&seq, kind.clone()).await.unwrap();
                        expected.push(kind);
                        assert_eq!(seq, expected.len() as u64);
                    }
                    Step::Ack(seq) => {
                        outbox.ack(deployment, seq);
                        acked = u64::max(acked, seq.min(expected.len() as u64));
                    }
                    Step::Read(seq) => {
                        let batch = outbox.batch(deployment, seq).await.unwrap();
                        assert_eq!(batch.is_some(), seq < expected.len() as u64);
                        if let Some(batch) = batch {
                            let kinds: Vec<_> = batch.events().unwrap().into_iter().map(|event| event.kind).collect();
                            assert_eq!(batch.first(), seq + 1);
                            assert_eq!(kinds[..], expected[seq as usize..][..kinds.len()]);
                        }
                    }
                    Step::Reopen(torn) => {
                        let path = dir.path().join(format!("{deployment}.ndjson"));
                        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
                        io::Write::write_all(&mut file, &torn).unwrap();
                        outbox = Outbox::open(dir.path()).unwrap();
                        acked = 0;
                    }
                }
                let progress = outbox.progress(deployment).unwrap();
                assert_eq!((progress.last, progress.acked), (expected.len() as u64, acked));
            }
            let kinds: Vec<_> = all(&outbox, deployment).await.into_iter().map(|event| event.kind).collect();
            assert_eq!(kinds, expected);
        });
    }
}
