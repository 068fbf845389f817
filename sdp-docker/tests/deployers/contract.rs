//! The conformance suite.

use sdp_core::testing::conformance::deployer::suite;
use sdp_docker::{ProcessConfig, ProcessDeployer};
use tempfile::TempDir;

use crate::support::{Docker, Jobs, NAMES};

#[tokio::test(flavor = "multi_thread")]
async fn containers_keep_the_contract() {
    let _turn = NAMES.lock().await;
    let (_docker, jobs) = Docker::jobs("contract").await;
    suite(&jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_keep_the_contract() {
    let dir = TempDir::new().unwrap();
    let deployer = ProcessDeployer::new(ProcessConfig::new(dir.path())).unwrap();
    let jobs = Jobs::new(deployer.clone(), "/bin/busybox");
    suite(&jobs).await;
    deployer.shutdown().await.unwrap();
}
