//! The daemon as operators run it: its command line, its signals, its TLS.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

mod doctor;

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use sdp_core::{
    protocol::{AgentFrame, Frame, ServerFrame, Welcome, WireMessage},
    testing::privacy::{memory_is_private, unprivileged},
};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    process::{Child, Command},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

const TOKEN: &str = "the-enrolment-token";

fn write_config(dir: &Path, server: &str, more: &str) -> PathBuf {
    std::fs::write(dir.join("token"), format!("{TOKEN}\n")).unwrap();
    let path = dir.join("sdp-agent.toml");
    let text = format!(
        "name = 'micro-92'\nserver = '{server}'\ntoken_file = '{dir}/token'\ndata_dir = '{dir}/data'\n\
        advertise = '127.0.0.1'\n{more}[deployer]\nkind = 'process'\n",
        dir = dir.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn daemon(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp-agent"));
    command.arg("--config").arg(config).args(arguments).env_remove("SSL_CERT_DIR").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn run(config: &Path, arguments: &[&str]) -> Output {
    patiently("the daemon's end", daemon(config, arguments).output()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes the hello, welcomes the agent, has it told to stop, and waits until it has.
async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin, child: Child) -> Output {
    let mut socket = accept_async(stream).await.unwrap();
    let hello = loop {
        if let Message::Text(hello) = socket.next().await.unwrap().unwrap() {
            break WireMessage::Text(hello.as_str().into());
        }
    };
    let AgentFrame::Hello(hello) = AgentFrame::decode(&hello).unwrap() else { panic!("not a hello") };
    assert_eq!((hello.agent.as_str(), hello.token.0.expose_secret()), ("micro-92", TOKEN));
    let welcome = ServerFrame::Welcome(Welcome { protocol: 1, server: "0".into(), acked: Default::default() });
    let WireMessage::Text(welcome) = welcome.encode() else { panic!("not text") };
    socket.send(Message::text(welcome)).await.unwrap();

    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Close(_)) {
            break;
        }
    }
    socket.close(None).await.ok();
    drop(socket);
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn it_runs_until_it_is_told_to_stop_and_keeps_its_token_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = write_config(dir.path(), &format!("ws://{}/ws/agent", listener.local_addr().unwrap()), "");
    let child = daemon(&config, &["--log", "trace"]).spawn().unwrap();
    let output = patiently("the daemon", async {
        let (stream, _) = listener.accept().await.unwrap();
        serve_one(stream, child).await
    });
    let output = output.await;
    let log = text(&output.stderr);
    assert!(output.status.success() && log.contains("connected") && log.contains("stopping"), "{log}");
    assert!(!log.contains(TOKEN), "the token is in the log");
}

#[tokio::test]
async fn no_core_of_it_is_dumped_and_nobody_looks_into_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = write_config(dir.path(), &format!("ws://{}/ws/agent", listener.local_addr().unwrap()), "");
    let mut command = Command::from(unprivileged(env!("CARGO_BIN_EXE_sdp-agent").as_ref(), dir.path()).unwrap());
    let child = command.arg("--config").arg(&config).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let output = patiently("the daemon", async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(memory_is_private(child.id().unwrap()).unwrap());
        serve_one(stream, child).await
    });
    let output = output.await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test]
async fn it_connects_by_tls_to_a_server_that_the_machines_certificates_vouch_for() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/tls");
    let chain = vec![CertificateDer::from_pem_file(certificates.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.join("server-key.pem")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(tls.with_single_cert(chain, key).unwrap()));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = write_config(dir.path(), &format!("wss://{}/ws/agent", listener.local_addr().unwrap()), "");
    let child = daemon(&config, &[]).env("SSL_CERT_FILE", certificates.join("ca.pem")).spawn().unwrap();
    let output = patiently("the daemon", async {
        let (stream, _) = listener.accept().await.unwrap();
        serve_one(acceptor.accept(stream).await.unwrap(), child).await
    });
    let output = output.await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[tokio::test]
async fn it_does_not_talk_to_a_server_that_nobody_vouches_for() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/tls");
    let chain = vec![CertificateDer::from_pem_file(certificates.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificates.join("server-key.pem")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let tls = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(tls.with_single_cert(chain, key).unwrap()));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = write_config(dir.path(), &format!("wss://{}/ws/agent", listener.local_addr().unwrap()), "");
    // A certificate that is no authority's for this server.
    let command = daemon(&config, &[]).env("SSL_CERT_FILE", certificates.join("server.pem")).spawn();
    let _child = command.unwrap();
    let (stream, _) = patiently("a connection", listener.accept()).await.unwrap();
    assert!(patiently("the handshake", acceptor.accept(stream)).await.is_err());
}

#[tokio::test]
async fn check_config_says_what_is_right_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), "ws://127.0.0.1:1/ws/agent", "");
    let output = run(&config, &["check-config"]).await;
    assert!(output.status.success() && text(&output.stdout).contains("is valid"), "{}", text(&output.stderr));

    let output = run(&config, &["check-config", "--set", "deployer.kind=podman"]).await;
    assert!(
        !output.status.success() && text(&output.stderr).contains("--set deployer.kind"),
        "{}",
        text(&output.stderr)
    );

    std::fs::remove_file(dir.path().join("token")).unwrap();
    let output = run(&config, &["check-config"]).await;
    assert!(!output.status.success() && text(&output.stderr).contains("`token_file`"), "{}", text(&output.stderr));

    let output = run(&dir.path().join("absent.toml"), &[]).await;
    assert!(!output.status.success() && text(&output.stderr).contains("absent.toml"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn help_shows_a_first_configuration_that_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(Path::new("-"), &["--help"]).await;
    let help = text(&output.stdout);
    let (first, rest) = (help.find("# sdp-agent:").unwrap(), help.find("Every key can be set").unwrap());
    let path = dir.path().join("sdp-agent.toml");
    std::fs::write(&path, &help[first..rest]).unwrap();
    std::fs::write(dir.path().join("token"), TOKEN).unwrap();
    let token = format!("token_file={}", dir.path().join("token").display());
    let output = run(&path, &["check-config", "--set", &token]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// What a daemon tells its supervisor, until it is what is waited for.
async fn told(socket: &tokio::net::UnixDatagram, wanted: &str) {
    patiently(wanted, async {
        loop {
            let mut message = [0; 1024];
            let length = socket.recv(&mut message).await.unwrap();
            if text(&message[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn it_tells_its_supervisor_how_it_is_and_ends_when_it_has_finished() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = write_config(dir.path(), &format!("ws://{}/ws/agent", listener.local_addr().unwrap()), "");
    let supervisor = tokio::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let mut command = daemon(&config, &[]);
    let child = command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "300000").spawn().unwrap();
    // It is ready without a server, and says that it has none.
    told(&supervisor, "READY=1").await;
    let (stream, _) = patiently("a connection", listener.accept()).await.unwrap();
    drop(stream);
    drop(listener);
    told(&supervisor, "WATCHDOG=1").await;
    told(&supervisor, "WATCHDOG=1").await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-QUIT", &pid]).status().await.unwrap().success());
    told(&supervisor, "STOPPING=1").await;
    let output = patiently("the daemon's end", child.wait_with_output()).await.unwrap();
    let log = text(&output.stderr);
    assert!(output.status.success() && log.contains("finishing the deployments"), "{log}");
}

#[tokio::test]
async fn it_lists_the_images_that_it_needs_or_says_why_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let repo = "[[repo]]\nname = 'eredar'\npath = '/srv/eredar'\nremote = 'https://g/x.git'\nrecipe = 'go'\n";
    let config = write_config(dir.path(), "ws://127.0.0.1:1/ws/agent", "");
    let with_repo = std::fs::read_to_string(&config).unwrap() + repo;
    std::fs::write(&config, with_repo).unwrap();
    let output = run(&config, &["images", "--json"]).await;
    assert_eq!((output.status.success(), text(&output.stdout).trim()), (true, "[]"), "processes need none");

    let socket = format!("deployer.socket={}", dir.path().join("absent.sock").display());
    let output = run(&config, &["images", "--set", "deployer.kind=docker", "--set", &socket]).await;
    assert!(!output.status.success() && text(&output.stderr).contains("engine"), "{}", text(&output.stderr));
}
