//! What the command says of itself, word for word: `UPDATE=1` writes it anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt::Write,
    path::PathBuf,
    process::{Command, Output},
};

fn sdp(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
    command.env_clear().env("COLUMNS", "100").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let name =
        |line: &str| Some(line.strip_prefix("  ")?.split(' ').next()?.to_owned()).filter(|name| !name.is_empty());
    listed.filter_map(name).filter(|name| name != "help").collect()
}

fn everything(path: &[String], told: &mut String) {
    let mut arguments: Vec<_> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = text(&sdp(&arguments));
    writeln!(told, "$ sdp {}\n{help}", arguments.join(" ")).unwrap();
    for command in commands(&help) {
        everything(&[path, &[command]].concat(), told);
    }
}

/// Compares with what is kept in a file.
fn assert_kept(name: &str, told: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, told).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let first = kept.lines().zip(told.lines()).find(|(kept, told)| kept != told);
    assert!(kept == told, "{} is otherwise now, first: {first:?}; UPDATE=1 writes it anew", path.display());
}

#[test]
fn every_help_is_as_it_was() {
    let mut told = String::new();
    everything(&[], &mut told);
    assert!(told.matches("\n$ sdp ").count() > 50);
    assert_kept("help.txt", &told);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = text(&sdp(&["completions", shell]));
        assert!(["sandbox", "takeover", "rollback"].iter().all(|word| completions.contains(word)), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    assert!(sdp(&["man", pages.to_str().unwrap()]).status.success());
    let names: Vec<_> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() > 50, "{names:?}");
    let page = std::fs::read_to_string(pages.join("sdp-route-set.1")).unwrap();
    assert!(page.contains("takeover") && page.contains(".TH"), "{page}");
}

#[test]
fn what_cannot_be_is_refused_with_its_cause_its_cure_and_its_exit_code() {
    let refused = |arguments: &[&str]| {
        let output = sdp(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = refused(&["whoami"]);
    assert_eq!(
        (code, told.as_str()),
        (2, "sdp: no server is named\n  -> name it: `sdp config set server URL`, SDP_SERVER or --server\n")
    );
    let (code, told) = refused(&["whoami", "--server", "ftp://x"]);
    assert!(code == 2 && told.contains("only http and https"), "{told}");
    let (code, told) = refused(&["route", "set", "pay", "eredar"]);
    assert!(code == 2 && told.contains("SERVICE=TARGET"), "{told}");
    let (code, told) = refused(&["deploy", "../etc", "main"]);
    assert!(code == 2 && told.contains("not a valid repo name"), "{told}");
    // Nobody listens there.
    let (code, told) = refused(&["--server", "127.0.0.1:1", "doctor"]);
    assert!(code == 1 && told.contains("something is broken"), "{told}");
    let (code, told) = refused(&["--server", "127.0.0.1:1", "--json", "history"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["error"]["code"]), (1, &"local".into()), "no home, no credentials: {told}");
}
