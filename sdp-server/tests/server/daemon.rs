//! The daemon as it is run.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use secrecy::SecretString;

use crate::support::{Agent, Api, hello, patiently};

fn sdp_server(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp-server"));
    command.args(["--set", "listen=127.0.0.1:0", "--set"]).arg(format!("data_dir={}", dir.display()));
    command.env_clear();
    command
}

fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn agents_are_enrolled_listed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let agent = |args: &[&str]| run(sdp_server(dir.path()).arg("agent").args(args));
    let (ok, token, _) = agent(&["add", "micro-92"]);
    assert!(ok && token.starts_with("sdpa_") && token.lines().count() == 1, "{token}");
    let (ok, _, error) = agent(&["add", "micro-92"]);
    assert!(!ok && error.contains("micro-92"), "{error}");
    assert_eq!(agent(&["list"]).1, "micro-92\tnever seen\n");
    let (ok, _, error) = agent(&["add", "../x"]);
    assert!(!ok && error.contains("../x"), "{error}");
    let (ok, other, _) = agent(&["rotate", "micro-92"]);
    assert!(ok && other.starts_with("sdpa_") && other != token, "{other}");
    assert_eq!(agent(&["revoke", "micro-92"]).1, "micro-92 is revoked\n");
    for what in ["revoke", "rotate"] {
        let (ok, _, error) = agent(&[what, "micro-92"]);
        assert!(!ok && error.contains("agent list"), "{error}");
    }
    assert_eq!(agent(&["list"]).1, "");
}

#[test]
fn a_configuration_is_checked_and_the_fault_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sdp-server.toml");
    let check = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        run(sdp_server(dir.path()).arg("check-config").arg("--config").arg(&file).args(more))
    };
    let (ok, said, _) = check("[session]\nidle = '2h'\n", &[]);
    assert!(ok && said.contains("is valid"), "{said}");
    for (text, more, wanted) in [
        ("listen = '127.0.0.1:1'\nsession = 3\n", &[][..], "sdp-server.toml:2"),
        ("colour = 'red'\n", &[], "colour"),
        ("[agents]\nping = '1m'\n", &[], "agents.silence"),
        ("", &["--set", "session.idle=soon"], "session.idle"),
        ("", &["--log", "sdp_server=loud"], "--log"),
    ] {
        let (ok, _, error) = check(text, more);
        assert!(!ok && error.contains(wanted), "{text} {more:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let missing = run(sdp_server(dir.path()).args(["check-config", "--config", "/nowhere/x.toml"]));
    assert!(!missing.0 && missing.2.contains("/nowhere/x.toml"), "{}", missing.2);
}

#[tokio::test]
async fn the_daemon_serves_until_it_is_told_to_stop_and_logs_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (_, token, _) = run(sdp_server(dir.path()).args(["agent", "add", "micro"]));
    let token = SecretString::from(token.trim());
    let mut child = sdp_server(dir.path()).args(["--log", "trace"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = patiently(tokio::task::spawn_blocking(move || {
        let line = log.by_ref().map(Result::unwrap).find(|line| line.contains("serving")).unwrap();
        let address = line.split("address=").nth(1).unwrap();
        let address = address.trim_matches(|c: char| c != ':' && !c.is_ascii_digit()).to_owned();
        (address, log)
    }))
    .await
    .unwrap();
    let (address, log) = (address.0.parse().unwrap(), address.1);
    let mut agent = Agent::greet(address, hello("micro", &token)).await;
    let api = Api::sign_in(address, &mut agent, "ada").await;
    assert_eq!(api.get("/api/me").await.0, 200);

    let pid = i32::try_from(child.id()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM).unwrap();
    agent.gone().await;
    let (status, log) = tokio::task::spawn_blocking(move || {
        let rest: Vec<_> = log.map(Result::unwrap).collect();
        (child.wait().unwrap(), rest.join("\n"))
    })
    .await
    .unwrap();
    assert!(status.success(), "{log}");
    assert!(log.contains("signed in"), "{log}");
    for secret in [crate::support::PASSWORD, crate::support::exposed(&token), &api.token] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
