//! Routing per request, by the files alone: what is written, what is kept, what is told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::Ordering;

use sdp_core::{RouteChanges, RouteError, RouteOrigin, RouteQuestion, RouteStore, ServedBy, TargetAnswer};
use sdp_gateway::GatewayConfig;
use sdp_gateway::php::ConfigFile;
use sdp_gateway::reload::NoReload;

use crate::fixture::{CONFIG, Gateway, changes, key, requests};

const MIXED: &str = "<?php\n$config['shop_url'] = 'http://shop'; // stable\n\
                     $config['mail_url'] = getenv('NO_SUCH') ?: 'http://mail';\nconst PAY_URL = 'http://pay';\n";

#[tokio::test]
async fn a_toggle_per_request_rewrites_the_table_and_nothing_else() {
    let gateway = Gateway::per_request(MIXED);
    let routes = gateway.routes();
    routes.apply(&RouteChanges::default()).await.unwrap();
    let state = |path: &std::path::Path| (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    let (config, program, table) = (gateway.config(), gateway.own("request.php"), gateway.own("routes.php"));
    let before = [&config, &program, &table].map(|path| state(path));
    routes.apply(&requests("pay", Some(&[("shop", "http://127.0.0.1:1")]))).await.unwrap();
    routes.apply(&changes("ship", &[("mail", Some("http://127.0.0.1:2"))])).await.unwrap();
    let after = [&config, &program, &table].map(|path| state(path));
    assert_eq!((&before[0], &before[1]), (&after[0], &after[1]));
    assert!(before[2].0 != after[2].0, "the table holds both");
    // Without wrappers the configuration is the committed one; a value that cannot be chosen is replaced in it.
    let wrapped = ConfigFile::parse(gateway.text()).unwrap();
    assert_eq!(String::from_utf8(wrapped.unwrapped()).unwrap(), MIXED);
    routes.apply(&changes("ship", &[("pay", Some("http://127.0.0.1:3"))])).await.unwrap();
    let wrapped = ConfigFile::parse(gateway.text()).unwrap();
    assert_eq!(String::from_utf8(wrapped.unwrapped()).unwrap(), MIXED.replace("'http://pay'", "'http://127.0.0.1:3'"));
    assert_eq!(gateway.files(), [".sdp/lock", ".sdp/overrides.json", ".sdp/request.php", ".sdp/routes.php", CONFIG]);
}

#[tokio::test]
async fn switched_off_the_plain_file_and_nothing_of_it_is_left() {
    let gateway = Gateway::per_request(MIXED);
    gateway.routes().apply(&changes("ship", &[("mail", Some("http://127.0.0.1:2"))])).await.unwrap();
    gateway.per_request.store(false, Ordering::Relaxed);
    let table = gateway.routes().apply(&RouteChanges::default()).await.unwrap();
    assert!(table.warnings.is_empty(), "what SDP wrote is no drift: {:?}", table.warnings);
    assert_eq!(gateway.text(), MIXED.replace("getenv('NO_SUCH') ?: 'http://mail'", "'http://127.0.0.1:2'"));
    gateway.routes().apply(&changes("ship", &[("mail", None)])).await.unwrap();
    assert_eq!(gateway.text(), MIXED);
    assert_eq!(gateway.files(), [".sdp/lock", ".sdp/overrides.json", CONFIG]);
}

#[tokio::test]
async fn a_table_that_somebody_removed_or_edited_is_told_and_written_again() {
    let gateway = Gateway::per_request(MIXED);
    let routes = gateway.routes();
    routes.apply(&changes("ship", &[("mail", Some("http://127.0.0.1:2"))])).await.unwrap();
    let whole = fs::read(gateway.own("routes.php")).unwrap();
    for damage in [None, Some(&b"<?php return [];"[..]), Some(&whole[..whole.len() / 2])] {
        match damage {
            Some(bytes) => fs::write(gateway.own("routes.php"), bytes).unwrap(),
            None => fs::remove_file(gateway.own("routes.php")).unwrap(),
        }
        let table = routes.table().await.unwrap();
        assert!(!table.per_request);
        assert!(table.warnings.iter().any(|w| w.contains("not in effect")), "{:?}", table.warnings);
        assert_eq!(table.get(&"mail".parse().unwrap()).unwrap().origin, RouteOrigin::Drifted);
        let table = routes.apply(&RouteChanges::default()).await.unwrap();
        assert!(table.per_request && table.warnings.is_empty(), "{:?}", table.warnings);
        assert_eq!(fs::read(gateway.own("routes.php")).unwrap(), whole);
    }
}

#[tokio::test]
async fn a_service_in_a_constant_expression_is_told_with_line_and_cure() {
    let gateway = Gateway::per_request(MIXED);
    let routes = gateway.routes();
    let table = routes.apply(&RouteChanges::default()).await.unwrap();
    let reason = &table.not_routable[&"pay".parse().unwrap()];
    assert!(reason.contains("line 4") && reason.contains("define("), "{reason}");
    let refused = routes.apply(&requests("ship", Some(&[("pay", "http://127.0.0.1:1")]))).await;
    assert!(matches!(refused, Err(RouteError::NotRoutable { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_lint_judges_the_wrapped_file_and_the_table() {
    let gateway = Gateway::per_request(MIXED);
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let script = format!("tee -a '{}' | php -n -l", seen.display());
    let lint = Some(vec!["sh".into(), "-c".into(), script]);
    let routes = gateway.routes_with(GatewayConfig { lint, ..gateway.settings() }, NoReload);
    routes.apply(&requests("pay", Some(&[("shop", "http://127.0.0.1:1")]))).await.unwrap();
    let seen = fs::read_to_string(seen).unwrap();
    for file in [gateway.text(), fs::read_to_string(gateway.own("routes.php")).unwrap()] {
        assert!(seen.contains(&file));
    }
}

#[tokio::test]
async fn a_claim_that_ends_ends_by_the_stores_clock_and_keeps_its_start() {
    let gateway = Gateway::per_request(MIXED);
    let routes = gateway.routes();
    let mut claim = changes("pay", &[("shop", Some("http://127.0.0.1:1"))]);
    let end = jiff::Timestamp::from_second(1_767_225_660).unwrap();
    claim.services.values_mut().flatten().for_each(|over| over.expires_at = Some(end));
    routes.apply(&claim).await.unwrap();
    let record = fs::read_to_string(gateway.own("overrides.json")).unwrap();
    assert!(record.contains("\"since\": \"2026-01-01T00:00:00Z\""), "{record}");
    gateway.clock.advance(std::time::Duration::from_secs(61));
    let table = routes.apply(&RouteChanges { clear_expired: true, ..RouteChanges::default() }).await.unwrap();
    assert_eq!(table.taken.len(), 1);
    assert_eq!(table.get(&"shop".parse().unwrap()).unwrap().origin, RouteOrigin::Ocp);
}

/// Answers one request with `status`, on a port of its own.
fn answering(status: &'static str) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]);
        connection.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
    });
    (url, served)
}

#[tokio::test]
async fn an_explanation_says_whether_the_target_answers() {
    let gateway = Gateway::per_request(MIXED);
    let routes = gateway.routes();
    let (there, served) = answering("503 Busy");
    let gone = format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    routes.apply(&requests("pay", Some(&[("shop", &there), ("mail", &gone)]))).await.unwrap();
    let ask = async |service: &str, header: &str| {
        let header = Some(header.to_owned());
        let question = RouteQuestion { service: service.parse().unwrap(), header, cookie: None, baggage: None };
        routes.explain(&question).await.unwrap()
    };
    let shop = ask("shop", key("pay").as_str()).await;
    assert_eq!((shop.served_by, shop.answer), (ServedBy::Sandbox, Some(TargetAnswer::Status(503))));
    served.join().unwrap();
    let mail = ask("mail", key("pay").as_str()).await;
    assert!(matches!(&mail.answer, Some(TargetAnswer::Silent(why)) if why.contains("refused")), "{mail:?}");
    // Of an expression only PHP knows the value.
    let mail = ask("mail", key("other").as_str()).await;
    assert_eq!((mail.served_by, &mail.answer, mail.expression), (ServedBy::Default, &None, true));
    assert!(mail.because.iter().any(|why| why.contains("only the gateway can tell")), "{mail:?}");
}

#[tokio::test]
async fn a_url_full_of_php_stays_a_text() {
    let gateway = Gateway::per_request(MIXED);
    let evil = "http://127.0.0.1:1/'.exit(1).'?>\\\\'\\'$x{$y}<?php";
    gateway.routes().apply(&requests("pay", Some(&[("shop", evil)]))).await.unwrap();
    let code = format!(
        "$t = include '{}'; echo $t['sandboxes']['{}']['services']['shop'];",
        gateway.own("routes.php").display(),
        key("pay")
    );
    let output = Command::new("php").args(["-n", "-r", &code]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), evil);
}
