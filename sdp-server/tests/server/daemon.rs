//! The daemon as it is run.

use std::{
    io::{BufRead, BufReader, Lines},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use sdp_core::testing::privacy::{memory_is_private, unprivileged};
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

/// Starts the daemon. Gives where it serves, and what it logs from then on.
async fn serving(command: &mut Command) -> (Child, SocketAddr, Lines<BufReader<ChildStderr>>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let (address, log) = patiently(tokio::task::spawn_blocking(move || {
        let line = log.by_ref().map(Result::unwrap).find(|line| line.contains("serving")).unwrap();
        let address = line.split("address=").nth(1).unwrap();
        let address = address.trim_matches(|c: char| c != ':' && !c.is_ascii_digit()).to_owned();
        (address, log)
    }))
    .await
    .unwrap();
    (child, address.parse().unwrap(), log)
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
        ("[[webhook]]\nname = 'a'\nurl = 'http://a'\nsecret_file = '/nowhere/x'\n", &[], "/nowhere/x"),
        ("[[bitbucket]]\nname = 'a'\nkind = 'cloud'\n", &[], "secret_file"),
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
    let (mut child, address, log) = serving(sdp_server(dir.path()).args(["--log", "trace"])).await;
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

#[tokio::test]
async fn no_core_of_the_daemon_is_dumped_and_nobody_looks_into_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = unprivileged("/bin/sleep".as_ref(), dir.path()).unwrap().arg("600").spawn().unwrap();
    assert!(!memory_is_private(other.id()).unwrap(), "usually they may");
    other.kill().unwrap();
    other.wait().unwrap();
    let mut command = unprivileged(env!("CARGO_BIN_EXE_sdp-server").as_ref(), dir.path()).unwrap();
    command.args(["--set", "listen=127.0.0.1:0", "--set"]).arg(format!("data_dir={}/data", dir.path().display()));
    let (mut child, _, log) = serving(command.env_clear()).await;
    let private = memory_is_private(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(log);
    assert!(private.unwrap());
}

/// A certificate of an authority that is nobody's but these tests', and what accepts connections with it.
fn acceptor() -> TlsAcceptor {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/tls");
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("server-key.pem")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(tls.with_single_cert(chain, key).unwrap()))
}

/// Has the daemon tell a webhook over https that a sandbox was made, while it trusts the certificates of this file.
async fn told_over_https(trusts: &str, listener: &TcpListener) -> (Child, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sdp-server.toml");
    let url = format!("https://localhost:{}/hook", listener.local_addr().unwrap().port());
    std::fs::write(&file, format!("[[webhook]]\nname = 'chat'\nurl = '{url}'\n")).unwrap();
    let (_, token, _) = run(sdp_server(dir.path()).args(["agent", "add", "micro"]));
    let token = SecretString::from(token.trim());
    let trusts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/tls").join(trusts);
    let mut command = sdp_server(dir.path());
    command.arg("--config").arg(&file).env("SSL_CERT_FILE", trusts).env("SDP_SERVER__WEBHOOK__CHAT__SECRET", "s3cret");
    let (child, address, log) = serving(&mut command).await;
    // A pipe that nobody reads would stop it.
    tokio::task::spawn_blocking(move || log.for_each(drop));
    let mut agent = Agent::greet(address, hello("micro", &token)).await;
    let api = Api::sign_in(address, &mut agent, "ada").await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    (child, dir)
}

#[tokio::test]
async fn webhooks_are_told_over_https_where_the_machines_certificates_vouch_for_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut child, _dir) = told_over_https("ca.pem", &listener).await;
    let body = patiently(async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor().accept(stream).await.unwrap();
        let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str::<Value>(body)
            {
                assert!(head.starts_with("POST /hook HTTP/1.1") && head.contains("x-sdp-signature: sha256="), "{head}");
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                return body;
            }
        }
    });
    assert_eq!(body.await["sandbox"]["name"], "pay");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn nobody_is_told_anything_over_https_whom_nobody_vouches_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // A certificate that is no authority's for this server.
    let (mut child, _dir) = told_over_https("server.pem", &listener).await;
    let (stream, _) = patiently(listener.accept()).await.unwrap();
    assert!(patiently(acceptor().accept(stream)).await.is_err());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn it_tells_its_supervisor_when_it_serves_that_it_lives_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = tokio::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let told = async |wanted: &str| {
        patiently(async {
            loop {
                let mut message = [0; 1024];
                let length = supervisor.recv(&mut message).await.unwrap();
                let message = String::from_utf8_lossy(&message[..length]).into_owned();
                if message.lines().any(|line| line.starts_with(wanted)) {
                    return;
                }
            }
        })
        .await;
    };
    let data = dir.path().join("data");
    let mut command = sdp_server(&data);
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "300000");
    let (mut child, address, _log) = serving(&mut command).await;
    told("READY=1").await;
    told(&format!("STATUS=serving on {address}")).await;
    told("WATCHDOG=1").await;
    told("WATCHDOG=1").await;
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    told("STOPPING=1").await;
    assert!(patiently(tokio::task::spawn_blocking(move || child.wait())).await.unwrap().unwrap().success());
}
