use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use async_trait::async_trait;
use sdp_core::{RouteChanges, RouteError, RouteStore};
use sdp_gateway::GatewayConfig;
use sdp_gateway::reload::{NoReload, Reload, ReloadError, Reloaded};

use crate::fixture::{CONFIG, Gateway, changes};

const TWO: &str = "<?php\n$config['shop_url'] = 'http://shop';\n$config['mail_url'] = 'http://mail';\n";

/// Applies an override of `shop` that must fail, and checks that nothing changed and nothing is left.
async fn refused(gateway: &Gateway, settings: GatewayConfig) -> RouteError {
    let (text, files) = (gateway.text(), gateway.files());
    let change = changes("pay", &[("shop", Some("http://127.0.0.1:1"))]);
    let error = gateway.routes_with(settings, NoReload).apply(&change).await.expect_err("a refusal");
    assert_eq!(gateway.text(), text, "the file is as it was");
    let left: Vec<_> = gateway.files().into_iter().filter(|f| !files.contains(f) && f != ".sdp/lock").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    error
}

#[tokio::test]
async fn a_syntax_error_is_told_with_its_line() {
    let gateway = Gateway::new("<?php\n\n$config['shop_url'] = ;\n");
    let error = refused(&gateway, gateway.settings()).await;
    assert!(matches!(&error, RouteError::Invalid { line: 3, path, .. } if path.ends_with(CONFIG)), "{error}");
    assert!(gateway.routes().table().await.is_err());
}

#[tokio::test]
async fn an_absent_key_is_told_with_those_there_are() {
    let gateway = Gateway::new("<?php $config['b_url'] = 'b'; $config['a_url'] = 'a';");
    match refused(&gateway, gateway.settings()).await {
        RouteError::UnknownService { service, known } => {
            assert_eq!((service.to_string().as_str(), known.as_str()), ("shop", "a, b"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_duplicate_key_is_told_with_its_lines_and_leaves_the_other_services_usable() {
    let gateway = Gateway::new(format!("{TWO}\n$config['shop_url'] = 'again';\n"));
    match refused(&gateway, gateway.settings()).await {
        RouteError::Duplicate { lines, .. } => assert_eq!(lines, [2, 5]),
        other => panic!("{other}"),
    }
    let routes = gateway.routes();
    let table = routes.apply(&changes("pay", &[("mail", Some("http://127.0.0.1:1"))])).await.unwrap();
    assert!(table.warnings.iter().any(|w| w.contains("shop_url") && w.contains("2, 5")), "{:?}", table.warnings);
}

#[tokio::test]
async fn an_entry_that_cannot_be_replaced_is_told_with_line_and_cure() {
    let gateway = Gateway::new("<?php\n$config['shop_url'] .= '/x';");
    let error = refused(&gateway, gateway.settings()).await;
    assert!(matches!(error, RouteError::Invalid { line: 2, .. }), "{error}");
    assert!(error.to_string().contains("assign it with `=`"), "{error}");
}

#[tokio::test]
async fn read_only_files_and_directories_are_refused_with_a_cure() {
    let gateway = Gateway::new(TWO);
    let dir = gateway.config().parent().unwrap().to_owned();
    for path in [gateway.config(), dir] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o555)).unwrap();
        let error = refused(&gateway, gateway.settings()).await;
        assert!(matches!(&error, RouteError::Io { path, .. } if *path == gateway.config()), "{error}");
        assert!(error.to_string().contains("write access"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    gateway.routes().apply(&changes("pay", &[("shop", Some("http://127.0.0.1:1"))])).await.unwrap();
}

#[tokio::test]
async fn no_checkout_and_no_such_file_are_told_as_no_gateway() {
    let gateway = Gateway::new(TWO);
    let settings = GatewayConfig { config: "application/config/other.php".into(), ..gateway.settings() };
    let error = refused(&gateway, settings).await;
    assert!(matches!(error, RouteError::NoGateway { .. }), "{error}");
    let settings = GatewayConfig { config: "no/such/dir.php".into(), ..gateway.settings() };
    assert!(matches!(refused(&gateway, settings).await, RouteError::NoGateway { .. }));
}

#[tokio::test]
async fn a_branch_cannot_lead_out_of_its_checkout_by_links() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("config.php"), TWO).unwrap();

    // The directory of the file.
    let gateway = Gateway::new(TWO);
    let dir = gateway.config().parent().unwrap().to_owned();
    fs::remove_dir_all(&dir).unwrap();
    symlink(outside.path(), &dir).unwrap();
    let change = changes("pay", &[("shop", Some("http://127.0.0.1:1"))]);
    assert!(matches!(gateway.routes().apply(&change).await, Err(RouteError::Io { .. })));

    // The file itself.
    let gateway = Gateway::new(TWO);
    fs::remove_file(gateway.config()).unwrap();
    symlink(outside.path().join("config.php"), gateway.config()).unwrap();
    assert!(matches!(gateway.routes().apply(&change).await, Err(RouteError::Io { .. })));

    // SDP's own directory.
    let gateway = Gateway::new(TWO);
    symlink(outside.path(), gateway.root().join(".sdp")).unwrap();
    assert!(matches!(gateway.routes().apply(&change).await, Err(RouteError::Io { .. })));

    assert_eq!(fs::read_to_string(outside.path().join("config.php")).unwrap(), TWO);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_record_that_is_no_json_is_told_and_kept() {
    let gateway = Gateway::new(TWO);
    fs::create_dir(gateway.root().join(".sdp")).unwrap();
    fs::write(gateway.own("overrides.json"), "{\"overrides\": ").unwrap();
    let error = refused(&gateway, gateway.settings()).await;
    assert!(error.to_string().contains("overrides.json"), "{error}");
    assert_eq!(fs::read_to_string(gateway.own("overrides.json")).unwrap(), "{\"overrides\": ");
}

#[tokio::test]
async fn a_lint_that_refuses_stops_the_change_and_a_missing_one_is_told() {
    let gateway = Gateway::new("<?php function f() {} function f() {}\n$config['shop_url'] = 'http://shop';\n");
    let php = GatewayConfig { lint: Some(vec!["php".into(), "-n".into(), "-l".into()]), ..gateway.settings() };
    let error = refused(&gateway, php.clone()).await;
    assert!(matches!(error, RouteError::Invalid { line: 1, .. }), "{error}");
    assert!(error.to_string().contains("Cannot redeclare"), "{error}");
    // Giving back the branch's own bytes needs nobody's leave.
    gateway.routes_with(php.clone(), NoReload).apply(&RouteChanges::default()).await.unwrap();

    let gateway = Gateway::new(TWO);
    let missing = GatewayConfig { lint: Some(vec!["/no/such/php".into()]), ..gateway.settings() };
    let error = refused(&gateway, missing).await;
    assert!(error.to_string().contains("gateway.lint"), "{error}");
    let change = changes("pay", &[("shop", Some("http://127.0.0.1:1"))]);
    gateway.routes_with(php, NoReload).apply(&change).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_is_never_released_is_told_with_a_cure() {
    let gateway = Gateway::new(TWO);
    fs::create_dir(gateway.root().join(".sdp")).unwrap();
    let held = fs::File::create(gateway.own("lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let settings = GatewayConfig { lock_timeout: Duration::from_millis(30), ..gateway.settings() };
    let error = refused(&gateway, settings).await;
    assert!(matches!(&error, RouteError::Io { path, .. } if path.ends_with(".sdp/lock")), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("fuser"), "{cause}");
    // Reading needs no lock.
    gateway.routes().table().await.unwrap();
}

/// Fails to reload.
#[derive(Debug)]
struct Broken;

#[async_trait]
impl Reload for Broken {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let source = std::io::Error::other("broken on purpose");
        Err(ReloadError::PidFile { path: "/run/gateway.pid".into(), source })
    }
}

#[tokio::test]
async fn a_reload_that_fails_puts_file_and_overrides_back() {
    let gateway = Gateway::new(TWO);
    gateway.routes().apply(&changes("pay", &[("mail", Some("http://127.0.0.1:1"))])).await.unwrap();
    gateway.edit_by_hand("mail", "http://by.hand");
    let (text, files) = (gateway.text(), gateway.files());
    let broken = gateway.routes_with(gateway.settings(), Broken);
    let error = broken.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap_err();
    assert!(matches!(error, RouteError::Reload { source: Some(_), .. }), "{error}");
    assert_eq!((gateway.text(), gateway.files()), (text, files));
    let table = gateway.routes().table().await.unwrap();
    assert_eq!(table.get(&"shop".parse().unwrap()).unwrap().owner, None);
    assert!(table.get(&"mail".parse().unwrap()).unwrap().owner.is_some());
}

/// Has nothing to reload.
#[derive(Debug)]
struct Stopped;

#[async_trait]
impl Reload for Stopped {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        Ok(Reloaded::NotRunning)
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_run_gets_its_file_all_the_same_with_a_warning() {
    let gateway = Gateway::new(TWO);
    let routes = gateway.routes_with(gateway.settings(), Stopped);
    let table = routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap();
    assert!(table.warnings[0].contains("does not run"), "{:?}", table.warnings);
    assert!(gateway.text().contains("http://127.0.0.1:2"));
}

#[tokio::test]
async fn nobody_in_particular_cannot_clear_a_sandboxes_route() {
    let gateway = Gateway::new(TWO);
    let routes = gateway.routes();
    routes.apply(&changes("pay", &[("shop", Some("http://127.0.0.1:2"))])).await.unwrap();
    let mut clear = RouteChanges { by: None, ..changes("pay", &[("shop", None)]) };
    assert!(matches!(routes.apply(&clear).await, Err(RouteError::Claimed { .. })));
    clear.takeover = true;
    routes.apply(&clear).await.unwrap();
    assert_eq!(gateway.text(), TWO);
}
