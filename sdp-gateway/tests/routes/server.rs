//! With real PHP servers: what the gateway effectively uses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sdp_core::testing::{MemoryDeployer, MemorySink};
use sdp_core::{Artifact, Checkout, DeployJob, Deployer, DeploymentId, HostPort, RouteChanges, RouteError, RouteStore};
use sdp_gateway::GatewayConfig;
use sdp_gateway::reload::{DeployerReload, NoReload, PidFileReload, Reload, Reloaded};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::fixture::{CONFIG, Gateway, changes};

const TWO: &str = "<?php defined('BASEPATH') OR exit('no');\n$config['shop_url'] = 'http://shop';\n\
                   $config['mail_url'] = rtrim('http://mail/', '/');\n";

/// PHP's own web server on a free port, serving a gateway's checkout.
pub(crate) struct Server {
    process: Child,
    pub(crate) url: Url,
}

impl Server {
    pub(crate) fn start(gateway: &Gateway, settings: &[&str]) -> Self {
        let mut process = Command::new("php")
            .args(["-n"])
            .args(settings.iter().flat_map(|setting| ["-d", setting]))
            .args(["-S", "127.0.0.1:0", "-t"])
            .arg(gateway.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`php` (Debian package php-cli) serves these tests");
        let mut output = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(") started") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "php -S ended");
        }
        // Its log goes on; nobody reading it would block it.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let url = line.split('(').nth(1).and_then(|rest| rest.split(')').next()).unwrap();
        Self { process, url: url.parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn settings(gateway: &Gateway, url: &Url) -> GatewayConfig {
    GatewayConfig { url: Some(url.clone()), settle_timeout: Duration::from_millis(400), ..gateway.settings() }
}

fn effective(table: &sdp_core::RouteTable, service: &str) -> Option<String> {
    table.get(&service.parse().unwrap()).unwrap().effective.clone()
}

#[tokio::test]
async fn the_gateway_itself_tells_what_it_uses() {
    for committed in [
        TWO,
        "<?php return ['services' => ['shop_url' => 'http://shop', 'mail_url' => 'http://mail']];",
        "<?php define('SHOP_URL', 'http://shop'); const MAIL_URL = 'http://mail';",
        "\u{feff}<?php $config['all'] = array('shop_url' => 'http://shop', 'mail_url' => 'http://mail'); echo 'noise';",
    ] {
        let gateway = Gateway::new(committed);
        let server = Server::start(&gateway, &[]);
        let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
        let table = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2/it's"))])).await.unwrap();
        assert!(table.warnings.is_empty(), "{:?}", table.warnings);
        assert_eq!(effective(&table, "shop").as_deref(), Some("http://127.0.0.1:2/it's"));
        assert_eq!(effective(&table, "mail").as_deref(), Some("http://mail"));
        let table = routes.apply(&changes("pay", &[("shop", None)])).await.unwrap();
        assert_eq!(effective(&table, "shop").as_deref(), Some("http://shop"));
        assert_eq!(gateway.files(), [".sdp/lock", ".sdp/overrides.json", crate::fixture::CONFIG]);
    }
}

/// What a deployer is given to run the gateway on `port`.
fn job(gateway: &Gateway, port: u16) -> DeployJob {
    let repo = serde_json::json!({
        "name": "erangel-ocean", "path": gateway.root(), "remote": "http://127.0.0.1/x.git", "recipe": "php",
    });
    let digits = "0123456789abcdef0123456789abcdef01234567";
    DeployJob {
        deployment: DeploymentId::new(),
        key: gateway.settings().key(),
        repo: serde_json::from_value(repo).unwrap(),
        checkout: Checkout {
            path: gateway.root().to_owned(),
            branch: "main".parse().unwrap(),
            commit: digits.parse().unwrap(),
            tree: digits.into(),
        },
        host_port: HostPort::new(port).unwrap(),
        env: BTreeMap::new(),
    }
}

#[tokio::test]
async fn the_deployers_instance_is_reloaded_and_asked_on_its_port() {
    let gateway = Gateway::new(TWO);
    let server = Server::start(&gateway, &[]);
    let deployer = MemoryDeployer::default();
    let reload = DeployerReload::new(Arc::new(deployer.clone()), gateway.settings().key());
    let routes = gateway.routes_with(gateway.settings(), reload);

    let table = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap();
    assert!(table.warnings[0].contains("does not run"), "{:?}", table.warnings);

    let artifact = Artifact { path: None, reused: false };
    let job = job(&gateway, server.url.port().unwrap());
    deployer.start(&job, &artifact, &MemorySink::default(), &CancellationToken::new()).await.unwrap();
    let table = routes.apply(&RouteChanges::default()).await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    assert_eq!(effective(&table, "shop").as_deref(), Some("http://127.0.0.1:2"));
    assert_eq!(deployer.reloads(), 1);
}

#[tokio::test]
async fn a_gateway_that_takes_its_value_from_elsewhere_makes_the_change_fail_and_everything_is_put_back() {
    let committed = format!("{TWO}foreach (array('shop') as $s) {{ $config[$s . '_url'] = 'http://else'; }}\n");
    let gateway = Gateway::new(&committed);
    let server = Server::start(&gateway, &[]);
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    let error = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap_err();
    assert!(matches!(&error, RouteError::Reload { reason, .. } if reason.contains("http://else")), "{error}");
    assert_eq!(gateway.text(), committed);
    assert_eq!(gateway.files(), [".sdp/lock", ".sdp/overrides.json", crate::fixture::CONFIG]);
    assert_eq!(routes.table().await.unwrap().routes.iter().filter(|route| route.owner.is_some()).count(), 0);
    // The other services can still be switched.
    routes.apply(&changes("pay", &[("mail", Some("http://127.0.0.1:3"))])).await.unwrap();
}

#[tokio::test]
async fn an_override_that_the_gateway_ignores_does_not_stand_in_the_way_of_other_services() {
    let committed = format!("{TWO}foreach (array('shop') as $s) {{ $config[$s . '_url'] = 'http://else'; }}\n");
    let gateway = Gateway::new(&committed);
    // While the gateway cannot be asked, this goes through.
    gateway.routes().apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap();
    let server = Server::start(&gateway, &[]);
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    for change in [changes("ship", &[("mail", Some("http://127.0.0.1:3"))]), RouteChanges::default()] {
        let table = routes.apply(&change).await.unwrap();
        assert!(table.warnings.iter().any(|w| w.contains("http://else for `shop`")), "{:?}", table.warnings);
        assert_eq!(effective(&table, "mail").as_deref(), Some("http://127.0.0.1:3"));
        assert_eq!(effective(&table, "shop").as_deref(), Some("http://else"));
    }
    routes.apply(&changes("pay", &[("shop", None)])).await.unwrap();
}

/// An OPcache that never looks at a file again.
const NEVER_AGAIN: [&str; 5] = [
    "zend_extension=opcache",
    "opcache.enable=1",
    "opcache.enable_cli=1",
    "opcache.validate_timestamps=0",
    "opcache.file_update_protection=0",
];

#[tokio::test]
async fn an_opcache_that_never_looks_again_is_told_to() {
    let gateway = Gateway::new(TWO);
    let server = Server::start(&gateway, &NEVER_AGAIN);
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    // The gateway compiles its configuration.
    let table = routes.apply(&RouteChanges::default()).await.unwrap();
    assert_eq!(effective(&table, "shop").as_deref(), Some("http://shop"));
    for url in [Some("http://127.0.0.1:2"), Some("http://127.0.0.1:3"), None] {
        let table = routes.apply(&changes("pay", &[("shop", url)])).await.unwrap();
        assert_eq!(effective(&table, "shop").as_deref(), Some(url.unwrap_or("http://shop")));
    }
}

#[tokio::test]
async fn what_is_put_back_is_what_such_an_opcache_uses() {
    let committed = format!("{TWO}foreach (array('shop') as $s) {{ $config[$s . '_url'] = 'http://else'; }}\n");
    let gateway = Gateway::new(&committed);
    let server = Server::start(&gateway, &NEVER_AGAIN);
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    let both = [("shop", Some("http://127.0.0.1:2")), ("mail", Some("http://127.0.0.1:3"))];
    routes.apply(&changes("pay", &both)).await.unwrap_err();
    assert_eq!(gateway.text(), committed);
    let program = format!("<?php define('BASEPATH', '.'); include '{CONFIG}'; echo $config['mail_url'];");
    fs::write(gateway.root().join("ask.php"), program).unwrap();
    let answer = reqwest::get(server.url.join("ask.php").unwrap()).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "http://mail");
}

#[tokio::test]
async fn an_opcache_that_cannot_be_told_is_noticed() {
    let gateway = Gateway::new(TWO);
    let opcache = [&NEVER_AGAIN[..], &["opcache.restrict_api=/nowhere"]].concat();
    let server = Server::start(&gateway, &opcache);
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    routes.apply(&RouteChanges::default()).await.unwrap();
    let error = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap_err();
    assert!(matches!(&error, RouteError::Reload { reason, .. } if reason.contains("OPcache")), "{error}");
    assert_eq!(gateway.text(), TWO);
}

#[tokio::test]
async fn a_gateway_that_cannot_be_asked_is_a_warning_with_the_reason() {
    let gateway = Gateway::new(TWO);
    let elsewhere = Gateway::new(TWO);
    let server = Server::start(&elsewhere, &[]);
    // It serves another directory.
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    let table = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap();
    assert!(table.warnings[0].contains("404"), "{:?}", table.warnings);
    assert_eq!(effective(&table, "shop"), None);
    // It is not there at all.
    let gone = server.url.clone();
    drop(server);
    let routes = gateway.routes_with(settings(&gateway, &gone), NoReload);
    let table = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:3"))])).await.unwrap();
    assert!(table.warnings[0].contains("cannot be reached"), "{:?}", table.warnings);
    // Its configuration ends the program.
    let committed = "<?php defined('OTHER') OR exit('no');\n$config['shop_url'] = 'http://shop';\n";
    gateway.switch_to("other", committed);
    let server = Server::start(&gateway, &[]);
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    let table = routes.apply(&RouteChanges::default()).await.unwrap();
    assert!(table.warnings[0].contains("ended the program"), "{:?}", table.warnings);
    assert!(gateway.text().contains("http://127.0.0.1:3"));
}

/// A program that says what signals it gets.
fn listener() -> (Child, BufReader<std::process::ChildStdout>) {
    let mut process = Command::new("sh")
        .args(["-c", "trap 'echo reloaded' USR1; echo ready; while :; do sleep 0.01; done"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (process, output)
}

#[tokio::test]
async fn a_pid_file_reloads_its_program_and_no_other() {
    let (mut process, mut output) = listener();
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("gateway.pid");
    let name = fs::read_to_string(format!("/proc/{}/comm", process.id())).unwrap();
    fs::write(&pid_file, format!("{}\n", process.id())).unwrap();

    assert_eq!(PidFileReload::new(&pid_file, "apache2").reload().await.unwrap(), Reloaded::NotRunning);
    assert_eq!(PidFileReload::new(&pid_file, name.trim()).reload().await.unwrap(), Reloaded::Told);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "reloaded\n");

    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(PidFileReload::new(&pid_file, name.trim()).reload().await.unwrap(), Reloaded::NotRunning);
    fs::remove_file(&pid_file).unwrap();
    assert_eq!(PidFileReload::new(&pid_file, "apache2").reload().await.unwrap(), Reloaded::NotRunning);
    for wrong in ["", "one", "0", "-1", "1"] {
        fs::write(&pid_file, wrong).unwrap();
        assert!(PidFileReload::new(&pid_file, "apache2").reload().await.is_err(), "{wrong:?}");
    }
}
