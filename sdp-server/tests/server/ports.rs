//! Host ports over the HTTP API: reserved, refused with their holder, and free again.

use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{DeployRequest, Inventory, PortRange};
use serde_json::{Value, json};

use crate::support::{Agent, Api, Plane, done, inventory, states};

fn with_range() -> Inventory {
    Inventory { port_range: Some(PortRange(9000..=9001)), ..inventory(&["eredar", "illidan"]) }
}

/// Deploys, and gives what the agent was asked and what the user is told.
async fn deploy(agent: &mut Agent, api: &Api, path: &str, body: Value) -> (DeployRequest, Value) {
    let mut asked = None;
    let answer = |body: &RequestBody| {
        let RequestBody::Deploy { request, .. } = body else { panic!("not a deployment: {body:?}") };
        asked = Some((**request).clone());
        Outcome::Ok(ReplyBody::Done)
    };
    let (status, told) = agent.during(api.post(path, body), answer).await;
    assert_eq!(status, 202, "{told}");
    (asked.unwrap(), told)
}

#[tokio::test]
async fn a_port_is_picked_reserved_and_a_taken_one_refused_with_its_holder() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(with_range()).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    ada.post("/api/sandboxes", json!({ "name": "pay" })).await;
    let body = |repo: &str| json!({ "repo": repo, "branch": "main" });
    let (asked, told) = deploy(&mut agent, &ada, "/api/sandboxes/pay/deployments", body("eredar")).await;
    assert_eq!((asked.host_port, asked.picked_port.map(|port| port.get())), (None, Some(9000)));
    assert_eq!(told.get("host_port"), None, "until the agent has bound it");

    let mine = json!({ "repo": "eredar", "branch": "main", "host_port": 9000 });
    let (status, problem) = bob.post("/api/deployments", mine).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("port-taken")), "{problem}");
    assert_eq!((problem["field"].as_str(), problem["holder"].as_str()), (Some("host_port"), Some("pay/eredar")));
    assert!(problem["detail"].as_str().unwrap().contains("of ada"), "{problem}");
    assert_eq!(bob.get("/api/deployments?user=bob").await.1["items"], json!([]), "nothing was begun");

    deploy(&mut agent, &bob, "/api/deployments", body("illidan")).await;
    let (status, problem) = bob.post("/api/deployments", body("eredar")).await;
    assert_eq!((status, problem["field"].as_str()), (409, Some("host_port")), "the range is used up: {problem}");

    // The agent found it taken by a stranger and picked another; then the sandbox goes.
    let mut events = states(&["source", "build", "start", "health", "routes", "running"]);
    events.insert(3, json!({ "type": "endpoint", "host_port": 9500, "url": "http://vm:9500", "instance": "c" }));
    agent.events(asked.deployment, 1, &events).await;
    let (asked, _) = deploy(&mut agent, &bob, "/api/deployments", body("eredar")).await;
    assert_eq!(asked.picked_port.map(|port| port.get()), Some(9000));
    let taken = json!({ "repo": "illidan", "branch": "main", "host_port": 9500 });
    assert_eq!(bob.post("/api/deployments", taken.clone()).await.0, 409);
    assert_eq!(agent.during(ada.delete("/api/sandboxes/pay"), done).await.0, 204);
    let (asked, _) = deploy(&mut agent, &bob, "/api/deployments", taken).await;
    assert_eq!((asked.host_port.map(|port| port.get()), asked.picked_port), (Some(9500), None));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_fails_gives_its_port_back_and_a_retry_picks_anew() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(with_range()).await;
    let body = |repo: &str| json!({ "repo": repo, "branch": "main" });
    let (first, _) = deploy(&mut agent, &api, "/api/deployments", body("eredar")).await;
    agent.events(first.deployment, 1, &states(&["source", "failed"])).await;
    let (other, _) = deploy(&mut agent, &api, "/api/deployments", body("illidan")).await;
    assert_eq!(other.picked_port, first.picked_port);
    let path = format!("/api/deployments/{}/retry", first.deployment);
    let (again, _) = deploy(&mut agent, &api, &path, json!({})).await;
    assert_eq!((again.host_port, again.picked_port.map(|port| port.get())), (None, Some(9001)));

    let refused = |_: &RequestBody| crate::support::refused(sdp_core::ErrorCode::Conflict, "not now");
    let (status, _) = agent.during(api.post("/api/deployments", body("eredar")), refused).await;
    assert_eq!(status, 409, "a second one of the key shares its port, and gives it back to the first");
    let plane = plane.restarted().await;
    let micro = "micro".parse().unwrap();
    let held = async |port: u16| {
        let holder = plane.server.state().store().port_holder(&micro, port.try_into().unwrap()).await.unwrap();
        holder.map(|holder| holder.key.to_string())
    };
    assert_eq!((held(9000).await, held(9001).await), (Some("illidan".into()), Some("eredar".into())));
    plane.server.shutdown().await;
}
