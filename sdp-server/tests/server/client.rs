//! The typed client: it has a method for every endpoint, and tells apart what the server tells apart.

use std::collections::BTreeSet;

use sdp_core::{
    BranchName, Credentials, DeploymentId, Environment, ErrorCode, ExecCommand, Manifest, RouteTarget, TokenId,
    api::{
        BranchFilter, ChangeSandbox, CreateDeployment, CreateSandbox, DeploymentFilter, SandboxFilter, SaveEnvironment,
        SaveTemplate, SetRoute, SetRoutes,
        audit::AuditFilter,
        live::{Change, Happened, LiveEvent},
        logs::{LogQuery, OutputQuery},
        people::{ChangeUser, CreateToken},
        routing::ExplainQuery,
    },
    client::{Client, ClientError, ClientOptions, Document, Live},
    protocol::RequestBody,
};
use serde_json::json;

use crate::support::{Agent, PASSWORD, Plane, STATES, done, inventory, patiently, refused, states};

fn client(plane: &Plane) -> Client {
    let mut options = ClientOptions::default();
    options.retries = 0;
    Client::new(plane.address().to_string().parse().unwrap(), options).unwrap()
}

/// A client that is signed in through an agent.
async fn signed_in(plane: &Plane, agent: &mut Agent) -> Client {
    let client = client(plane);
    let signed_in = agent.during(client.sign_in("ada".parse().unwrap(), PASSWORD.into()), done).await.unwrap();
    assert_eq!(signed_in.user.as_str(), "ada");
    signed_in.client
}

fn wanted(repo: &str, branch: &str) -> CreateDeployment {
    CreateDeployment::new(repo.parse().unwrap(), branch.parse().unwrap())
}

/// What is for others than the client's users: agents, Bitbucket, and browsers that read the API's description.
const OF_OTHERS: [&str; 3] = ["/ws/agent", "/api/webhooks/", "/api/docs"];

/// Calls every method. Nobody is signed in, so that most are refused before anything is done.
async fn call_everything(client: &Client) {
    let (sandbox, service, agent) = ("pay".parse().unwrap(), "eredar".parse().unwrap(), "micro".parse().unwrap());
    let (environment, template) = ("qa".parse().unwrap(), "checkout".parse().unwrap());
    let (repo, user) = ("eredar".parse().unwrap(), "ada".parse().unwrap());
    let (id, token) = (DeploymentId::new(), TokenId::new());
    let credentials = Credentials::new("ada".parse().unwrap(), PASSWORD.into());
    let document = Document::from(Manifest::default());
    let route = SetRoute { target: RouteTarget::Ocp, takeover: false, reason: None, expires_in: None };
    let routes = SetRoutes { routes: Default::default(), takeover: false, reason: None, expires_in: None };
    let explain =
        ExplainQuery { service: "eredar".parse().unwrap(), key: None, header: None, cookie: None, baggage: None };
    let create_token = CreateToken { name: "nightly".parse().unwrap(), scopes: BTreeSet::new(), expires_in: None };
    client.health().await.unwrap();
    client.readiness().await.unwrap();
    client.openapi().await.unwrap();
    let _ = client.sign_in("ada".parse().unwrap(), PASSWORD.into()).await;
    let _ = client.sign_out(false).await;
    let _ = client.me().await;
    let _ = client.tokens().await;
    let _ = client.create_token(&create_token).await;
    let _ = client.revoke_token(token).await;
    let _ = client.users().await;
    let _ = client.user(&user).await;
    let _ = client.change_user(&user, &ChangeUser::default()).await;
    let _ = client.agents().await;
    let _ = client.agent(&agent).await;
    let _ = client.agent_disks(&agent).await;
    let _ = client.agent_doctor(&agent).await;
    let _ = client.enrol_agent(&agent).await;
    let _ = client.rotate_agent(&agent).await;
    let _ = client.revoke_agent(&agent).await;
    let _ = client.repos().await;
    let _ = client.branches(&repo, &BranchFilter::default()).await;
    let _ = client.environments().await;
    let _ = client.environment(&environment).await;
    let _ = client.create_environment(&SaveEnvironment::default()).await;
    let _ = client.replace_environment(&environment, &SaveEnvironment::default(), None).await;
    let _ = client.delete_environment(&environment, None).await;
    let _ = client.templates().await;
    let _ = client.template(&template).await;
    let _ = client.create_template(&SaveTemplate::default()).await;
    let _ = client.replace_template(&template, &SaveTemplate::default(), None).await;
    let _ = client.delete_template(&template, None).await;
    let _ = client.sandboxes(&SandboxFilter::default()).await;
    let _ = client.create_sandbox(&CreateSandbox::new("pay".parse().unwrap())).await;
    let _ = client.sandbox(&sandbox).await;
    let _ = client.sandbox_stats(&sandbox).await;
    let _ = client.change_sandbox(&sandbox, &ChangeSandbox::default(), None).await;
    let _ = client.delete_sandbox(&sandbox, None).await;
    let _ = client.apply_sandbox(&sandbox, &document).await;
    let _ = client.diff_sandbox(&sandbox, &document).await;
    let _ = client.export_sandbox(&sandbox).await;
    let _ = client.deploy_sandbox(&sandbox, Some(&credentials)).await;
    let _ = client.deploy_into(&sandbox, &wanted("eredar", "main")).await;
    let _ = client.put_sandbox_to_sleep(&sandbox).await;
    let _ = client.wake_sandbox(&sandbox).await;
    let _ = client.routes(&sandbox).await;
    let _ = client.set_route(&sandbox, &service, &route).await;
    let _ = client.set_routes(&sandbox, &routes).await;
    let _ = client.explain_in(&sandbox, &service).await;
    let _ = client.explain(&explain).await;
    let _ = client.deployments(&DeploymentFilter::default()).await;
    let _ = client.deploy(&wanted("eredar", "main")).await;
    let _ = client.deployment(id).await;
    let _ = client.deployment_stats(id).await;
    let _ = client.cancel_deployment(id).await;
    let _ = client.stop_deployment(id).await;
    let _ = client.restart_deployment(id).await;
    let _ = client.exec(id, ExecCommand::new(["ls"]).unwrap()).await;
    let _ = client.retry_deployment(id, None).await;
    let _ = client.roll_back_deployment(id, Some(&credentials)).await;
    let _ = client.log_text(id, &LogQuery::default()).await;
    let _ = client.follow(id, 1).next().await;
    let _ = client.output(id, &OutputQuery::default()).await;
    let _ = client.follow_output(id, Some(1)).await;
    let _ = client.audit(&AuditFilter::default()).await;
    let _ = client.events(None).next().await;
    // What was asked is counted there; the question itself only once it is answered.
    client.metrics().await.unwrap();
}

/// The endpoints that somebody asked, as the server counted them.
fn asked(metrics: &str) -> BTreeSet<String> {
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let lines = metrics.lines().filter(|line| line.contains("route=\""));
    lines.filter_map(|line| Some(format!("{} {}", label(line, "method")?, label(line, "route")?))).collect()
}

#[tokio::test]
async fn every_endpoint_has_a_method() {
    let plane = Plane::new().await;
    let client = client(&plane);
    patiently(call_everything(&client)).await;
    let asked = asked(&client.metrics().await.unwrap());
    let is_of_others = |path: &str| OF_OTHERS.iter().any(|prefix| path.starts_with(prefix));
    let declared = sdp_server::api::endpoints().into_iter().filter(|endpoint| !is_of_others(endpoint.path));
    let declared: BTreeSet<_> = declared.map(|endpoint| format!("{} {}", endpoint.method, endpoint.path)).collect();
    assert!(declared.len() > 50, "{declared:?}");
    assert_eq!(declared.difference(&asked).collect::<Vec<_>>(), Vec::<&String>::new(), "have no method: {asked:?}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_was_read_is_changed_only_if_nobody_else_did() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let client = signed_in(&plane, &mut agent).await;
    let body = SaveEnvironment { name: Some("qa".parse().unwrap()), ..SaveEnvironment::default() };
    let made = client.create_environment(&body).await.unwrap();
    assert_eq!(made.value, Environment::new("qa".parse().unwrap()));
    let error = client.create_environment(&body).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Conflict));

    let name = made.value.name;
    let mut changed = SaveEnvironment::default();
    changed.env.insert("A".parse().unwrap(), "1".into());
    let read = client.environment(&name).await.unwrap();
    assert_eq!(read.version, made.version);
    client.replace_environment(&name, &changed, read.version.as_ref()).await.unwrap();
    let error = client.delete_environment(&name, read.version.as_ref()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Changed));
    client.delete_environment(&name, None).await.unwrap();
    let error = client.environment(&name).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((problem.status, problem.code, problem.field.as_deref()), (404, ErrorCode::NotFound, Some("name")));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    use futures_util::TryStreamExt;
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let client = signed_in(&plane, &mut agent).await;
    let names: Vec<_> = (1..=7).map(|n| format!("pay-{n}")).collect();
    for name in &names {
        client.create_sandbox(&CreateSandbox::new(name.parse().unwrap())).await.unwrap();
    }
    let filter = SandboxFilter { limit: Some(3), ..SandboxFilter::default() };
    let sandboxes: Vec<_> = client.all_sandboxes(filter).try_collect().await.unwrap();
    assert!(sandboxes.iter().map(|listed| listed.sandbox.name.as_str()).eq(names.iter().map(String::as_str)));

    let filter = AuditFilter { limit: Some(2), ..AuditFilter::default() };
    let entries: Vec<_> = client.all_audit(filter).try_collect().await.unwrap();
    assert!(entries.len() >= 8 && entries.windows(2).all(|pair| pair[0].id > pair[1].id), "{entries:?}");
    let filter = DeploymentFilter { limit: Some(1), ..DeploymentFilter::default() };
    assert_eq!(client.all_deployments(filter).try_collect::<Vec<_>>().await.unwrap(), []);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_log_is_followed_to_its_deployments_end_and_read_afterwards() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let client = signed_in(&plane, &mut agent).await;
    let id = agent.during(client.deploy(&wanted("eredar", "main")), done).await.unwrap().id;
    let states = states(&STATES);
    let mut follow = client.follow(id, 2);
    agent.events(id, 1, &states[..3]).await;
    let first = patiently(follow.next()).await.unwrap().unwrap();
    assert_eq!((first.seq, follow.position()), (2, 3));
    agent.events(id, 4, &states[3..]).await;
    let mut seqs = Vec::new();
    while let Some(event) = patiently(follow.next()).await.unwrap() {
        seqs.push(event.seq);
    }
    assert_eq!(seqs, [3, 4, 5, 6]);
    let (state, last) = follow.end().unwrap();
    assert_eq!((state.as_str(), last), ("running", 6));
    assert_eq!(patiently(client.wait(id)).await.unwrap().state.as_str(), "running");

    let tail = LogQuery { tail: Some(2), ..LogQuery::default() };
    let events = client.log_events(id, &tail).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [5, 6]);
    assert!(client.log_text(id, &tail).await.unwrap().ends_with("= running\n"));
    let error = client.follow(DeploymentId::new(), 1).next().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    plane.server.shutdown().await;
}

#[tokio::test]
async fn changes_are_followed_from_where_somebody_left_off() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let client = signed_in(&plane, &mut agent).await;
    let mut events = client.events(None);
    let Live::Begins(next) = patiently(events.next()).await.unwrap() else { panic!("no beginning") };
    client.create_sandbox(&CreateSandbox::new("pay".parse().unwrap())).await.unwrap();
    let Live::Event(LiveEvent { seq, change, .. }) = patiently(events.next()).await.unwrap() else {
        panic!("no event")
    };
    assert!(matches!(change, Change::Sandbox { change: Happened::Created, .. }), "{change:?}");
    assert_eq!(seq, next);
    let mut again = client.events(Some(next));
    assert_eq!(patiently(again.next()).await.unwrap(), Live::Begins(next));
    assert!(matches!(patiently(again.next()).await.unwrap(), Live::Event(event) if event.seq == next));

    // The session ends, and with it what is followed.
    client.sign_out(true).await.unwrap();
    let error = patiently(async {
        loop {
            if let Err(error) = events.next().await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(error.code(), Some(ErrorCode::NotSignedIn), "{error}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn what_an_agent_says_comes_through_as_it_was_said() {
    let plane = Plane::new().await;
    let (mut agent, _, _) = plane.ready(inventory(&["eredar"])).await;
    let anonymous = client(&plane);
    let wrong = |_: &RequestBody| refused(ErrorCode::InvalidCredentials, "the git host refused ada's password");
    let signing_in = anonymous.sign_in("ada".parse().unwrap(), "wrong".into());
    let error = agent.during(signing_in, wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "the git host refused ada's password");
    assert_eq!(error.code(), Some(ErrorCode::InvalidCredentials));
    assert!(
        matches!(anonymous.me().await, Err(ClientError::Refused(problem)) if problem.code == ErrorCode::NotSignedIn)
    );

    let client = signed_in(&plane, &mut agent).await;
    let yaml = Document::Yaml("services:\n- repo: eredar\n  brunch: main\n".into());
    let error = client.apply_sandbox(&"pay".parse().unwrap(), &yaml).await.unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
    let branch: BranchName = "main".parse().unwrap();
    let yaml = Document::Yaml(json!({ "services": [{ "repo": "eredar", "branch": branch }] }).to_string());
    let changes = client.diff_sandbox(&"pay".parse().unwrap(), &yaml).await.unwrap().changes;
    assert_eq!(changes.len(), 2, "{changes:?}");
    plane.server.shutdown().await;
}
