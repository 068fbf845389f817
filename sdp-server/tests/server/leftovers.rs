//! What agents have of sandboxes that are no more.

use std::time::Duration;

use sdp_core::protocol::{Outcome, ReplyBody, RequestBody};
use sdp_core::{Instance, InstanceKey};
use serde_json::json;

use crate::support::{Plane, done, inventory};

fn instance(sandbox: Option<&str>) -> Instance {
    let key = match sandbox {
        Some(sandbox) => json!({ "sandbox": sandbox, "repo": "eredar" }),
        None => json!({ "repo": "eredar" }),
    };
    serde_json::from_value(json!({
        "key": key, "id": "c", "name": "c", "deployment": sdp_core::DeploymentId::new(), "branch": "main",
        "commit": "a".repeat(40), "host_port": 7001, "state": { "state": "running" }
    }))
    .unwrap()
}

#[tokio::test]
async fn instances_and_worktrees_of_unknown_sandboxes_are_removed_after_two_looks() {
    let plane = Plane::with(|config| config.agents.reconcile = Duration::from_millis(50)).await;
    let token = plane.enrol("micro").await;
    let hello =
        sdp_core::protocol::Hello { inventory: inventory(&["eredar"]), ..crate::support::hello("micro", &token) };
    let mut agent = crate::support::Agent::greet(plane.address(), hello).await;
    // Its sandbox is there, though no deployment of it is known: that is told, and left alone.
    let sandbox = json!({ "name": "known", "environment": "default", "owner": "ada",
        "created_at": "2026-01-02T03:04:05Z", "expires_at": "2126-01-02T03:04:05Z" });
    let sandbox = serde_json::from_value(sandbox).unwrap();
    plane.server.state().store().insert_sandbox(&sandbox, &sdp_core::Shape::default()).await.unwrap();

    let mut instances = vec![instance(None), instance(Some("known")), instance(Some("gone"))];
    let worktree: InstanceKey = serde_json::from_value(json!({ "sandbox": "older", "repo": "eredar" })).unwrap();
    let mut keys = vec![worktree];
    let mut removed = Vec::new();
    let (mut looks, mut looks_at_removal) = (0, 0);
    // Two more looks after the last removal show that nothing else goes.
    while looks < 6 || looks < looks_at_removal + 2 {
        let request = agent.request().await;
        let outcome = match &request.body {
            RequestBody::Instances => {
                looks += 1;
                Outcome::Ok(ReplyBody::Instances { instances: instances.clone() })
            }
            RequestBody::Checkouts => Outcome::Ok(ReplyBody::Checkouts { keys: keys.clone() }),
            RequestBody::Remove { key } => {
                assert!(looks >= 2, "one look is not enough");
                looks_at_removal = looks;
                instances.retain(|instance| instance.key != *key);
                keys.retain(|kept| kept != key);
                removed.push(key.to_string());
                done(&request.body)
            }
            other => panic!("{other:?}"),
        };
        agent.reply(request.id, outcome).await;
    }
    removed.sort();
    assert_eq!(removed, ["gone/eredar", "older/eredar"]);
    assert_eq!(instances.len(), 2);
    plane.server.shutdown().await;
}
