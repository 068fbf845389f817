//! Events end to end, in by one agent and out to followers, beside NATS JetStream and Redis with
//! the same lines, in turns.
//!
//! Arguments, each optional: how many rounds, how many lines a round, and the beginning of the names
//! of the systems to measure: `cargo bench --bench events -- 5 100000 sdp`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark stops where it cannot go on, and prints"
)]

mod load;
mod nats;
mod redis;
mod sdp;

use std::time::Duration;

use load::{Load, Outcome, p99};
use sdp_benches::median;

const SYSTEMS: [&str; 4] = ["sdp", "redis always", "nats default", "nats always"];

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(5);
    let lines = numbers.get(1).copied().unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let only = std::env::args().skip(1).find(|arg| arg.starts_with(char::is_alphabetic)).unwrap_or_default();
    let always = nats::can_sync_always();
    println!("{lines} lines of 200 bytes, {rounds} rounds, medians. sdp and the two called always sync to disk before");
    println!("they acknowledge, nats default does not.\n");
    for (per_message, in_flight) in [(1, 16_384), (100, 16_384), (100, 1_000)] {
        for subscribers in [0, 1, 10] {
            let load = Load { lines: lines / per_message * per_message, per_message, in_flight, subscribers };
            let mut outcomes: [Vec<Outcome>; 4] = Default::default();
            for _ in 0..rounds {
                for (system, outcomes) in SYSTEMS.iter().zip(&mut outcomes) {
                    if !system.starts_with(&only) || *system == "nats always" && !always {
                        continue;
                    }
                    // A peer that syncs each message needs no more lines to show its speed.
                    let load = if *system == "nats always" && per_message == 1 {
                        Load { lines: load.lines / 10, ..load }
                    } else {
                        load
                    };
                    let dir = tempfile::tempdir().unwrap();
                    let outcome = runtime.block_on(async {
                        match *system {
                            "sdp" => sdp::run(&load, dir.path()).await,
                            "redis always" => redis::run(&load, "always", dir.path()).await,
                            system => nats::run(&load, system == "nats always", dir.path()).await,
                        }
                    });
                    let scale = u32::try_from(lines / load.lines).unwrap();
                    outcomes.push(Outcome {
                        elapsed: outcome.elapsed * scale,
                        replay: outcome.replay * scale,
                        ..outcome
                    });
                }
            }
            tell(&load, outcomes);
        }
    }
    if !always && only.is_empty() {
        println!("nats always: not measured, this nats-server has no sync_interval");
    }
}

fn tell(load: &Load, outcomes: [Vec<Outcome>; 4]) {
    println!(
        "{} line(s) per message, at most {} in flight, {} live subscriber(s)",
        load.per_message, load.in_flight, load.subscribers
    );
    let mut ours = None;
    for (system, outcomes) in SYSTEMS.iter().zip(outcomes) {
        if outcomes.is_empty() {
            continue;
        }
        let elapsed = median(outcomes.iter().map(|outcome| outcome.elapsed).collect());
        let replay = median(outcomes.iter().map(|outcome| outcome.replay).collect());
        let latency = median(outcomes.into_iter().map(|outcome| p99(outcome.latencies)).collect());
        let ours = *ours.get_or_insert((elapsed, replay, latency));
        let ratio = |ours: Duration, theirs: Duration| theirs.as_secs_f64() / ours.as_secs_f64().max(f64::EPSILON);
        println!(
            "  {system:<13} {:>7.0} k/s {:>6.2} x   replay {:>7.0} k/s {:>6.2} x   p99 {:>9.2} ms {:>6.2} x",
            load.lines as f64 / elapsed.as_secs_f64() / 1e3,
            ratio(ours.0, elapsed),
            load.lines as f64 / replay.as_secs_f64() / 1e3,
            ratio(ours.1, replay),
            latency.as_secs_f64() * 1e3,
            ratio(ours.2, latency),
        );
    }
}
