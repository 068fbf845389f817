//! What a request's key is passed on to, and programs that have no request.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use sdp_core::RouteStore;
use sdp_gateway::reload::NoReload;
use url::Url;

use crate::asking::{THREE, client, settings};
use crate::fixture::{Gateway, key, requests};
use crate::server::Server;

/// A service that answers each request with the headers it got, one connection at a time.
fn echo() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
            while let Some(line) = lines.next().and_then(Result::ok).filter(|line| !line.is_empty()) {
                head += &format!("{line}\n");
            }
            let _ = write!(connection, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        }
    });
    url
}

#[tokio::test]
async fn the_key_is_passed_on_to_services_that_know_nothing_of_it_and_only_a_known_one() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &["display_errors=1", "error_reporting=-1"]);
    let service = echo();
    let calls = format!(
        r#"<?php
stream_context_set_default(['http' => ['header' => "X-Own: 1\r\nX-Other: 2\r\n", 'timeout' => 5]]);
include __DIR__ . '/application/config/config.php';
echo file_get_contents('{service}'), "--\n";
$mine = array_merge(['X-Mine: 3'], defined('SDP_HEADERS') ? SDP_HEADERS : []);
echo file_get_contents('{service}', false, stream_context_create(['http' => ['header' => $mine]]));
"#
    );
    fs::write(gateway.root().join("calls.php"), calls).unwrap();
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    routes.apply(&requests("a", Some(&[("shop", service.as_str())]))).await.unwrap();
    let a = key("a").to_string();
    let url = server.url.join("calls.php").unwrap();
    let ask = async |key: Option<&str>| {
        let request = client().get(url.clone());
        let request = key.into_iter().fold(request, |request, key| request.header("x-sdp-sandbox", key));
        request.send().await.unwrap().text().await.unwrap()
    };
    let told = ask(Some(&a)).await;
    let (by_default, explicit) = told.split_once("--\n").unwrap();
    let carried = [format!("X-SDP-Sandbox: {a}\n"), format!("baggage: sdp-sandbox={a}\n")];
    for line in ["X-Own: 1\n", "X-Other: 2\n"].map(str::to_owned).iter().chain(&carried) {
        assert!(by_default.contains(line), "{line} in {told}");
    }
    assert!(explicit.contains("X-Mine: 3\n") && carried.iter().all(|line| explicit.contains(line)), "{told}");
    for key in [None, Some("a-77777777"), Some("evil\tX")] {
        let told = ask(key).await;
        assert!(told.contains("X-Own: 1\n") && told.contains("X-Mine: 3\n"), "{told}");
        assert!(!told.to_lowercase().contains("sdp-sandbox"), "{told}");
    }
}

#[tokio::test]
async fn a_program_without_a_request_works_and_may_name_a_key_in_its_environment() {
    let gateway = Gateway::per_request(THREE);
    gateway.routes().apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    // Output has begun, so that no header can be sent any more.
    let code = format!("echo \"begun\\n\"; include '{}'; echo $config['shop_url'];", gateway.config().display());
    for (environment, shop) in [
        (None, "http://shop"),
        (Some(key("a").to_string()), "http://127.0.0.1:1/a"),
        (Some("a-77777777".to_owned()), "http://shop"),
    ] {
        let mut php = Command::new("php");
        php.args(["-n", "-d", "display_errors=1", "-d", "error_reporting=-1", "-r", &code]);
        php.envs(environment.map(|key| ("HTTP_X_SDP_SANDBOX", key)));
        let output = php.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("begun\n{shop}"));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}
