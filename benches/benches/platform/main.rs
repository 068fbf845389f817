//! What people wait for, on real parts and through the control plane's API, each beside the script that a
//! person would write for it: deploying a new commit, deploying what runs already, the first line of a log,
//! switching a route, and toggling one that is routed per request.
//!
//! Needs Docker with the images that the demo's setup makes.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops where it cannot go on, and prints")]

mod deploys;
mod routes;

use sdp_examples::playground::{Options, Playground, Runner};

/// How often each side is measured, in turns.
const PAIRS: usize = 30;

fn main() {
    let pairs = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(PAIRS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(Runner::available().await, Runner::Docker, "no Docker engine with the demo's images");
        let options = Options { more_repos: deploys::site, ..Options::new(Runner::Docker) };
        let playground = start(options.clone()).await;
        deploys::measure(&playground, pairs).await;
        routes::switches(&playground, pairs).await;
        playground.shutdown().await.unwrap();
        let playground = start(Options { per_request: true, ..options }).await;
        routes::toggles(&playground, pairs).await;
        playground.shutdown().await.unwrap();
    });
}

async fn start(options: Options) -> Playground {
    Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}
