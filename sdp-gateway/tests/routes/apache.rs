//! A real Apache with PHP in a container, serving a gateway's checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sdp_gateway::reload::{Reload, ReloadError, Reloaded};
use url::Url;

use crate::fixture::Gateway;

const IMAGE: &str = "sdp-apache-php:dev";
const ROOT: &str = "/var/www/html";

/// The gateway's program: it answers with the values that its configuration has for this request.
pub(crate) const PROGRAM: &str = r#"<?php
error_reporting(E_ALL);
$told = [];
set_error_handler(function ($level, $text) use (&$told) { $told[] = $text; return true; });
include __DIR__ . '/application/config/config.php';
header('Content-Type: application/json');
echo json_encode(['config' => $config, 'told' => $told, 'headers' => defined('SDP_HEADERS') ? SDP_HEADERS : null]);
"#;

/// A container. It goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Apache {
    id: String,
    pub(crate) url: Url,
}

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("`docker` (see .ci/setup) serves these tests")
}

fn told(output: Output) -> String {
    assert!(output.status.success(), "docker: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

impl Apache {
    /// Serves the checkout, with these lines of `php.ini`.
    pub(crate) fn start(gateway: &Gateway, ini: &[&str]) -> Self {
        std::fs::write(gateway.root().join("index.php"), PROGRAM).expect("the gateway's program");
        readable(gateway.root());
        let ini: String = ini.iter().map(|line| format!("{line}\n")).collect();
        let ini_file = gateway.root().join("zz-test.ini");
        std::fs::write(&ini_file, ini).expect("a php.ini");
        let mount = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let id = told(docker(&[
            "run",
            "--detach",
            "--publish=127.0.0.1::80",
            "--label=sdp.test=gateway",
            "--volume",
            &mount(gateway.root(), ROOT),
            "--volume",
            &mount(&ini_file, "/etc/php/8.2/apache2/conf.d/zz-test.ini"),
            IMAGE,
        ]));
        let mut apache = Self { id, url: Url::parse("http://127.0.0.1/").expect("a URL") };
        let port = told(docker(&["port", &apache.id, "80/tcp"]));
        let port = port.lines().next().and_then(|line| line.rsplit_once(':')).map(|(_, port)| port.parse());
        apache.url.set_port(Some(port.expect("a port").expect("a number"))).expect("a URL with a port");
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", apache.url.port().expect("a port")))
            .and_then(|mut connection| {
                use std::io::{Read, Write};
                connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
                connection.read_exact(&mut [0; 12])
            })
            .is_err()
        {
            assert!(Instant::now() < deadline, "Apache does not answer: {:?}", docker(&["logs", &apache.id]));
            std::thread::sleep(Duration::from_millis(20));
        }
        apache
    }

    /// What reloads it.
    pub(crate) fn reload(&self) -> SignalContainer {
        SignalContainer(self.id.clone())
    }

    /// What PHP complained about.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let output = docker(&["logs", &self.id]);
        let log = [output.stdout, output.stderr].concat();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| line.contains("PHP ")).map(str::to_owned).collect()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.id]);
    }
}

/// Apache runs as another user.
fn readable(root: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(PathBuf::from(root), std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// Apache's graceful restart, sent to a container.
#[derive(Debug, Clone)]
pub(crate) struct SignalContainer(String);

#[async_trait]
impl Reload for SignalContainer {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let id = self.0.clone();
        let told = tokio::task::spawn_blocking(move || docker(&["kill", "--signal=USR1", &id])).await;
        assert!(told.expect("docker ran").status.success(), "the container is gone");
        Ok(Reloaded::Told)
    }
}
