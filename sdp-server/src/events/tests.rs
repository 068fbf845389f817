use std::{fs, ops::Range, time::Duration};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use proptest::prelude::*;
use sdp_core::{
    DeploymentId, ErrorCode, Event, EventKind, Problem, Stage,
    protocol::{CheckedBatch, EventBatch},
    testing::ForgetfulDisk,
};
use tempfile::TempDir;

use super::*;

fn line(seq: u64) -> Vec<u8> {
    // Lengths differ, so that lines straddle whatever boundary reads have.
    let text = "x".repeat(usize::try_from(seq * 37 % 211).unwrap());
    let event = Event { seq, at: Timestamp::UNIX_EPOCH, kind: EventKind::note(Stage::Build, text) };
    let mut line = serde_json::to_vec(&event).unwrap();
    line.push(b'\n');
    line
}

/// The lines of the events `seqs`.
fn lines(seqs: Range<u64>) -> Bytes {
    let mut bytes = BytesMut::new();
    for seq in seqs {
        bytes.extend_from_slice(&line(seq));
    }
    bytes.freeze()
}

fn batch(id: DeploymentId, seqs: Range<u64>) -> CheckedBatch {
    EventBatch::new(id, seqs.start, lines(seqs)).unwrap().checked().unwrap()
}

fn logs() -> (TempDir, EventLogs) {
    let dir = TempDir::new().unwrap();
    let logs = EventLogs::open(dir.path().join("logs")).unwrap();
    (dir, logs)
}

async fn collect(mut subscription: Subscription) -> Bytes {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = subscription.next().await.unwrap() {
        assert_eq!(chunk.last(), Some(&b'\n'), "whole lines only");
        bytes.extend_from_slice(&chunk);
    }
    bytes.freeze()
}

#[tokio::test]
async fn the_file_holds_exactly_the_lines_that_came() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    assert_eq!(logs.last_seq(id).await.unwrap(), 0);
    let first = logs.append(batch(id, 1..4)).await.unwrap();
    assert_eq!(first, Appended { last: 3, changes: vec![] });
    let overlap = logs.append(batch(id, 2..6)).await.unwrap();
    assert_eq!(overlap.last, 5);
    let repeat = logs.append(batch(id, 1..4)).await.unwrap();
    assert_eq!(repeat, Appended { last: 5, changes: vec![] });
    assert_eq!(fs::read(logs.path(id)).unwrap(), lines(1..6));
}

#[tokio::test]
async fn a_gap_is_refused_with_the_number_expected() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    let error = logs.append(batch(id, 2..3)).await.unwrap_err();
    assert!(matches!(error, EventLogError::Gap { expected: 1, .. }), "{error}");
    assert!(!logs.path(id).exists());
    logs.append(batch(id, 1..3)).await.unwrap();
    let error = logs.append(batch(id, 4..5)).await.unwrap_err();
    assert!(matches!(error, EventLogError::Gap { expected: 3, .. }), "{error}");
    assert_eq!(Problem::from(&error).code, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_subscription_made_before_the_file_sees_it_from_its_first_line() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    let reader = tokio::spawn(collect(logs.subscribe(id, 0)));
    let later = tokio::spawn(collect(logs.subscribe(id, 5)));
    for seq in 1..9 {
        logs.append(batch(id, seq..seq + 1)).await.unwrap();
    }
    logs.finish(id);
    logs.finish(id);
    assert_eq!(reader.await.unwrap(), lines(1..9));
    assert_eq!(later.await.unwrap(), lines(5..9));
    assert_eq!(collect(logs.subscribe(id, 99)).await, Bytes::new());
}

#[tokio::test]
async fn a_finished_log_without_a_file_ends_at_once() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    logs.finish(id);
    assert_eq!(collect(logs.subscribe(id, 1)).await, Bytes::new());
}

#[tokio::test]
async fn giving_up_on_next_loses_nothing() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    let mut subscription = logs.subscribe(id, 1);
    let mut read = BytesMut::new();
    for seq in 1..50 {
        // Polled once and dropped, mostly while its read is under way.
        let _ = tokio::time::timeout(Duration::ZERO, subscription.next()).await.map(|chunk| {
            read.extend_from_slice(&chunk.unwrap().unwrap());
        });
        logs.append(batch(id, seq..seq + 1)).await.unwrap();
    }
    logs.finish(id);
    while let Some(chunk) = subscription.next().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, lines(1..50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_subscribers_each_get_every_line_once() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    let readers: Vec<_> = (0..100).map(|from| (from, tokio::spawn(collect(logs.subscribe(id, from))))).collect();
    for first in (1..400).step_by(10) {
        logs.append(batch(id, first..first + 10)).await.unwrap();
    }
    logs.finish(id);
    for (from, reader) in readers {
        assert_eq!(reader.await.unwrap(), lines(from.max(1)..401), "from {from}");
    }
}

#[tokio::test]
async fn chunks_are_bounded_and_a_longer_line_comes_whole() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    logs.append(batch(id, 1..5000)).await.unwrap();
    let long = Event { seq: 5000, at: Timestamp::UNIX_EPOCH, kind: EventKind::note(Stage::Build, "y".repeat(700_000)) };
    let mut bytes = serde_json::to_vec(&long).unwrap();
    bytes.push(b'\n');
    logs.append(EventBatch::new(id, 5000, bytes.clone().into()).unwrap().checked().unwrap()).await.unwrap();
    logs.finish(id);
    let mut subscription = logs.subscribe(id, 1);
    let mut sizes = Vec::new();
    while let Some(chunk) = subscription.next().await.unwrap() {
        sizes.push(chunk.len());
    }
    assert_eq!(sizes.pop(), Some(bytes.len()));
    assert!(sizes.len() > 2 && sizes.iter().all(|size| *size <= 63 * 1024), "{sizes:?}");
    assert_eq!(logs.tail(id, 1).await.unwrap(), bytes);
}

#[tokio::test]
async fn read_and_tail_give_whole_lines_within_their_limits() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    assert!(logs.read(id, 1, 100).await.unwrap().is_empty() && logs.tail(id, 5).await.unwrap().is_empty());
    logs.append(batch(id, 1..1000)).await.unwrap();
    for seq in 1..1000 {
        assert_eq!(logs.read(id, seq, 1).await.unwrap(), line(seq), "one line however small the limit");
    }
    assert!(logs.read(id, 1000, 100).await.unwrap().is_empty());
    assert_eq!(logs.read(id, 990, usize::MAX).await.unwrap(), lines(990..1000));
    for count in [0, 1, 2, 50, 998, 999, 5000] {
        assert_eq!(logs.tail(id, count).await.unwrap(), lines(1000 - count.min(999) as u64..1000), "{count}");
    }
}

#[test]
fn a_tail_keeps_to_its_limit_in_bytes() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("log");
    let all = lines(1..200);
    fs::write(&path, &all).unwrap();
    let file = file::LogFile::open(&path).unwrap().unwrap();
    for limit in (1..all.len() + 100).step_by(97) {
        let tail = file.tail(usize::MAX, limit).unwrap();
        let begin = all.len() - tail.len();
        assert!(all.ends_with(&tail) && (begin == 0 || all[begin - 1] == b'\n'), "whole lines");
        let count = tail.iter().filter(|byte| **byte == b'\n').count();
        assert!(tail.len() <= limit || count == 1, "{limit}: {}", tail.len());
        let one_more = lines(200 - (count as u64 + 1).min(199)..200);
        assert!(begin == 0 || one_more.len() > limit, "{limit}: as much as fits");
    }
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cut_off_and_sent_again() {
    let mut zeros = lines(1..5).to_vec();
    zeros.extend([0; 300]);
    let mut hole = lines(1..5).to_vec();
    hole.extend(b"\0\0\0\n");
    hole.extend(lines(6..8));
    let mut skipped = lines(1..5).to_vec();
    skipped.extend(lines(9..11));
    for (what, torn) in [
        ("half a line", [lines(1..5), lines(5..6).slice(..20)].concat()),
        ("zeros at the end", zeros),
        ("a hole in the middle", hole),
        ("lines that do not follow", skipped),
    ] {
        let (_dir, logs) = logs();
        let id = DeploymentId::new();
        fs::write(logs.path(id), torn).unwrap();
        assert_eq!(logs.last_seq(id).await.unwrap(), 4, "{what}");
        assert_eq!(fs::read(logs.path(id)).unwrap(), lines(1..5), "{what}");
        logs.append(batch(id, 5..8)).await.unwrap();
        assert_eq!(fs::read(logs.path(id)).unwrap(), lines(1..8), "{what}");
    }
}

#[tokio::test]
async fn a_log_cut_anywhere_keeps_its_whole_lines() {
    let (_dir, logs) = logs();
    let whole = lines(1..4);
    for cut in 0..=whole.len() {
        let id = DeploymentId::new();
        fs::write(logs.path(id), &whole[..cut]).unwrap();
        let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(logs.last_seq(id).await.unwrap(), lines, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_log_longer_than_the_checked_part_opens_at_its_end() {
    let (dir, logs) = logs();
    let id = DeploymentId::new();
    for first in (1..40_001).step_by(10_000) {
        logs.append(batch(id, first..first + 10_000)).await.unwrap();
    }
    drop(logs);
    let logs = EventLogs::open(dir.path().join("logs")).unwrap();
    assert!(fs::metadata(logs.path(id)).unwrap().len() > 4 * 1024 * 1024);
    assert_eq!(logs.last_seq(id).await.unwrap(), 40_000);
    assert_eq!(logs.tail(id, 2).await.unwrap(), lines(39_999..40_001));
}

#[tokio::test]
async fn logs_nobody_uses_are_closed_and_come_back_as_they_were() {
    let (_dir, logs) = logs();
    let ids: Vec<_> = (0..1000).map(|_| DeploymentId::new()).collect();
    let kept = logs.subscribe(ids[0], 1);
    for id in &ids {
        fs::write(logs.path(*id), lines(1..3)).unwrap();
        assert_eq!(logs.last_seq(*id).await.unwrap(), 2);
        logs.finish(*id);
    }
    assert!(logs.with_table(|table| table.logs.len()) <= IDLE_LOGS);
    assert_eq!(collect(kept).await, lines(1..3));
    assert_eq!(collect(logs.subscribe(ids[1], 2)).await, lines(2..3), "finished is remembered");
}

#[tokio::test]
async fn a_failed_append_is_told_and_can_be_tried_again() {
    let (_dir, logs) = logs();
    let id = DeploymentId::new();
    fs::create_dir(logs.path(id)).unwrap();
    let error = logs.append(batch(id, 1..3)).await.unwrap_err();
    assert_eq!(Problem::from(&error).code, ErrorCode::EventsUnavailable);
    fs::remove_dir(logs.path(id)).unwrap();
    assert_eq!(logs.append(batch(id, 1..3)).await.unwrap().last, 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Batches split, repeated and overlapping at will, and readers that come at any time.
    #[test]
    fn every_reader_gets_the_lines_from_its_first_on(
        steps in proptest::collection::vec((0_u64..6, 1_u64..20, proptest::option::of(0_u64..120)), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, logs) = logs();
            let id = DeploymentId::new();
            let (mut last, mut readers) = (0_u64, Vec::new());
            for (back, count, reader) in steps {
                if let Some(from) = reader {
                    readers.push((from, tokio::spawn(collect(logs.subscribe(id, from)))));
                }
                let first = (last + 1).saturating_sub(back).max(1);
                let appended = logs.append(batch(id, first..first + count)).await.unwrap();
                last = last.max(first + count - 1);
                assert_eq!(appended.last, last);
            }
            logs.finish(id);
            let file = fs::read(logs.path(id)).unwrap();
            assert_eq!(file, lines(1..last + 1));
            for (from, reader) in readers {
                let from = from.max(1).min(last + 1);
                assert_eq!(reader.await.unwrap(), lines(from..last + 1));
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The power goes at any point, with any part of what was not synced on the disk; writes are torn
    /// and syncs fail. What an append answered is there, and what is there is what was sent.
    #[test]
    fn what_was_acknowledged_survives_disks_that_fail_and_forget(
        steps in proptest::collection::vec((0_u8..8, 1_u64..40, any::<u64>()), 1..60),
    ) {
        let disk = ForgetfulDisk::default();
        let path = Path::new("/the/logs/log");
        let reopen = || file::LogFile::repair(Arc::new(disk.clone()), path).unwrap();
        let (mut log, mut acked) = (reopen(), 0);
        for (step, count, luck) in steps {
            match step {
                0 => {
                    disk.fail_syncs(0, io::ErrorKind::Other);
                    disk.crash(|number| luck >> (number % 64) & 1 == 1);
                    log = reopen();
                    prop_assert!(log.last >= acked, "{} of {acked} were acknowledged", log.last);
                    // Also what arrived by itself is durable now, and readers may have it.
                    acked = log.last;
                }
                1 => disk.tear_writes(1, io::ErrorKind::StorageFull),
                2 => disk.fail_syncs(1, io::ErrorKind::Other),
                _ => {
                    let last = log.last + count;
                    if log.append(&lines(log.last + 1..last + 1), last).is_ok() {
                        acked = last;
                    }
                    prop_assert_eq!(log.last, acked);
                }
            }
            prop_assert_eq!(log.lines_from(0, usize::MAX).unwrap(), lines(1..acked + 1));
            prop_assert!(disk.durable().starts_with(&lines(1..acked + 1)), "what readers see is durable");
        }
    }
}
