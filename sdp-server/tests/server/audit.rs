//! The audit over the HTTP API.

use serde_json::{Value, json};

use crate::support::{Api, PASSWORD, Plane, done, exposed, inventory, on_disk, states};

fn told(page: &Value) -> Vec<String> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    let line = |entry: &Value| ["user", "action", "subject"].map(|field| text(entry, field)).join(" ");
    page["items"].as_array().unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn who_did_what_is_written_down_and_found_by_user_action_and_subject() {
    let plane = Plane::new().await;
    let (mut agent, ada, token) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    ada.post("/api/sandboxes", json!({ "name": "pay" })).await;
    assert_eq!(ada.patch("/api/sandboxes/pay", json!({ "shared_with": ["bob"] })).await.0, 200);
    let first = agent.runs(&ada, "/api/sandboxes/pay/deployments").await.id;
    for what in ["stop", "restart"] {
        let path = format!("/api/deployments/{first}/{what}");
        assert_eq!(agent.during(bob.post(&path, json!({})), done).await.0, 200);
    }
    let second = agent.accepts(&bob, "/api/deployments", json!({ "repo": "eredar", "branch": "main" })).await.id;
    let path = format!("/api/deployments/{second}/cancel");
    assert_eq!(agent.during(bob.post(&path, json!({})), done).await.0, 202);
    agent.events(second, 1, &states(&["source", "cancelled"])).await;
    agent.accepts(&bob, &format!("/api/deployments/{second}/retry"), json!({})).await;
    assert_eq!(ada.patch("/api/sandboxes/pay", json!({ "shared_with": [] })).await.0, 200);
    // What is refused was not done.
    assert_eq!(bob.delete("/api/sandboxes/pay").await.0, 403);
    assert_eq!(agent.during(ada.delete("/api/sandboxes/pay"), done).await.0, 204);

    let (status, all) = bob.get("/api/audit").await;
    assert_eq!(status, 200, "{all}");
    let every = [
        "ada sandbox-delete sandboxes/pay",
        "ada sandbox-share sandboxes/pay",
        "bob retry repos/eredar",
        "bob cancel repos/eredar",
        "bob deploy repos/eredar",
        "bob restart sandboxes/pay/repos/eredar",
        "bob stop sandboxes/pay/repos/eredar",
        "ada deploy sandboxes/pay/repos/eredar",
        "ada sandbox-share sandboxes/pay",
        "ada sandbox-create sandboxes/pay",
        "bob sign-in users/bob",
        "ada sign-in users/ada",
    ];
    assert_eq!(told(&all), every);
    let entry = &all["items"][7];
    assert_eq!(
        (entry["address"].as_str(), entry["deployment"].as_str()),
        (Some("127.0.0.1"), Some(&*first.to_string()))
    );
    assert_eq!(entry["detail"], "branch feature/x on agent micro");

    for (query, wanted) in [
        ("user=ada".to_owned(), vec![0, 1, 7, 8, 9, 11]),
        ("action=deploy".into(), vec![4, 7]),
        ("subject=sandboxes/pay".into(), vec![0, 1, 5, 6, 7, 8, 9]),
        ("subject=sandboxes/pa".into(), vec![]),
        (format!("subject={first}"), vec![5, 6, 7]),
        ("subject=sandboxes/pay&user=bob&action=stop".into(), vec![6]),
    ] {
        let (_, page) = ada.get(&format!("/api/audit?{query}")).await;
        assert_eq!(told(&page), wanted.iter().map(|at| every[*at]).collect::<Vec<_>>(), "{query}");
    }
    let (mut seen, mut query) = (Vec::new(), "limit=4".to_owned());
    loop {
        let (_, page) = ada.get(&format!("/api/audit?{query}")).await;
        seen.extend(told(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=4&before={next}");
    }
    assert_eq!(seen, every);
    for (query, field) in
        [("limit=0", "limit"), ("action=think", "action"), ("subject=/", "subject"), ("before=x", "before")]
    {
        let (status, problem) = ada.get(&format!("/api/audit?{query}")).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    assert_eq!(ada.get("/api/audit?colour=red").await.0, 422);
    assert_eq!(Api::new(plane.address()).get("/api/audit").await.0, 401);
    for secret in [PASSWORD, exposed(&token), &ada.token] {
        assert!(!on_disk(plane.dir.path(), secret));
    }
    plane.server.shutdown().await;
}
