//! Deployments over the HTTP API.

use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{DeploymentId, ErrorCode};
use serde_json::{Value, json};

use crate::support::{
    Agent, Api, PASSWORD, Plane, STATES, done, exposed, held, hello, inventory, on_disk, refused, states, until,
};

fn main_of_eredar() -> Value {
    json!({ "repo": "eredar", "branch": "main" })
}

#[tokio::test]
async fn a_deployment_is_sent_followed_and_kept_and_no_secret_touches_the_disk() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    let body = json!({ "repo": "eredar", "branch": "feature/x", "env": { "MODE": "test" } });
    let asked = |body: &RequestBody| {
        let RequestBody::Deploy { request, credentials: Some(_) } = body else { panic!("not a deployment: {body:?}") };
        assert_eq!(request.branch.as_str(), "feature/x");
        assert_eq!(request.env.values().collect::<Vec<_>>(), ["test"]);
        Outcome::Ok(ReplyBody::Done)
    };
    let (status, deployment) = agent.during(api.post("/api/sandboxes/pay/deployments", body), asked).await;
    assert_eq!((status, deployment["state"].as_str()), (202, Some("queued")), "{deployment}");
    let id: DeploymentId = serde_json::from_value(deployment["id"].clone()).unwrap();

    let events = states(&STATES);
    let (early, ()) = tokio::join!(api.follow(id, 1), async {
        agent.events(id, 1, &events[..2]).await;
        agent.events(id, 3, &events[2..]).await;
    });
    assert_eq!(early.len(), 7, "{early:?}");
    assert_eq!(early[6], json!({ "type": "end", "state": "running", "last": 6 }));
    assert_eq!(api.follow(id, 1).await, early, "who comes late sees the same");
    assert_eq!(api.follow(id, 5).await, early[4..]);
    assert_eq!(api.state(id).await, "running");
    assert_eq!(api.get("/api/sandboxes/pay").await.1["deployments"][0]["id"], id.to_string());
    for secret in [PASSWORD, exposed(&token), &api.token] {
        assert!(!on_disk(plane.dir.path(), secret));
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_the_agent_refuses_is_told_and_kept_as_failed() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let busy = |_: &RequestBody| refused(ErrorCode::Conflict, "eredar is being deployed already");
    let (status, problem) = agent.during(api.post("/api/deployments", main_of_eredar()), busy).await;
    assert_eq!((status, problem["detail"].as_str()), (409, Some("eredar is being deployed already")));
    let (_, page) = api.get("/api/deployments").await;
    assert_eq!(page["items"][0]["state"], "failed");
    assert_eq!(page["items"][0]["failure"]["reason"], "eredar is being deployed already");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_of_another_version_is_named_as_the_cause() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let nonsense = |_: &RequestBody| Outcome::Ok(ReplyBody::Instances { instances: Vec::new() });
    let (status, problem) = agent.during(api.post("/api/deployments", main_of_eredar()), nonsense).await;
    assert_eq!((status, problem["code"].as_str()), (501, Some("unsupported")), "{problem}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_running_deployment_is_stopped_restarted_and_superseded() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let first = agent.runs(&api, "/api/deployments").await.id;
    let at = |what: &str| format!("/api/deployments/{first}/{what}");

    let stop = |body: &RequestBody| {
        assert!(matches!(body, RequestBody::Stop { .. }), "{body:?}");
        Outcome::Ok(ReplyBody::Done)
    };
    let (status, stopped) = agent.during(api.post(&at("stop"), json!({})), stop).await;
    assert_eq!((status, stopped["state"].as_str()), (200, Some("stopped")));
    assert_eq!(api.post(&at("stop"), json!({})).await.0, 200, "again changes nothing and asks nobody");

    let (status, running) = agent.during(api.post(&at("restart"), json!({})), done).await;
    assert_eq!((status, running["state"].as_str()), (200, Some("running")));
    assert_eq!(api.post(&at("cancel"), json!({})).await.0, 409, "it has ended");

    let second = agent.runs(&api, "/api/deployments").await.id;
    assert_eq!((api.state(first).await, api.state(second).await), (json!("superseded"), json!("running")));
    for what in ["stop", "restart", "cancel"] {
        let (status, problem) = api.post(&at(what), json!({})).await;
        assert_eq!((status, problem["code"].as_str()), (409, Some("conflict")));
        assert!(problem["detail"].as_str().unwrap().contains("is superseded"), "{problem}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_deployment_can_be_retried_as_a_new_one() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let deployment = agent
        .accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "feature/x", "host_port": 7001 }))
        .await;
    let id = deployment.id;
    agent.events(id, 1, &states(&["source"])).await;
    let at = |what: &str| format!("/api/deployments/{id}/{what}");
    assert_eq!(api.post(&at("retry"), json!({})).await.0, 409, "it has not ended");
    let cancel = |body: &RequestBody| {
        assert!(matches!(body, RequestBody::Cancel { deployment } if *deployment == id), "{body:?}");
        Outcome::Ok(ReplyBody::Done)
    };
    assert_eq!(agent.during(api.post(&at("cancel"), json!({})), cancel).await.0, 202);
    agent.events(id, 2, &states(&["cancelled"])).await;
    assert_eq!(api.state(id).await, "cancelled");

    let again = agent.accepts(&api, &at("retry"), json!({})).await;
    assert_ne!(again.id, id);
    assert_eq!((again.branch, again.host_port, again.key), (deployment.branch, deployment.host_port, deployment.key));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_deployment_whose_agent_went_away_waits_for_what_the_agent_tells() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let ((status, told), request) = tokio::join!(api.post("/api/deployments", main_of_eredar()), async {
        let request = agent.request().await;
        drop(agent);
        request
    });
    assert_eq!((status, &told["state"]), (202, &json!("queued")));
    let RequestBody::Deploy { request, .. } = request.body else { panic!("not a deployment") };
    let id = request.deployment;
    assert_eq!(told["id"], json!(id), "asked for again, it would be a second one: {told}");
    assert_eq!(api.state(id).await, "queued");

    // It had begun, and went on while it was away.
    let (mut agent, acked) = Agent::welcomed(
        plane.address(),
        sdp_core::protocol::Hello { held: vec![held(id, 2)], ..hello("micro", &token) },
    )
    .await;
    assert_eq!(acked[&id.to_string()], 0);
    agent.events(id, 1, &states(&STATES)).await;
    assert_eq!(api.state(id).await, "running");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_deployment_that_its_agent_has_lost_has_failed() {
    let plane = Plane::new().await;
    let (mut agent, api, token) = plane.ready(inventory(&["eredar"])).await;
    let id = agent.accepts(&api, "/api/deployments", main_of_eredar()).await.id;
    agent.events(id, 1, &states(&["source"])).await;
    drop(agent);
    let _agent = Agent::greet(plane.address(), hello("micro", &token)).await;
    let path = format!("/api/deployments/{id}");
    let (_, deployment) = until(|| api.get(&path), |(_, d)| d["state"] == "failed").await;
    assert_eq!(deployment["failure"]["code"], "agent-away");
    let end = api.follow(id, 2).await;
    assert_eq!(end, [json!({ "type": "end", "state": "failed", "last": 1 })], "and who follows it is told");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_repo_goes_to_the_agent_that_runs_it_or_is_asked_for() {
    let plane = Plane::new().await;
    let (mut micro, api, _) = plane.ready(inventory(&["eredar"])).await;
    let mut other = Agent::greet(plane.address(), hello("other", &plane.enrol("other").await)).await;
    let asked = json!({ "repo": "eredar", "branch": "main", "agent": "other" });
    let id = other.accepts(&api, "/api/deployments", asked).await.id;
    other.events(id, 1, &states(&STATES)).await;
    let again = other.accepts(&api, "/api/deployments", main_of_eredar()).await;
    assert_eq!(again.agent.as_str(), "other", "which runs it already");
    let elsewhere =
        micro.accepts(&api, "/api/deployments", json!({ "repo": "eredar", "branch": "main", "agent": "micro" })).await;
    assert_eq!(elsewhere.agent.as_str(), "micro");
    for (agent, status) in [("nobody", 404), ("micro", 422)] {
        let body =
            json!({ "repo": if status == 422 { "erangel" } else { "eredar" }, "branch": "main", "agent": agent });
        let (got, problem) = api.post("/api/deployments", body).await;
        // A repo that nobody has comes before the agent.
        let field = if status == 422 { "repo" } else { "agent" };
        assert_eq!((got, problem["field"].as_str()), (404, Some(field)), "{problem}");
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn the_list_is_filtered_and_paged_newest_first() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(inventory(&["eredar", "illidan"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    let mut made = Vec::new();
    for (api, repo) in [(&ada, "eredar"), (&bob, "illidan"), (&ada, "illidan")] {
        let id = agent.accepts(api, "/api/deployments", json!({ "repo": repo, "branch": "main" })).await.id;
        agent.events(id, 1, &states(&["source", "cancelled"])).await;
        made.push(id.to_string());
    }
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().into()).collect()
    };
    let (_, first) = ada.get("/api/deployments?limit=2").await;
    assert_eq!(ids(&first), [made[2].clone(), made[1].clone()]);
    let (_, rest) = ada.get(&format!("/api/deployments?before={}", first["next"].as_str().unwrap())).await;
    assert_eq!((ids(&rest), rest.get("next")), (vec![made[0].clone()], None));
    for (query, wanted) in [
        ("user=bob", vec![&made[1]]),
        ("repo=illidan", vec![&made[2], &made[1]]),
        ("repo=illidan&user=ada&state=cancelled", vec![&made[2]]),
        ("state=running", vec![]),
    ] {
        let (_, page) = ada.get(&format!("/api/deployments?{query}")).await;
        assert_eq!(ids(&page).iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    for (query, field) in
        [("limit=0", "limit"), ("limit=501", "limit"), ("state=happy", "state"), ("before=x", "before")]
    {
        let (status, problem) = ada.get(&format!("/api/deployments?{query}")).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{problem}");
    }
    assert_eq!(ada.get("/api/deployments?colour=red").await.0, 422);
    plane.server.shutdown().await;
}
