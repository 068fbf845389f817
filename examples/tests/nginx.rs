//! A real nginx with `examples/nginx/sdp.conf` in front of the control plane: people and agents come through it, over
//! TLS, to a path of a name that other things share.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::{StatusCode, header};
use sdp_core::{
    Deployment, DeploymentState, EventKind, LogStream,
    api::{CreateDeployment, Page, audit::AuditEntry},
};
use sdp_examples::{api::Api, content::USER, ports::PortBlock, wait::eventually};
use sdp_git::testing::GitHost;
use sdp_server::{Server, ServerConfig};
use secrecy::ExposeSecret;
use tempfile::TempDir;

const PASSWORD: &str = "a-password-of-the-tests";
/// Runs an agent as `PROGRAM agent CONFIG`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_torture");

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

struct Nginx {
    _running: Running,
    /// With TLS, as the file says.
    tls: u16,
    /// The same without TLS, for clients that have none.
    plain: u16,
    authority: PathBuf,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn nginx(dir: &Path, server: &str) -> Nginx {
    let (tls, plain) = (free_port(), free_port());
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let (authority, key) = (dir.join("tls.pem"), dir.join("tls.key"));
    fs::write(&authority, certified.cert.pem()).unwrap();
    fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let mut site = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("nginx/sdp.conf")).unwrap();
    for (theirs, ours) in [
        ("listen 443 ssl;", format!("listen 127.0.0.1:{tls} ssl; listen 127.0.0.1:{plain};")),
        ("tools.example;", "localhost;".into()),
        ("/etc/nginx/tls/tools.pem", authority.display().to_string()),
        ("/etc/nginx/tls/tools.key", key.display().to_string()),
        ("127.0.0.1:3452", server.to_owned()),
    ] {
        assert!(site.contains(theirs), "sdp.conf says no more {theirs}");
        site = site.replace(theirs, &ours);
    }
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("    {of}_temp_path {};\n", dir.join(of).display()));
    let text = format!(
        "daemon off;\nmaster_process off;\npid {pid};\nerror_log stderr warn;\nevents {{}}\nhttp {{\n    access_log off;\n{}{site}}}\n",
        folders.concat(),
        pid = dir.join("nginx.pid").display(),
    );
    let config = dir.join("nginx.conf");
    fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(&config).stdin(Stdio::null());
    let running = command.spawn().expect("nginx is not installed; .ci/setup does that (Debian package nginx-light)");
    Nginx { _running: Running(running), tls, plain, authority }
}

/// An agent as a process that knows nginx's certificate, with a repo whose build tells two lines.
fn agent(dir: &TempDir, server: &str, token: &str, git: &GitHost, ports: &PortBlock, authority: &Path) -> Running {
    let token_file = dir.path().join("token");
    fs::write(&token_file, token).unwrap();
    let text = format!(
        "name = 'micro'\nserver = '{server}'\ntoken_file = {token_file:?}\ndata_dir = {:?}\nadvertise = '127.0.0.1'\n\
         [deployer]\nkind = 'process'\nport_range = '{}-{}'\n\
         [[repo]]\nname = 'echo'\npath = {:?}\nremote = '{}'\nrecipe = 'command'\nbuild = ['sh', 'build.sh']\n\
         run = ['sleep', '600']\nhealth = {{ command = ['true'] }}\n",
        dir.path().join("agent"),
        ports.services().start(),
        ports.services().end(),
        dir.path().join("echo"),
        git.url("echo"),
    );
    let config = dir.path().join("sdp-agent.toml");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["agent".as_ref(), config.as_os_str()]).env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
    Running(command.stdin(Stdio::null()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_agents_come_through_nginx_to_a_path_of_a_shared_name() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), PortBlock::take().unwrap());
    let git = GitHost::start(&[(USER, PASSWORD)]).await.unwrap();
    git.create_repo("echo").await.unwrap();
    git.commit("echo", "main", None, &[("build.sh", b"echo first; echo second\n")], "echo").await.unwrap();

    let mut config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ServerConfig::default() };
    config.data_dir = dir.path().join("server");
    config.public_url = Some("https://localhost/sdp/".parse().unwrap());
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.auth.admins = [USER.parse().unwrap()].into();
    config.session.cookie_secure = true;
    let server = Server::bind(config).await.unwrap();
    let nginx = nginx(dir.path(), &server.local_addr().to_string());
    let base = format!("http://localhost:{}/sdp", nginx.plain);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    eventually("nginx", async || client.get(format!("{base}/healthz")).send().await.ok()?.error_for_status().ok())
        .await
        .unwrap();

    // The agent's link, over TLS.
    let token = server.enrol(&"micro".parse().unwrap()).await.unwrap();
    let dialled = format!("wss://localhost:{}/sdp/ws/agent", nginx.tls);
    let _agent = agent(&dir, &dialled, token.expose_secret(), &git, &ports, &nginx.authority);

    // Sign-in, a deployment, and its log over a WebSocket.
    let api = eventually("a sign-in", async || Api::login(&base, USER, PASSWORD).await.ok()).await.unwrap();
    let body = CreateDeployment::new("echo".parse().unwrap(), "main".parse().unwrap());
    let deployment = api.deploy(None, &body).await.unwrap();
    let mut lines = Vec::new();
    let ended = api.follow(deployment.id, |event| {
        if let EventKind::Log { stream: LogStream::Stdout, line, .. } = event {
            lines.push(line.clone());
        }
    });
    assert_eq!(ended.await.unwrap().state, DeploymentState::Running);
    assert_eq!(lines, ["first", "second"]);

    // The agent came by a WebSocket, and by TLS: nothing had to stand in for it.
    let agent: serde_json::Value = api.get("/api/agents/micro").await.unwrap();
    assert_eq!(agent["transport"], "websocket", "{agent}");

    // The address of who signs in is the client's, and one that a client makes up is not believed.
    let refused = client.post(format!("{base}/api/login")).header("x-forwarded-for", "203.0.113.7");
    let refused = refused.json(&serde_json::json!({ "username": USER, "password": "wrong" })).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let audit: Page<AuditEntry> = api.get("/api/audit?limit=100").await.unwrap();
    let addresses: Vec<_> = audit.items.iter().filter_map(|entry| entry.address.as_ref()).collect();
    assert!(
        !addresses.is_empty() && addresses.iter().all(|address| address.to_string() == "127.0.0.1"),
        "{addresses:?}"
    );

    // A browser's WebSocket, with its cookie: from a page of the origin that the browser sees, and from no other.
    let body = serde_json::json!({ "username": USER, "password": PASSWORD });
    let signed_in = client.post(format!("{base}/api/login")).json(&body).send().await.unwrap();
    let cookie = signed_in.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("Secure"), "{cookie}");
    let upgrade = |origin: &str| {
        let request = client.get(format!("{base}/ws/events")).header(header::ORIGIN, origin);
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", "c2RwIHNkcCBzZHAgc2RwIQ==");
        request.header(header::COOKIE, cookie.split(';').next().unwrap_or_default()).send()
    };
    let own = upgrade(&format!("http://localhost:{}", nginx.plain)).await.unwrap();
    assert_eq!(own.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(upgrade("http://localhost:1").await.unwrap().status(), StatusCode::FORBIDDEN);

    // The dashboard's page below the path, with what it loads.
    let page = client.get(format!("{base}/sandboxes")).header(header::ACCEPT, "text/html").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let page = page.text().await.unwrap();
    match page.split_once("<base href=\"") {
        Some((_, rest)) => {
            assert!(rest.starts_with("/sdp/\""), "{page}");
            let script = page.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            let script = client.get(format!("{base}/{}", script.trim_start_matches("./"))).send().await.unwrap();
            assert_eq!(script.status(), StatusCode::OK);
            assert!(script.headers()[header::CONTENT_TYPE].to_str().unwrap().contains("javascript"));
        }
        // Built without the dashboard.
        None => assert!(page.contains("make dashboard"), "{page}"),
    }

    let running: Page<Deployment> = api.get("/api/deployments?state=running").await.unwrap();
    for deployment in running.items {
        api.post::<_, Deployment>(&format!("/api/deployments/{}/stop", deployment.id), &()).await.unwrap();
    }
    server.shutdown().await;
}
