//! The control plane's API under load: reads and durable writes beside PocketBase, and beside a bare axum and rusqlite
//! that does the same statements with the same durability; and ordinary requests beside two thousand slow clients. Each
//! server is a process of its own; ours and the bare one are this program again.
//!
//! Arguments: the beginning of the names of what to measure: `cargo bench --bench api -- slow`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops where it cannot go on, and prints")]

mod bare;
mod client;
mod pocketbase;
#[path = "../limits/process.rs"]
#[expect(dead_code, reason = "the limits look at more of it")]
mod process;
mod slow;
mod statements;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match &arguments[..] {
        [role, config] if role == "server" => {
            let cli = sdp_server::cli::Cli::parse_from(["sdp-server", "--log", "error", "--config", config]);
            return runtime.block_on(cli.run()).unwrap();
        }
        [role, database, address] if role == "bare" => {
            return runtime.block_on(bare::serve(database.as_ref(), address));
        }
        _ => {}
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| name.starts_with(argument));
    runtime.block_on(async {
        if wanted("statements") {
            statements::run().await;
        }
        if wanted("slow") {
            slow::run().await;
        }
    });
}
