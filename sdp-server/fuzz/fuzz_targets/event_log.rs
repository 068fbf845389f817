//! Whatever a crash left in a log's file, its whole lines are kept, nothing else is, and it goes on
//! from there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdp_core::{DeploymentId, protocol::EventBatch};
use sdp_server::EventLogs;

fn line(seq: u64) -> String {
    format!("{{\"seq\":{seq},\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"state\",\"state\":\"queued\"}}\n")
}

fuzz_target!(|input: &[u8]| {
    // Some good lines, and then what the crash left.
    let Some((count, left)) = input.split_first() else { return };
    let good: String = (1..=u64::from(*count % 8)).map(line).collect();
    let data = [good.as_bytes(), left].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let id = DeploymentId::new();
        let logs = EventLogs::open(dir.path()).expect("the logs");
        std::fs::write(logs.path(id), &data).expect("a file");
        let Ok(last) = logs.last_seq(id).await else { return };
        let kept = std::fs::read(logs.path(id)).expect("the file");
        assert!(data.starts_with(&kept) && kept.starts_with(good.as_bytes()), "only its torn end was cut off");
        for from in [0, 1, last, last + 1] {
            let lines = logs.read(id, from, usize::MAX).await.expect("lines");
            assert!(kept.ends_with(&lines), "from {from}");
        }
        let tail = logs.tail(id, 1).await.expect("the last line");
        assert!(kept.ends_with(&tail));
        let next = last + 1;
        let batch = EventBatch::new(id, next, line(next).into()).expect("a batch").checked().expect("a good one");
        assert_eq!(logs.append(batch).await.expect("it goes on").last, next);
        assert_eq!(std::fs::read(logs.path(id)).expect("the file"), [&kept[..], line(next).as_bytes()].concat());
    });
});
