//! What the control plane takes before it hurts: long logs, slow readers, many agents. It is measured
//! as a process of its own, which is this program again.
//!
//! Arguments: the beginning of the names of what to measure: `cargo bench --bench limits -- agents`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark stops where it cannot go on, and prints"
)]

mod agents;
mod logs;
mod process;
mod readers;

use clap::Parser;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let [role, config] = &arguments[..]
        && role == "server"
    {
        let cli = sdp_server::cli::Cli::parse_from(["sdp-server", "--log", "error", "--config", config]);
        return runtime.block_on(cli.run()).unwrap();
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| name.starts_with(argument));
    runtime.block_on(async {
        if wanted("logs") {
            logs::run().await;
        }
        if wanted("readers") {
            readers::run().await;
        }
        if wanted("agents") {
            agents::run().await;
        }
    });
}
