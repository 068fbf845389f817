//! Every endpoint, tried by everybody.
//!
//! What is declared is compared with the table below, so that nobody adds an endpoint or changes a rule without saying so
//! here; then a real server is asked as every kind of person, and must let in exactly those whom the rule lets in.

use reqwest::Method;
use sdp_core::{DeploymentId, DeploymentState};
use sdp_server::{api::endpoints, auth::Rule};
use serde_json::json;

use crate::support::{Agent, Api, Plane, inventory, left};

const TABLE: &str = include_str!("privileges.txt");

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Anonymous,
    Viewer,
    Owner,
    Shared,
    Other,
    Admin,
    /// Of the owner, each with one scope.
    ReadToken,
    DeployToken,
    /// Of another developer.
    OthersToken,
    AdminToken,
}

const EVERYBODY: [Who; 10] = [
    Who::Anonymous,
    Who::Viewer,
    Who::Owner,
    Who::Shared,
    Who::Other,
    Who::Admin,
    Who::ReadToken,
    Who::DeployToken,
    Who::OthersToken,
    Who::AdminToken,
];

impl Who {
    fn is_token(self) -> bool {
        matches!(self, Self::ReadToken | Self::DeployToken | Self::OthersToken | Self::AdminToken)
    }
}

/// The status that refuses somebody; none lets them in.
fn expected(rule: Rule, who: Who) -> Option<u16> {
    let admins = matches!(who, Who::Admin | Who::AdminToken);
    let owners = admins || matches!(who, Who::Owner | Who::DeployToken);
    let allowed = match rule {
        Rule::Anyone => true,
        Rule::Agent => panic!("agents are nobody of these"),
        Rule::Session => who != Who::Anonymous && !who.is_token(),
        Rule::Viewer => who != Who::Anonymous,
        Rule::Developer => owners || matches!(who, Who::Shared | Who::Other | Who::OthersToken),
        Rule::Sandbox | Rule::NewSandbox | Rule::Deployment => owners || who == Who::Shared,
        Rule::Template => owners,
        Rule::Admin => admins,
    };
    match (allowed, who) {
        (true, _) => None,
        (false, Who::Anonymous) => Some(401),
        (false, _) => Some(403),
    }
}

#[test]
fn every_endpoint_is_in_the_table_with_its_rule() {
    let mut declared: Vec<_> =
        endpoints().iter().map(|it| format!("{:<6} {:<54} {}", it.method.as_str(), it.path, it.rule)).collect();
    declared.sort();
    let table: Vec<_> = TABLE.lines().collect();
    assert_eq!(declared, table, "tests/server/privileges.txt has to say the same");
}

/// What the paths are about: all of it bob's, who is a developer.
struct World {
    plane: Plane,
    people: Vec<(Who, Api)>,
    made: usize,
}

impl World {
    async fn new() -> (Self, Agent) {
        let plane = Plane::new().await;
        let (mut agent, admin, _) = plane.ready(inventory(&["eredar"])).await;
        let token = async |api: &Api, scope: &str| {
            let (status, made) = api.post("/api/tokens", json!({ "name": "t", "scopes": [scope] })).await;
            assert_eq!(status, 201, "{made}");
            let mut api = Api::new(plane.address());
            api.token = made["secret"].as_str().unwrap().into();
            api
        };
        let mut people = vec![(Who::Anonymous, Api::new(plane.address()))];
        for (who, name) in [(Who::Owner, "bob"), (Who::Shared, "cyd"), (Who::Other, "eve"), (Who::Viewer, "vic")] {
            let api = Api::sign_in(plane.address(), &mut agent, name).await;
            match who {
                Who::Owner => {
                    people.push((Who::ReadToken, token(&api, "read").await));
                    people.push((Who::DeployToken, token(&api, "deploy").await));
                }
                Who::Other => people.push((Who::OthersToken, token(&api, "deploy").await)),
                Who::Viewer => assert_eq!(admin.put("/api/users/vic", json!({ "role": "viewer" })).await.0, 200),
                _ => {}
            }
            people.push((who, api));
        }
        people.push((Who::AdminToken, token(&admin, "admin").await));
        people.push((Who::Admin, admin));
        (Self { plane, people, made: 0 }, agent)
    }

    fn api(&self, who: Who) -> &Api {
        &self.people.iter().find(|(known, _)| *known == who).unwrap().1
    }

    /// A path about things that were made for this one request.
    async fn path(&mut self, path: &str) -> String {
        self.made += 1;
        let name = format!("n{}", self.made);
        let owner = self.api(Who::Owner);
        let mut id = DeploymentId::new().to_string();
        if path.starts_with("/api/sandboxes/") || path.contains("/deployments/{id}") {
            assert_eq!(owner.post("/api/sandboxes", json!({ "name": name })).await.0, 201);
            assert_eq!(owner.patch(&format!("/api/sandboxes/{name}"), json!({ "shared_with": ["cyd"] })).await.0, 200);
            let deployment = left(id.parse().unwrap(), &name, DeploymentState::Failed);
            self.plane.server.state().store().insert_deployment(&deployment).await.unwrap();
        }
        if path.starts_with("/api/templates/") {
            let shape = json!({ "name": name, "services": [{ "repo": "eredar", "branch": "main" }] });
            assert_eq!(owner.post("/api/templates", shape).await.0, 201);
        }
        if path.starts_with("/api/tokens/") {
            id = "01a213a4-4149-7216-9bf1-6499c6984e35".into();
        }
        let path = path.replace("{name}", &name).replace("{id}", &id);
        path.replace("{service}", "eredar").replace("{repo}", "eredar")
    }
}

#[tokio::test]
async fn everybody_is_let_in_where_the_rule_lets_them_in_and_nowhere_else() {
    let (mut world, agent) = World::new().await;
    // Without its agent nothing is done, and what is allowed fails for another reason.
    drop(agent);
    let mut wrong = Vec::new();
    // Last, because it ends the sessions.
    let mut endpoints = endpoints();
    endpoints.sort_by_key(|endpoint| endpoint.path == "/api/logout");
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.rule != Rule::Agent) {
        for who in EVERYBODY {
            let path = world.path(endpoint.path).await;
            // Without a body nothing is made of it.
            let (status, answer) = world.api(who).call(endpoint.method.clone(), &path, None).await;
            let refused = matches!(status, 401 | 403).then_some(status);
            if refused != expected(endpoint.rule, who) {
                wrong.push(format!("{who:?} {} {path}: {status} {answer}", endpoint.method));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.plane.server.shutdown().await;
}

#[tokio::test]
async fn what_is_for_agents_lets_no_person_in() {
    let (world, _agent) = World::new().await;
    for endpoint in endpoints().iter().filter(|endpoint| endpoint.rule == Rule::Agent) {
        // Opening a session gives a key to nothing until a hello with an agent's token has come.
        if endpoint.path == "/ws/agent/session" {
            continue;
        }
        for who in EVERYBODY {
            let path = format!("{}?number=1&after=0", endpoint.path);
            let (status, answer) = world.api(who).call(endpoint.method.clone(), &path, None).await;
            assert!((400..500).contains(&status), "{who:?} {} {path}: {status} {answer}", endpoint.method);
        }
    }
    let anonymous = world.api(Who::Anonymous);
    assert_eq!(anonymous.call(Method::OPTIONS, "/api/sandboxes", None).await.0, 405);
    world.plane.server.shutdown().await;
}
