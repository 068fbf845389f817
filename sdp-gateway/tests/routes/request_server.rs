//! Routing per request with real Apache and PHP: what a request with and without a key really gets.

use std::fs;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use sdp_core::{Explanation, RouteQuestion, RouteStore};
use sdp_gateway::reload::NoReload;

use crate::apache::Apache;
use crate::asking::{OPCACHE_OFF, THREE, client, get, settings};
use crate::fixture::{Gateway, changes, key, requests};
use crate::server::Server;

#[tokio::test]
async fn header_cookie_and_baggage_choose_in_that_order_and_everybody_else_sees_what_is_for_all() {
    let gateway = Gateway::per_request(THREE);
    let apache = Apache::start(&gateway, &OPCACHE_OFF);
    let routes = gateway.routes_with(settings(&gateway, &apache.url), apache.reload());
    routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    routes.apply(&requests("b", Some(&[("shop", "http://127.0.0.1:1/b")]))).await.unwrap();
    let table = routes.apply(&changes("c", &[("mail", Some("http://127.0.0.1:1/c"))])).await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    let effective = |service: &str| table.get(&service.parse().unwrap()).unwrap().effective.clone();
    assert_eq!(effective("shop").as_deref(), Some("http://shop"), "asked without a key");
    assert_eq!(effective("mail").as_deref(), Some("http://127.0.0.1:1/c"));

    let client = client();
    let (a, b) = (key("a").to_string(), key("b").to_string());
    let cookie = |key: &str| format!("x=1; sdp-sandbox={key}; y=2").into_bytes();
    let baggage = |key: &str| format!("user=1;p=2 , sdp-sandbox = {key} ;p=1,z=3").into_bytes();
    let (a_cookie, b_cookie, b_baggage) = (cookie(&a), cookie(&b), baggage(&b));
    for (headers, shop, route) in [
        (vec![], "http://shop", "override=(mail), default=2".to_owned()),
        (vec![("x-sdp-sandbox", a.as_bytes())], "http://127.0.0.1:1/a", of("a", "header")),
        (vec![("cookie", a_cookie.as_slice())], "http://127.0.0.1:1/a", of("a", "cookie")),
        (vec![("baggage", b_baggage.as_slice())], "http://127.0.0.1:1/b", of("b", "baggage")),
        (vec![("cookie", &a_cookie), ("baggage", &b_baggage)], "http://127.0.0.1:1/a", of("a", "cookie")),
        (vec![("x-sdp-sandbox", a.as_bytes()), ("cookie", &b_cookie)], "http://127.0.0.1:1/a", of("a", "header")),
    ] {
        let answer = get(&client, &apache.url, &headers).await;
        assert_eq!(answer.shop(), shop, "{headers:?}");
        assert_eq!(answer.config["mail_url"], "http://127.0.0.1:1/c");
        assert_eq!(answer.config["pay_url"], "http://pay");
        assert_eq!(answer.route, Some(route), "{headers:?}");
        let passed_on = answer.headers.unwrap();
        assert_eq!(passed_on.is_empty(), headers.is_empty());
    }
    assert_eq!(apache.complaints(), [""; 0]);
}

fn of(sandbox: &str, carrier: &str) -> String {
    format!("for=\"{sandbox}\";from={carrier}, sandbox=(shop), override=(mail), default=1")
}

#[tokio::test]
async fn forged_keys_are_harmless() {
    let gateway = Gateway::per_request(THREE);
    let apache = Apache::start(&gateway, &OPCACHE_OFF);
    let routes = gateway.routes_with(settings(&gateway, &apache.url), apache.reload());
    routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    let table = fs::read(gateway.own("routes.php")).unwrap();
    let a = key("a").to_string();
    let huge = "x".repeat(7000);
    let forged: Vec<Vec<u8>> = vec![
        b"a".to_vec(),
        b"0".to_vec(),
        b"'); system('id'); //".to_vec(),
        b"../../etc/passwd".to_vec(),
        b"a\xff\xfe\x80".to_vec(),
        b"%00%0d%0aSet-Cookie:%20x=1".to_vec(),
        b"name".to_vec(),
        format!("{a}x").into_bytes(),
        format!("{a},{a}").into_bytes(),
        a.to_uppercase().into_bytes(),
        huge.into_bytes(),
    ];
    let client = client();
    for key in &forged {
        let member = |prefix: &str| [prefix.as_bytes(), key].concat();
        for (name, value) in
            [("x-sdp-sandbox", key.clone()), ("cookie", member("sdp-sandbox=")), ("baggage", member("sdp-sandbox="))]
        {
            // A comma ends a member of baggage, so that what is left may be the key.
            let left = name == "baggage" && value.windows(a.len() + 1).any(|part| part == format!("{a},").as_bytes());
            let answer = get(&client, &apache.url, &[(name, &value)]).await;
            assert_eq!(answer.shop(), if left { "http://127.0.0.1:1/a" } else { "http://shop" }, "{name}: {key:?}");
            let route = answer.route.unwrap();
            assert!(left || route.starts_with("for=?0;from="), "{route}");
            assert!(route.len() < 1000);
            assert_eq!(answer.headers.unwrap().is_empty(), !left);
        }
    }
    for cookie in ["sdp-sandbox[]=x", "sdp-sandbox[a][b]=x", "sdp-sandbox", "sdp-sandbox=", "=sdp-sandbox"] {
        let answer = get(&client, &apache.url, &[("cookie", cookie.as_bytes())]).await;
        assert_eq!((answer.shop(), answer.route.as_deref()), ("http://shop", Some("default=3")), "{cookie}");
    }
    assert_eq!(fs::read(gateway.own("routes.php")).unwrap(), table);
    assert_eq!(apache.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_table_that_is_gone_or_broken_leaves_the_branchs_defaults_and_no_complaint() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &["display_errors=1", "error_reporting=-1"]);
    fs::write(gateway.root().join("index.php"), crate::apache::PROGRAM).unwrap();
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    routes.apply(&changes("c", &[("mail", Some("http://127.0.0.1:1/c"))])).await.unwrap();
    routes.apply(&requests("a", Some(&[("shop", "http://127.0.0.1:1/a")]))).await.unwrap();
    let client = client();
    let a = key("a").to_string();
    let with_key = [("x-sdp-sandbox", a.as_bytes())];
    assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://127.0.0.1:1/a");
    let whole = fs::read(gateway.own("routes.php")).unwrap();
    for name in ["routes.php", "request.php"] {
        let path = gateway.own(name);
        let whole = fs::read(&path).unwrap();
        let half = &whole[..whole.len() / 2];
        let damages: [Option<&[u8]>; 9] = [
            None,
            Some(b""),
            Some(half),
            Some(b"<?php return 7;"),
            Some(b"<?php return ['version' => 1, 'line' => [], 'every' => 3, 'sandboxes' => null];"),
            Some(b"<?php throw new Exception('x');"),
            Some(b"<?php this is no PHP"),
            Some(b"<?php return undefined_function();"),
            Some(b"<?php"),
        ];
        for damage in damages {
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let answer = get(&client, &server.url, &with_key).await;
            assert_eq!(
                (answer.shop(), answer.config["mail_url"].as_str()),
                ("http://shop", "http://mail"),
                "{damage:?}"
            );
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://127.0.0.1:1/a");
    }
    // No PHP at all: nothing of it is printed.
    fs::write(gateway.own("routes.php"), "\0\0\0 not PHP").unwrap();
    assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://shop");
    // A directory in its place.
    fs::remove_file(gateway.own("routes.php")).unwrap();
    fs::create_dir(gateway.own("routes.php")).unwrap();
    assert_eq!(get(&client, &server.url, &with_key).await.shop(), "http://shop");
    fs::remove_dir(gateway.own("routes.php")).unwrap();
    fs::write(gateway.own("routes.php"), whole).unwrap();
}

#[tokio::test]
async fn an_explanation_says_what_the_gateway_does() {
    let gateway = Gateway::per_request(THREE);
    let server = Server::start(&gateway, &[]);
    fs::write(gateway.root().join("index.php"), crate::apache::PROGRAM).unwrap();
    let routes = gateway.routes_with(settings(&gateway, &server.url), NoReload);
    for by in ["a", "b"] {
        routes.apply(&requests(by, Some(&[("shop", &format!("http://127.0.0.1:1/{by}"))]))).await.unwrap();
    }
    let (a, b) = (key("a").to_string(), key("b").to_string());
    let encoded = a.replace('-', "%2D");
    let keys = ["", &a, &b, "junk", " ", &encoded];
    let cookies: Vec<String> =
        ["sdp-sandbox=@", "x=1; sdp-sandbox=@", "sdp-sandbox=@; sdp-sandbox=junk", "Sdp-Sandbox=@"]
            .iter()
            .flat_map(|form| keys.map(|key| form.replace('@', key)))
            .collect();
    let members =
        ["sdp-sandbox=@", "x=1;p, sdp-sandbox = @ ;p=1", "sdp-sandbox=@,sdp-sandbox=junk", "sdp-sandboxes=@", ",,="];
    let members: Vec<String> = members.iter().flat_map(|form| keys.map(|key| form.replace('@', key))).collect();
    let client = client();
    let rng = &mut TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for _ in 0..300 {
        let mut pick = |from: &[String]| from.get(rng.random_range(0..from.len() * 2)).cloned();
        let header = pick(&keys.map(str::to_owned));
        let (cookie, baggage) = (pick(&cookies), pick(&members));
        let question = RouteQuestion { service: "shop".parse().unwrap(), header, cookie, baggage };
        let parts = [("x-sdp-sandbox", &question.header), ("cookie", &question.cookie), ("baggage", &question.baggage)];
        let headers: Vec<_> =
            parts.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.as_bytes()))).collect();
        let answer = get(&client, &server.url, &headers).await;
        let table = routes.table().await.unwrap();
        let explained = Explanation::of(&table, &question);
        assert_eq!(explained.target.as_deref(), Some(answer.shop()), "{question:?}");
        let route = match (&explained.sandbox, explained.carrier) {
            (Some(sandbox), Some(carrier)) => format!("for=\"{sandbox}\";from={carrier:?}, sandbox=(shop), default=2"),
            (None, Some(carrier)) => format!("for=?0;from={carrier:?}, default=3"),
            _ => "default=3".into(),
        };
        assert_eq!(answer.route, Some(route.to_lowercase()), "{question:?}");
    }
}
