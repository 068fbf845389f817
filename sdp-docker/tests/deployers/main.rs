//! The deployers on real engines and processes, by their contract and beyond.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod builds;
mod contract;
mod docker;
mod networks;
mod restarts;
mod support;
mod swarm;
