//! `RepoSource::prepare` beside the git command line: reset, fetch, checkout of the same branch.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops where it cannot go on, and prints")]

use std::{path::Path, process::Command, time::Duration};

use sdp_benches::{ROUNDS, line, median, time};
use sdp_core::{Credentials, InstanceKey, RepoSource, testing::MemorySink};
use sdp_git::{GitConfig, GitRepos, testing::GitHost};
use tokio_util::sync::CancellationToken;

const FILES: usize = 2_000;

fn git(dir: &Path, args: &[&str]) {
    let output = Command::new("git").current_dir(dir).args(args).env("GIT_TERMINAL_PROMPT", "0").output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = GitHost::start(&[("ada", "secret")]).await.unwrap();
        host.create_repo("eredar").await.unwrap();
        let files: Vec<_> = (0..FILES).map(|n| (format!("dir{}/file{n}.txt", n % 50), vec![b'x'; 2_000])).collect();
        let commit = async |round: usize, parent| {
            let text = round.to_string();
            let mut all: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
            all.push(("round.txt", text.as_bytes()));
            host.commit("eredar", "main", parent, &all, "round").await.unwrap();
        };
        commit(0, None).await;

        let dir = tempfile::tempdir().unwrap();
        let spec = serde_json::json!({
            "name": "eredar", "path": dir.path().join("sdp"), "remote": host.url("eredar"), "recipe": "go",
        });
        let config = GitConfig::new(vec![serde_json::from_value(spec).unwrap()], dir.path().join("worktrees"));
        let repos = GitRepos::new(config).unwrap();
        let ada = Credentials::new("ada".parse().unwrap(), "secret".into());
        let (key, branch) = (InstanceKey::quick("eredar".parse().unwrap()), "main".parse().unwrap());
        let prepare = async || {
            let began = std::time::Instant::now();
            let sink = MemorySink::default();
            repos.prepare(&key, &branch, Some(&ada), &sink, &CancellationToken::new()).await.unwrap();
            began.elapsed()
        };
        let url = host.url("eredar").replacen("http://", "http://ada:secret@", 1);
        git(dir.path(), &["clone", "--quiet", &url, "cli"]);
        let cli = dir.path().join("cli");
        let by_hand = async || {
            let cli = cli.clone();
            let work = move || {
                time(|| {
                    git(&cli, &["reset", "--quiet", "--hard"]);
                    git(&cli, &["fetch", "--quiet", "--no-tags", "origin", "main"]);
                    git(&cli, &["checkout", "--quiet", "main"]);
                    git(&cli, &["reset", "--quiet", "--hard", "FETCH_HEAD"]);
                    git(&cli, &["clean", "--quiet", "-ffd"]);
                })
            };
            tokio::task::spawn_blocking(work).await.unwrap()
        };
        prepare().await;

        for (what, with_commit) in [("nothing new on the branch", false), ("one new commit on the branch", true)] {
            let (mut ours, mut theirs): (Vec<Duration>, Vec<Duration>) = Default::default();
            for round in 0..ROUNDS {
                if with_commit {
                    commit(round + 1, Some("main")).await;
                }
                ours.push(prepare().await);
                theirs.push(by_hand().await);
            }
            println!("{}", line(what, median(ours), "git", median(theirs)));
        }
    });
}
