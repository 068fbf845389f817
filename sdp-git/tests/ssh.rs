//! The adapter over ssh, against a real sshd.
//!
//! libgit2 reads `known_hosts` from the home directory that the process began with, so each case
//! runs in a process of its own: this test's program again, with another `HOME`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use sdp_core::{InstanceKey, RepoSource, problem::chain, testing::MemorySink};
use sdp_git::{GitConfig, GitRepos};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Sshd {
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn keygen(path: &Path) {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path));
}

fn sshd(dir: &Path) -> Sshd {
    keygen(&dir.join("host_key"));
    keygen(&dir.join("user_key"));
    // What root's sshd separates its privileges into.
    fs::create_dir_all("/run/sshd").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = dir.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/user_key.pub\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    );
    fs::write(dir.join("sshd_config"), config).unwrap();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stdin(Stdio::null()).stderr(Stdio::null());
    let sshd = Sshd { child: command.spawn().expect("sshd; .ci/setup installs it"), port };
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return sshd;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("sshd does not answer");
}

/// Prepares a checkout in a process whose home is `home`, and answers what it says.
fn prepare(home: &Path, remote: &str, key: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "prepare_over_ssh", "--ignored", "--nocapture"]);
    command.env("HOME", home).env("SDP_TEST_REMOTE", remote).env("SDP_TEST_KEY", key).env_remove("SSH_AUTH_SOCK");
    run(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the other test, with a home directory of its own"]
async fn prepare_over_ssh() {
    let dir = TempDir::new().unwrap();
    let remote = std::env::var("SDP_TEST_REMOTE").unwrap();
    let spec =
        serde_json::json!({"name": "eredar", "path": dir.path().join("eredar"), "remote": remote, "recipe": "go"});
    let mut config = GitConfig::new(vec![serde_json::from_value(spec).unwrap()], dir.path().join("worktrees"));
    config.ssh_key = Some(std::env::var("SDP_TEST_KEY").unwrap().into());
    let repos = GitRepos::new(config).unwrap();
    let (key, cancel) = (InstanceKey::quick("eredar".parse().unwrap()), CancellationToken::new());
    let prepared = repos.prepare(&key, &"main".parse().unwrap(), None, &MemorySink::default(), &cancel).await;
    match prepared {
        Ok(checkout) => println!("file: {}", fs::read_to_string(checkout.path.join("a.txt")).unwrap()),
        Err(error) => println!("error: {} {}", error.code(), chain(&error)),
    }
}

#[test]
fn a_key_is_accepted_and_neither_a_wrong_key_nor_an_unknown_host() {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sshd = sshd(dir.path());
    let repo = git2::Repository::init(dir.path().join("repo")).unwrap();
    fs::write(dir.path().join("repo/a.txt"), "over ssh").unwrap();
    let mut index = repo.index().unwrap();
    index.add_path(Path::new("a.txt")).unwrap();
    let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
    let author = git2::Signature::now("SDP", "sdp@example.invalid").unwrap();
    repo.commit(Some("refs/heads/main"), &author, &author, "first", &tree, &[]).unwrap();

    let user = run(Command::new("id").arg("-un"));
    let remote = format!("ssh://{}@127.0.0.1:{}{}", user.trim(), sshd.port, dir.path().join("repo/.git").display());
    let (known, unknown) = (dir.path().join("known"), dir.path().join("unknown"));
    for home in [&known, &unknown] {
        fs::create_dir_all(home.join(".ssh")).unwrap();
        fs::write(home.join(".gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    }
    let host_key = fs::read_to_string(dir.path().join("host_key.pub")).unwrap();
    fs::write(known.join(".ssh/known_hosts"), format!("[127.0.0.1]:{} {host_key}", sshd.port)).unwrap();
    fs::write(unknown.join(".ssh/known_hosts"), "").unwrap();
    keygen(&dir.path().join("other_key"));

    let told = prepare(&known, &remote, &dir.path().join("user_key"));
    assert!(told.contains("file: over ssh"), "{told}");
    let told = prepare(&known, &remote, &dir.path().join("other_key"));
    assert!(told.contains("error: invalid-credentials"), "{told}");
    let told = prepare(&unknown, &remote, &dir.path().join("user_key"));
    assert!(told.contains("error: git-failed") && !told.contains("over ssh"), "{told}");
}
