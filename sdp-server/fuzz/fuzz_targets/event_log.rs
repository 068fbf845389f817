//! Whatever a crash left in a log's file, its whole lines are kept, nothing else is, and it goes on
//! from there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sdp_core::{DeploymentId, protocol::EventBatch};
use sdp_server::EventLogs;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let id = DeploymentId::new();
        let logs = EventLogs::open(dir.path()).expect("the logs");
        std::fs::write(logs.path(id), data).expect("a file");
        let Ok(last) = logs.last_seq(id).await else { return };
        let kept = std::fs::read(logs.path(id)).expect("the file");
        assert!(data.starts_with(&kept), "only its end was cut off");
        for from in [0, 1, last, last + 1] {
            let lines = logs.read(id, from, usize::MAX).await.expect("lines");
            assert!(kept.ends_with(&lines), "from {from}");
        }
        let tail = logs.tail(id, 1).await.expect("the last line");
        assert!(kept.ends_with(&tail));
        let next = last + 1;
        let line = format!("{{\"seq\":{next},\"at\":\"2026-01-02T03:04:05Z\",\"type\":\"state\",\"state\":\"queued\"}}\n");
        let batch = EventBatch::new(id, next, line.clone().into()).expect("a batch");
        assert_eq!(logs.append(&batch).await.expect("it goes on").last, next);
        assert_eq!(std::fs::read(logs.path(id)).expect("the file"), [&kept[..], line.as_bytes()].concat());
    });
});
