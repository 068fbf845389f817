//! Sandboxes, environments and templates.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use sdp_core::{
    AuditSubject, Deployment, DeploymentId, DeploymentState, Environment, EnvironmentName, ErrorCode, HostPort,
    InstanceKey, Problem, RouteTarget, Sandbox, SandboxName, SandboxState, Shape, Template,
    api::audit::{AuditAction, AuditFilter},
};
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    (dir, store)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pay() -> SandboxName {
    "pay".parse().unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox {
        name: pay(),
        environment: EnvironmentName::default(),
        owner: "ada".parse().unwrap(),
        shared_with: Default::default(),
        created_at: at(1_000),
        expires_at: at(2_000),
        state: SandboxState::Active,
    }
}

fn deployment(branch: &str, port: Option<u16>, second: i64) -> Deployment {
    Deployment {
        id: DeploymentId::new(),
        key: InstanceKey::in_sandbox(pay(), "eredar".parse().unwrap()),
        branch: branch.parse().unwrap(),
        commit: None,
        agent: "micro-92".parse().unwrap(),
        state: DeploymentState::Queued,
        failure: None,
        rollback_of: None,
        host_port: port.map(|port| HostPort::new(port).unwrap()),
        url: None,
        env: BTreeMap::from([("A".parse().unwrap(), "1".to_owned())]),
        user: "ada".parse().unwrap(),
        created_at: at(second),
        finished_at: None,
        stages: Vec::new(),
    }
}

async fn record(store: &Store) -> SandboxRecord {
    store.sandbox_record(&pay()).await.unwrap().unwrap()
}

fn deed() -> Deed {
    Deed::of_the_platform(AuditAction::TemplateReplace, AuditSubject::sandbox(&pay()))
}

#[tokio::test]
async fn deployments_outlive_their_sandbox() {
    let (_dir, store) = store();
    store.insert_sandbox(&sandbox(), &Shape::default()).await.unwrap();
    let again = store.insert_sandbox(&sandbox(), &Shape::default()).await;
    assert!(matches!(again, Err(StoreError::Exists { .. })));
    let deployment = deployment("main", None, 1_500);
    store.insert_deployment(&deployment).await.unwrap();
    assert_eq!(store.sandboxes().await.unwrap(), [sandbox()]);
    assert!(!store.end_delete(&pay()).await.unwrap(), "only what is being deleted can be gone");
    store.begin_delete(&pay()).await.unwrap().unwrap();
    assert!(store.end_delete(&pay()).await.unwrap());
    assert_eq!(store.begin_delete(&pay()).await.unwrap(), None);
    assert_eq!(store.deployment(deployment.id).await.unwrap(), Some(deployment));
}

#[tokio::test]
async fn a_sandbox_is_made_of_what_was_last_deployed_into_it() {
    let (_dir, store) = store();
    store.insert_sandbox(&sandbox(), &Shape::default()).await.unwrap();
    store.insert_deployment(&deployment("main", Some(7001), 1_100)).await.unwrap();
    store.insert_deployment(&deployment("feature/x", None, 1_200)).await.unwrap();
    let record = record(&store).await;
    let services: Vec<_> = record.shape.services.iter().collect();
    assert_eq!(services.len(), 1);
    assert_eq!((services[0].branch.as_str(), services[0].host_port), ("feature/x", None));
    assert_eq!((services[0].env.len(), record.used_at), (1, at(1_200)));
    let of = async |states: &[DeploymentState]| store.deployments_of(&sandbox(), states).await.unwrap().len();
    assert_eq!((of(&DeploymentState::ALL).await, of(&[DeploymentState::Running]).await), (2, 0));
    let later = Sandbox { created_at: at(1_150), ..sandbox() };
    assert_eq!(store.deployments_of(&later, &DeploymentState::ALL).await.unwrap().len(), 1, "an earlier one's are not");
}

#[tokio::test]
async fn into_what_is_being_deleted_nothing_is_deployed_and_nothing_of_it_changes() {
    let (_dir, store) = store();
    store.insert_sandbox(&sandbox(), &Shape::default()).await.unwrap();
    assert_eq!(store.begin_delete_expired(at(1_999)).await.unwrap(), []);
    assert_eq!(store.begin_delete_expired(at(2_000)).await.unwrap(), [pay()]);
    assert_eq!(store.begin_delete_expired(at(2_000)).await.unwrap(), [], "it has begun");
    let refused = [
        store.insert_deployment(&deployment("main", None, 1_500)).await.unwrap_err(),
        store.change_sandbox(&pay(), &Expected::ANY, Some(at(9_000)), None).await.unwrap_err(),
        store.use_sandbox(&pay(), true).await.unwrap_err(),
        store.insert_sandbox(&sandbox(), &Shape::default()).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::Deleting(_)), "{error}");
        assert_eq!(Problem::from(&error).code, ErrorCode::Conflict);
    }
    store.add_torn_down(&pay(), &"micro-92".parse().unwrap()).await.unwrap();
    store.set_problem(&pay(), Some("micro-93 is away".into())).await.unwrap();
    let record = record(&store).await;
    assert_eq!((record.torn_down.len(), record.problem.as_deref()), (1, Some("micro-93 is away")));
}

#[tokio::test]
async fn a_sandbox_sleeps_only_unused_and_wakes_by_a_deployment() {
    let (_dir, store) = store();
    store.insert_sandbox(&sandbox(), &Shape::default()).await.unwrap();
    assert_eq!(store.put_to_sleep(&pay(), Some(at(999))).await.unwrap(), None, "it was used since");
    let asleep = store.put_to_sleep(&pay(), Some(at(1_000))).await.unwrap().unwrap();
    assert_eq!(asleep.sandbox.state, SandboxState::Asleep);
    let slept = DeploymentId::new();
    store.set_slept(&pay(), vec![slept]).await.unwrap();
    store.use_sandbox(&pay(), false).await.unwrap();
    assert_eq!(record(&store).await.sandbox.state, SandboxState::Asleep, "a look wakes nobody");
    store.insert_deployment(&deployment("main", None, 1_300)).await.unwrap();
    let awake = record(&store).await;
    assert_eq!((awake.sandbox.state, awake.slept), (SandboxState::Active, vec![slept]));
}

#[tokio::test]
async fn wanted_routes_are_kept_until_they_are_given_back() {
    let (_dir, store) = store();
    store.insert_sandbox(&sandbox(), &Shape::default()).await.unwrap();
    let targets = |target: RouteTarget| BTreeMap::from([("eredar".parse().unwrap(), target)]);
    store.want_routes(&pay(), targets(RouteTarget::Sandbox)).await.unwrap();
    assert_eq!(record(&store).await.shape.routes, targets(RouteTarget::Sandbox));
    store.want_routes(&pay(), targets(RouteTarget::Ocp)).await.unwrap();
    assert_eq!(record(&store).await.shape.routes, BTreeMap::new());
    store.set_problem(&pay(), Some("held".into())).await.unwrap();
    store.set_routes_due(&pay(), true).await.unwrap();
    assert_eq!((record(&store).await.routes_due, record(&store).await.problem), (true, None));
}

#[tokio::test]
async fn environments_are_kept_and_the_default_is_there_without_being_made() {
    let (dir, store) = store();
    let default = Environment::new(EnvironmentName::default());
    assert_eq!(store.environments().await.unwrap(), std::slice::from_ref(&default));
    assert!(matches!(store.insert_environment(&default, deed()).await, Err(StoreError::Exists { .. })));
    let mut qa = Environment::new("qa".parse().unwrap());
    qa.agents.insert("micro-92".parse().unwrap());
    qa.idle_after = Some(Duration::from_secs(3600));
    qa.ports = Some("100-200".to_owned().try_into().unwrap());
    assert!(!store.replace_environment(&qa, &Expected::ANY, deed()).await.unwrap());
    store.insert_environment(&qa, deed()).await.unwrap();
    let changed = Environment { env: [("A".parse().unwrap(), "1".into())].into(), ..default.clone() };
    assert!(store.replace_environment(&changed, &Expected::ANY, deed()).await.unwrap());
    drop(store);
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    assert_eq!(store.environments().await.unwrap(), [changed, qa.clone()]);

    store.insert_sandbox(&Sandbox { environment: qa.name.clone(), ..sandbox() }, &Shape::default()).await.unwrap();
    let error = store.delete_environment(&qa.name, &Expected::ANY, deed()).await.unwrap_err();
    assert_eq!(Problem::from(&error).holder.as_deref(), Some("pay"));
    store.begin_delete(&pay()).await.unwrap();
    store.end_delete(&pay()).await.unwrap();
    assert!(store.delete_environment(&qa.name, &Expected::ANY, deed()).await.unwrap());
    assert!(!store.delete_environment(&qa.name, &Expected::ANY, deed()).await.unwrap());
    assert!(store.delete_environment(&default.name, &Expected::ANY, deed()).await.unwrap());
    assert_eq!(store.environments().await.unwrap(), [default], "back to no settings");
}

#[tokio::test]
async fn templates_are_kept_replaced_and_forgotten() {
    let (_dir, store) = store();
    let mut template = Template {
        name: "checkout".parse().unwrap(),
        owner: "ada".parse().unwrap(),
        saved_at: at(1),
        shape: Shape::default(),
        expires_in: Some(Duration::from_secs(60)),
    };
    assert!(!store.replace_template(&template, &Expected::ANY, deed()).await.unwrap());
    store.insert_template(&template, deed()).await.unwrap();
    assert!(matches!(store.insert_template(&template, deed()).await, Err(StoreError::Exists { .. })));
    template.saved_at = at(2);
    assert!(store.replace_template(&template, &Expected::ANY, deed()).await.unwrap());
    assert_eq!(store.template(&template.name).await.unwrap(), Some(template.clone()));
    assert_eq!(store.templates().await.unwrap(), std::slice::from_ref(&template));
    assert!(store.delete_template(&template.name, &Expected::ANY, deed()).await.unwrap());
    assert!(!store.delete_template(&template.name, &Expected::ANY, deed()).await.unwrap());
    let done = store.audit(&AuditFilter::default()).await.unwrap().items;
    assert_eq!(done.len(), 3, "what was not done is not written down: {done:?}");
}

#[tokio::test]
async fn sandboxes_of_the_first_schema_get_their_services_from_their_newest_deployments() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sdp.db");
    let mut connection = Connection::open(&path).unwrap();
    migrations().to_version(&mut connection, 1).unwrap();
    connection
        .execute_batch(
            "INSERT INTO sandboxes VALUES ('empty', 'default', 'ada', 1000000000, 2000000000),
                ('pay', 'default', 'ada', 1000000000, 2000000000);
            INSERT INTO deployments (id, sandbox, repo, branch, agent, state, host_port, env, user, created_at) VALUES
                ('01a00000-0000-7000-8000-000000000000', 'pay', 'old', 'main', 'm', 'stopped', 1, '{}', 'ada', 1),
                ('01a10000-0000-7000-8000-000000000000', 'pay', 'eredar', 'main', 'm', 'superseded', 1, '{}', 'ada',
                    1100000000),
                ('01a20000-0000-7000-8000-000000000000', 'pay', 'eredar', 'feature/x', 'm', 'running', 7001,
                    '{\"A\":\"1\"}', 'ada', 1200000000);",
        )
        .unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    let record = record(&store).await;
    let services = serde_json::to_value(&record.shape.services).unwrap();
    assert_eq!(services, serde_json::json!([{ "repo": "eredar", "branch": "feature/x", "env": { "A": "1" } }]));
    assert_eq!(record.sandbox, sandbox());
    assert!(record.used_at > at(2_000), "its use begins now: {}", record.used_at);
    let empty = store.sandbox_record(&"empty".parse().unwrap()).await.unwrap().unwrap();
    assert!(empty.shape == Shape::default() && empty.problem.is_none() && !empty.routes_due);
}
