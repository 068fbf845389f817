//! A few of the kills of `make torture`.

use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_server_and_agent_lose_nothing_and_leave_nothing_behind() {
    let report = sdp_examples::torture::run(Path::new(env!("CARGO_BIN_EXE_torture")), 3).await;
    let report = report.map_err(|failed| failed.0).unwrap();
    assert!(report.violations().is_empty(), "{report}");
}
