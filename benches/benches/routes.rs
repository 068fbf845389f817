//! Switching a route: the lossless patch, locked, verified, recorded and synced to disk, beside
//! `sed -i`, which is none of it and cannot know a value that is an expression.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops where it cannot go on, and prints")]

use std::{process::Command, sync::Arc, time::Duration};

use sdp_benches::{ROUNDS, line, median, time};
use sdp_core::{
    InstanceKey, Override, OverrideKind, RepoSource, RouteChanges, RouteStore,
    testing::{MemoryDeployer, MemoryRepos, MemorySink},
};
use sdp_gateway::{GatewayConfig, PhpRoutes};
use tokio_util::sync::CancellationToken;

fn config(services: usize) -> String {
    let line = |n: usize| match n % 2 {
        0 => format!("$config['service{n}_url'] = 'http://service{n}.ocp.example';\n"),
        _ => format!("$config['service{n}_url'] = getenv('S{n}') ?: 'http://service{n}.ocp.example'; // stable\n"),
    };
    format!("<?php\n{}", (0..services).map(line).collect::<String>())
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for services in [20, 1_000] {
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let text = config(services);
            let repos = MemoryRepos::with_repo("gateway")
                .branch("gateway", "main", &[("config.php", &text)])
                .in_dir(dir.path());
            let (key, cancel) = (InstanceKey::quick("gateway".parse().unwrap()), CancellationToken::new());
            repos.prepare(&key, &"main".parse().unwrap(), None, &MemorySink::default(), &cancel).await.unwrap();
            let mut config = GatewayConfig::new("gateway".parse().unwrap(), "config.php");
            config.reload = sdp_gateway::ReloadConfig::None;
            let reload = config.reloader(Arc::new(MemoryDeployer::default()));
            let routes = PhpRoutes::new(config, Arc::new(repos), reload).unwrap();
            let by_hand = dir.path().join("by-hand.php");
            std::fs::write(&by_hand, &text).unwrap();

            let (mut ours, mut theirs): (Vec<Duration>, Vec<Duration>) = Default::default();
            for round in 0..ROUNDS {
                let url = format!("http://127.0.0.1:{}", 9_000 + round);
                let owner: sdp_core::SandboxName = "pay".parse().unwrap();
                let over = Override::new(url.parse().unwrap(), OverrideKind::Sandbox, owner.clone());
                let services = [("service0".parse().unwrap(), Some(over))].into();
                let changes = RouteChanges { services, by: Some(owner), ..RouteChanges::default() };
                let began = std::time::Instant::now();
                routes.apply(&changes).await.unwrap();
                ours.push(began.elapsed());
                let script = format!("s#\\['service0_url'\\] = '[^']*'#['service0_url'] = '{url}'#");
                theirs.push(time(|| {
                    assert!(Command::new("sed").args(["-i", &script]).arg(&by_hand).status().unwrap().success());
                }));
            }
            println!("{}", line(&format!("switch one of {services} routes"), median(ours), "sed", median(theirs)));
        });
    }
}
