//! What the doctor says of the way to the server, on real sockets.

use sdp_docker::testing::PrivateEngine;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use crate::{run, text, write_config};

/// Answers `/healthz` with 200, a hello as a server that accepts it, and upgrades with `upgrade`: its
/// bytes, or a reset when there is none.
async fn server(upgrade: Option<&'static str>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws/agent", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let mut len = 0;
                while !head[..len].windows(4).any(|end| end == b"\r\n\r\n") {
                    // The request stays unread, so that closing resets the connection.
                    len = stream.peek(&mut head).await.unwrap();
                }
                let head = String::from_utf8_lossy(&head[..len]).into_owned();
                let answer = match head.split(' ').nth(1) {
                    Some("/healthz") => Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
                    Some("/ws/agent") => upgrade,
                    _ => Some("HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"protocol\":1,\"server\":\"0\"}"),
                };
                if let Some(answer) = answer {
                    let mut read = vec![0; len];
                    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut read).await.unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (url, serving)
}

/// What is found: the exit code, and the finding of a check.
async fn findings(url: &str, more: &str, check: &str) -> (Option<i32>, Value) {
    findings_with(url, more, &[], check).await
}

/// The same, with more flags.
async fn findings_with(url: &str, more: &str, flags: &[&str], check: &str) -> (Option<i32>, Value) {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), url, more);
    let output = run(&config, &[&["doctor", "--json"], flags].concat()).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check);
    (output.status.code(), finding.unwrap().clone())
}

#[tokio::test]
async fn the_outcomes_of_an_upgrade_are_told_apart() {
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let forbidden = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let only = "transport = 'websocket'\n";
    for (upgrade, more, exit, verdict, words) in [
        (Some(switching), "", 0, "ok", "101"),
        (Some(forbidden), only, 1, "broken", "403"),
        (None, only, 1, "broken", "Upgrade header"),
        (None, "", 0, "warning", "the agent uses plain HTTP meanwhile"),
    ] {
        let (url, serving) = server(upgrade).await;
        let (code, finding) = findings(&url, more, "websocket").await;
        assert_eq!((code, finding["verdict"].as_str()), (Some(exit), Some(verdict)), "{finding}");
        assert!(finding["evidence"].as_str().unwrap().contains(words), "{finding}");
        assert_eq!(finding["cure"].is_string(), verdict != "ok", "{finding}");
        assert_eq!(findings(&url, more, "http").await.1["verdict"], "ok");
        serving.abort();
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart_from_one_that_is_no_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws/agent", listener.local_addr().unwrap());
    let told = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.ok();
            // Closed with something unread, it would be reset.
            let _request = stream.read(&mut [0; 1024]).await;
        }
    });
    let (code, finding) = findings(&url, "", "http").await;
    assert_eq!((code, finding["verdict"].as_str()), (Some(1), Some("broken")));
    assert!(finding["evidence"].as_str().unwrap().contains("not HTTP"), "{finding}");
    told.abort();
    assert!(told.await.is_err());
    let (_, finding) = findings(&url, "", "http").await;
    assert!(finding["evidence"].as_str().unwrap().contains("refuses"), "{finding}");
}

#[tokio::test]
async fn findings_are_printed_for_people_with_their_cures() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "ws://127.0.0.1:1/ws/agent", "");
    std::fs::set_permissions(dir.path().join("token"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let output = run(&config, &["doctor"]).await;
    let said = text(&output.stdout);
    assert!(said.contains("warning  token") && said.contains("-> keep it from others: chmod 600"), "{said}");
    assert!(said.contains("broken   http") && said.contains("-> start sdp-server there"), "{said}");
    assert_eq!(output.status.code(), Some(1));
    assert!(dir.path().join("data").read_dir().unwrap().next().is_none(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_swarm_is_told_apart_from_one_that_manages_one() {
    let engine = PrivateEngine::start().expect("a private engine; .ci/setup installs what it needs");
    let socket = format!("deployer.socket={}", engine.socket().display());
    let flags = ["--set", "deployer.kind=swarm", "--set", "deployer.publish=0.0.0.0", "--set", &socket];
    let found = async || findings_with("ws://127.0.0.1:1/ws/agent", "", &flags, "swarm").await.1;
    let none = found().await;
    assert_eq!(none["verdict"], "broken", "{none}");
    assert!(none["cure"].as_str().unwrap().contains("docker swarm init"), "{none}");

    let mut docker = tokio::process::Command::new("docker");
    docker.env("DOCKER_HOST", format!("unix://{}", engine.socket().display()));
    let made = docker.args(["swarm", "init", "--advertise-addr", "127.0.0.1"]).output().await.unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let swarm = found().await;
    assert_eq!(swarm["verdict"], "ok", "{swarm}");
}
