//! Going back to what ran before, over the HTTP API.

use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{DeployRequest, Deployment, DeploymentId, Inventory};
use serde_json::{Value, json};

use crate::support::{Agent, Api, Plane, STATES, inventory, states};

/// What a pipeline tells that ran `commit` on `port`.
fn ran(commit: &str, port: u16) -> Vec<Value> {
    let mut events = states(&STATES);
    let url = format!("http://vm.example:{port}");
    events.insert(1, json!({ "type": "source", "branch": "main", "commit": commit.repeat(40) }));
    events.insert(4, json!({ "type": "endpoint", "host_port": port, "url": url, "instance": "c" }));
    events
}

/// Deploys into a sandbox until it runs.
async fn deployed(agent: &mut Agent, api: &Api, sandbox: &str, commit: &str, more: Value) -> Deployment {
    let mut body = json!({ "repo": "eredar", "branch": "main" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let deployment = agent.accepts(api, &format!("/api/sandboxes/{sandbox}/deployments"), body).await;
    agent.events(deployment.id, 1, &ran(commit, 7001)).await;
    deployment
}

fn path(id: DeploymentId, what: &str) -> String {
    format!("/api/deployments/{id}/{what}")
}

/// Asks for a rollback that is accepted, and answers with what the agent was asked.
async fn rolled_back(agent: &mut Agent, api: &Api, id: DeploymentId, what: &str) -> (Deployment, DeployRequest) {
    let mut asked = None;
    let accept = |body: &RequestBody| {
        let RequestBody::Deploy { request, credentials: Some(_) } = body else { panic!("not a deployment: {body:?}") };
        asked = Some((**request).clone());
        Outcome::Ok(ReplyBody::Done)
    };
    let (status, deployment) = agent.during(api.post(&path(id, what), json!(null)), accept).await;
    assert_eq!(status, 202, "{deployment}");
    (serde_json::from_value(deployment).unwrap(), asked.unwrap())
}

async fn refused(api: &Api, id: DeploymentId) -> String {
    let (status, problem) = api.post(&path(id, "rollback"), json!({})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("conflict")), "{problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rollback_is_a_new_deployment_of_who_asks_with_the_earlier_ones_commit_port_and_variables() {
    let plane = Plane::new().await;
    let (mut agent, ada, _) = plane.ready(inventory(&["eredar"])).await;
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(ada.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    assert_eq!(ada.patch("/api/sandboxes/pay", json!({ "shared_with": ["bob"] })).await.0, 200);
    let first = deployed(&mut agent, &ada, "pay", "a", json!({ "env": { "MODE": "first" } })).await;
    let nothing = refused(&ada, first.id).await;
    assert!(nothing.contains("nothing else of pay/eredar"), "{nothing}");
    let second = deployed(&mut agent, &ada, "pay", "b", json!({ "host_port": 7002 })).await;

    // A body may be left out, and what is one has to be right.
    for (body, status) in [(json!([]), 422), (json!({ "commit": "x" }), 422), (json!({ "credentials": 1 }), 422)] {
        assert_eq!(ada.post(&path(second.id, "rollback"), body).await.0, status);
    }
    // From what runs, to the one before.
    let (back, asked) = rolled_back(&mut agent, &bob, second.id, "rollback").await;
    assert_eq!((back.rollback_of, back.user.as_str(), &back.key), (Some(first.id), "bob", &first.key));
    assert_eq!((asked.deployment, asked.branch.as_str()), (back.id, "main"));
    assert_eq!(asked.commit.map(|commit| commit.to_string()), Some("a".repeat(40)));
    assert_eq!(asked.host_port, None, "one that was picked is picked again");
    assert_eq!(asked.env.values().collect::<Vec<_>>(), ["first"]);
    agent.events(back.id, 1, &ran("a", 7001)).await;
    assert_eq!(ada.state(second.id).await, "superseded");
    assert_eq!(ada.get(&path(back.id, "log")).await.0, 200);

    // To a named one, whatever is between.
    let (named, asked) = rolled_back(&mut agent, &ada, second.id, "rollback").await;
    assert_eq!((named.rollback_of, asked.commit), (Some(second.id), Some("b".repeat(40).parse().unwrap())));
    let active = refused(&ada, named.id).await;
    assert!(active.contains("has not ended yet"), "{active}");
    agent.events(named.id, 1, &states(&["source", "cancelled"])).await;
    let cancelled = refused(&ada, named.id).await;
    assert!(cancelled.contains("is cancelled"), "{cancelled}");

    // Again the same; and an ordinary deployment afterwards is of the branch's tip.
    let (again, asked) = rolled_back(&mut agent, &ada, named.id, "retry").await;
    assert_eq!((again.rollback_of, asked.commit), (Some(second.id), Some("b".repeat(40).parse().unwrap())));
    agent.events(again.id, 1, &ran("b", 7002)).await;
    let (next, asked) = rolled_back(&mut agent, &ada, first.id, "retry").await;
    assert_eq!((next.rollback_of, asked.commit), (None, None));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_never_ran_or_was_of_another_sandbox_cannot_be_rolled_back_to() {
    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    assert_eq!(api.post("/api/deployments/0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55/rollback", json!({})).await.0, 404);
    for round in 0..2 {
        assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
        let body = json!({ "repo": "eredar", "branch": "main" });
        let queued = agent.accepts(&api, "/api/sandboxes/pay/deployments", body).await;
        agent.events(queued.id, 1, &states(&["superseded"])).await;
        let never = refused(&api, queued.id).await;
        assert!(never.contains("never ran"), "{never}");
        let old = deployed(&mut agent, &api, "pay", "a", json!({})).await;
        let nothing = refused(&api, old.id).await;
        assert!(nothing.contains("nothing to roll back to"), "round {round}: {nothing}");
        let done = |_: &RequestBody| Outcome::Ok(ReplyBody::Done);
        assert_eq!(agent.during(api.delete("/api/sandboxes/pay"), done).await.0, 204);
        assert_eq!(api.post(&path(old.id, "rollback"), json!({})).await.0, 404, "its sandbox is gone");
        if round == 0 {
            assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
            let other = refused(&api, old.id).await;
            assert!(other.contains("earlier sandbox"), "{other}");
            assert_eq!(agent.during(api.delete("/api/sandboxes/pay"), done).await.0, 204);
        }
    }
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_would_deploy_the_tip_instead_is_not_asked() {
    let plane = Plane::new().await;
    let old = Inventory { exact_commits: false, ..inventory(&["eredar"]) };
    let (mut agent, api, _) = plane.ready(old).await;
    assert_eq!(api.post("/api/sandboxes", json!({ "name": "pay" })).await.0, 201);
    deployed(&mut agent, &api, "pay", "a", json!({})).await;
    let second = deployed(&mut agent, &api, "pay", "b", json!({})).await;
    let (status, problem) = api.post(&path(second.id, "rollback"), json!({})).await;
    assert_eq!((status, problem["holder"].as_str()), (501, Some("micro")), "{problem}");
    assert_eq!(api.get("/api/deployments").await.1["items"].as_array().unwrap().len(), 2, "and nothing is kept of it");
    plane.server.shutdown().await;
}
