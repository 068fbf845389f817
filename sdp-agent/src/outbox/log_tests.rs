use proptest::prelude::*;
use sdp_core::testing::{ForgetfulDisk, conformance::events};

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

fn on_disk(disk: &ForgetfulDisk) -> Arc<Log> {
    let (medium, path) = (Box::new(disk.clone()), Path::new("/the/outbox/log"));
    Arc::new(Log::on(medium, DeploymentId::new(), path, watch::Sender::new(())).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_or_fails_delays_events_loses_none_and_the_log_says_so() {
    for (trouble, word) in [
        (io::ErrorKind::StorageFull, "was full for"),
        (io::ErrorKind::QuotaExceeded, "was full for"),
        (io::ErrorKind::Other, "failed for"),
    ] {
        let (disk, open) = (ForgetfulDisk::default(), CancellationToken::new());
        let log = on_disk(&disk);
        disk.tear_writes(3, trouble);
        assert_eq!(accept(&log, note("a"), &open).await.unwrap(), 1);
        disk.fail_syncs(2, trouble);
        assert_eq!(accept(&log, EventKind::state(DeploymentState::Source), &open).await.unwrap(), 3);
        let events = log.batch(0).unwrap().unwrap().events().unwrap();
        assert_eq!((&events[0].kind, &events[2].kind), (&note("a"), &EventKind::state(DeploymentState::Source)));
        for told in [&events[1], &events[3]] {
            let EventKind::Log { line, .. } = &told.kind else { panic!("{told:?}") };
            assert!(line.contains("the agent's disk") && line.contains(word), "{line}");
        }
        assert_eq!(events.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_the_wait_for_a_full_disk_and_leaves_a_readable_file() {
    let (disk, closing) = (ForgetfulDisk::default(), CancellationToken::new());
    let log = on_disk(&disk);
    disk.tear_writes(u32::MAX, io::ErrorKind::StorageFull);
    closing.cancel();
    let error = accept(&log, note("a"), &closing).await.unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(disk.contents(), b"");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_on_the_disk_also_after_syncs_that_failed() {
    let (disk, open) = (ForgetfulDisk::default(), CancellationToken::new());
    let log = on_disk(&disk);
    disk.fail_syncs(2, io::ErrorKind::Other);
    accept(&log, note("a"), &open).await.unwrap();
    assert!(log.batch(0).is_err(), "what is not synced is not sent");
    accept(&log, note("b"), &open).await.unwrap();
    // Its first sync fails.
    accept(&log, EventKind::state(DeploymentState::Source), &open).await.unwrap();
    let batch = log.batch(0).unwrap().unwrap();
    assert_eq!(batch.events().unwrap().len(), 4);
    assert_eq!(disk.durable(), **batch.lines());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The power goes at any point, with any part of what was not synced on the disk.
    #[test]
    fn what_a_crash_forgets_was_never_sent_and_was_only_output(
        steps in proptest::collection::vec((0u8..6, 0usize..300, any::<u64>()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (disk, open) = (ForgetfulDisk::default(), CancellationToken::new());
            let mut log = on_disk(&disk);
            // What is certain, and what is there but for a crash.
            let (mut certain, mut lines) = (Vec::new(), Vec::new());
            for (step, len, luck) in steps {
                match step {
                    0 => {
                        disk.crash(|number| luck >> (number % 64) & 1 == 1);
                        log = on_disk(&disk);
                        let kept = disk.contents();
                        assert!(kept.starts_with(&certain), "something certain was lost");
                        assert!(lines.starts_with(&kept), "something came out of nothing");
                        lines = kept;
                    }
                    1 => disk.fail_syncs(1, io::ErrorKind::Other),
                    2 => disk.tear_writes(1, io::ErrorKind::StorageFull),
                    3 => {
                        if log.batch(0).is_ok_and(|batch| batch.is_some()) {
                            certain.clone_from(&lines);
                        }
                    }
                    4 => {
                        let seq = accept(&log, EventKind::state(DeploymentState::Build), &open).await.unwrap();
                        lines = disk.contents();
                        // A word about trouble with the disk may follow, as output.
                        let first = lines.split_inclusive(|byte| *byte == b'\n').take(seq as usize);
                        certain = first.flatten().copied().collect();
                    }
                    _ => {
                        accept(&log, note(&"x".repeat(len)), &open).await.unwrap();
                        lines = disk.contents();
                    }
                }
            }
        });
    }
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
