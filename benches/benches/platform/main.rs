//! What people wait for, on real parts and through the control plane's API, each beside the script that a
//! person would write for it: deploying a new commit, deploying what runs already, the first line of a log,
//! switching a route, and toggling one that is routed per request.
//!
//! Arguments: how often each side is measured, and the beginning of the names of what to measure (deploys, switches,
//! toggles): `cargo bench --bench platform -- 10 toggles`. Needs Docker with the images that the demo's setup makes.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops where it cannot go on, and prints")]

mod deploys;
mod routes;

use sdp_examples::playground::{Options, Playground, Runner};

/// How often each side is measured, in turns.
const PAIRS: usize = 30;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let pairs = arguments.iter().filter_map(|argument| argument.parse().ok()).next().unwrap_or(PAIRS);
    let names: Vec<_> = arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(Runner::available().await, Runner::Docker, "no Docker engine with the demo's images");
        let options = Options { more_repos: deploys::site, ..Options::new(Runner::Docker) };
        if wanted("deploys") || wanted("switches") {
            let playground = start(options.clone()).await;
            if wanted("deploys") {
                deploys::measure(&playground, pairs).await;
            }
            if wanted("switches") {
                routes::switches(&playground, pairs).await;
            }
            playground.shutdown().await.unwrap();
        }
        if wanted("toggles") {
            let playground = start(Options { per_request: true, ..options }).await;
            routes::toggles(&playground, pairs).await;
            playground.shutdown().await.unwrap();
        }
    });
}

async fn start(options: Options) -> Playground {
    Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}
