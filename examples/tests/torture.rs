//! A few of the blows of `make torture`.

use std::path::Path;

use sdp_examples::torture::Strikes;

#[tokio::test(flavor = "multi_thread")]
async fn blows_to_server_agent_and_link_lose_nothing_and_leave_nothing_behind() {
    let report = sdp_examples::torture::run(
        Path::new(env!("CARGO_BIN_EXE_torture")),
        Strikes { each: 2, stalls: 0, disks: 1, frames: 500 },
    )
    .await;
    let report = report.map_err(|failed| failed.0).unwrap();
    assert!(report.violations().is_empty(), "{report}");
}
