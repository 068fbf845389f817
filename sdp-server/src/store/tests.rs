use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use jiff::Timestamp;
use proptest::prelude::*;
use sdp_core::{
    AgentName, BranchName, CommitId, Deployment, DeploymentId, DeploymentState as S, EnvName, ErrorCode, Event,
    EventKind, Failure, HostPort, InstanceKey, Inventory, Problem, RepoName, SandboxName, Stage, StageRecord,
    StageStatus, UserName, api::DeploymentFilter,
};
use tempfile::TempDir;

use super::*;

pub(super) fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    (dir, store)
}

pub(super) fn at(second: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

pub(super) fn agent(name: &str) -> AgentName {
    AgentName::new(name).unwrap()
}

pub(super) fn pay() -> SandboxName {
    SandboxName::new("pay").unwrap()
}

pub(crate) fn queued(key: InstanceKey) -> Deployment {
    Deployment {
        id: DeploymentId::new(),
        key,
        branch: BranchName::new("main").unwrap(),
        commit: None,
        agent: agent("micro-92"),
        state: S::Queued,
        failure: None,
        host_port: None,
        url: None,
        env: BTreeMap::from([(EnvName::new("A").unwrap(), "1 ç \"".to_owned())]),
        user: UserName::new("ada").unwrap(),
        created_at: at(1_000),
        finished_at: None,
        rollback_of: None,
        stages: Vec::new(),
    }
}

pub(crate) fn eredar() -> InstanceKey {
    InstanceKey::in_sandbox(pay(), RepoName::new("eredar").unwrap())
}

pub(super) fn event(seq: u64, kind: EventKind) -> Event {
    Event { seq, at: at(2_000 + seq), kind }
}

/// Everything a pipeline tells on its way to `running`.
pub(super) fn to_running() -> Vec<Event> {
    let mut kinds = vec![EventKind::state(S::Queued)];
    for stage in Stage::ALL {
        kinds.push(EventKind::state(stage.into()));
        kinds.push(EventKind::Stage { stage, status: StageStatus::Started });
        kinds.push(EventKind::note(stage, "working"));
        kinds.push(EventKind::Stage { stage, status: StageStatus::Done });
    }
    kinds.push(EventKind::state(S::Running));
    (1..).zip(kinds).map(|(seq, kind)| event(seq, kind)).collect()
}

#[test]
fn migrations_are_valid() {
    migrations().validate().unwrap();
}

#[tokio::test]
async fn a_deployment_reads_back_as_it_was_kept_also_after_a_restart() {
    let (dir, store) = store();
    let mut deployment = queued(eredar());
    deployment.commit = Some(CommitId::new("0123456789abcdef0123456789abcdef01234567").unwrap());
    deployment.host_port = Some(HostPort::new(9001).unwrap());
    deployment.url = Some("http://127.0.0.1:9001".into());
    deployment.state = S::Failed;
    deployment.finished_at = Some(at(3_000));
    deployment.rollback_of = Some(DeploymentId::new());
    deployment.failure = Some(Failure {
        stage: Some(Stage::Build),
        code: ErrorCode::BuildFailed,
        reason: "it's broken".into(),
        previous_restored: Some(true),
    });
    deployment.stages = vec![StageRecord {
        stage: Stage::Source,
        status: StageStatus::Done,
        started_at: at(1_001),
        ended_at: Some(at(1_002)),
    }];
    store.insert_deployment(&deployment).await.unwrap();
    let error = store.insert_deployment(&deployment).await.unwrap_err();
    assert_eq!(Problem::from(&error).code, ErrorCode::Conflict);
    drop(store);
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    assert_eq!(store.deployment(deployment.id).await.unwrap(), Some(deployment));
    assert_eq!(store.deployment(DeploymentId::new()).await.unwrap(), None);
}

#[tokio::test]
async fn pages_go_from_the_newest_to_the_oldest_and_filter() {
    let (_dir, store) = store();
    let mut all = Vec::new();
    for n in 0..7 {
        let key = if n % 2 == 0 { eredar() } else { InstanceKey::quick(RepoName::new("harald").unwrap()) };
        let deployment = queued(key);
        store.insert_deployment(&deployment).await.unwrap();
        all.insert(0, deployment);
    }
    let mut filter = DeploymentFilter { limit: Some(3), ..DeploymentFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.deployments(&filter).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items);
        let Some(next) = page.next else { break };
        filter.before = Some(next.parse().unwrap());
    }
    assert_eq!(seen, all);
    let only = |filter: DeploymentFilter| {
        let store = store.clone();
        async move { store.deployments(&filter).await.unwrap().items.len() }
    };
    assert_eq!(only(DeploymentFilter { sandbox: Some(pay()), ..Default::default() }).await, 4);
    assert_eq!(only(DeploymentFilter { repo: Some(RepoName::new("harald").unwrap()), ..Default::default() }).await, 3);
    assert_eq!(only(DeploymentFilter { user: Some(UserName::new("eve").unwrap()), ..Default::default() }).await, 0);
    assert_eq!(only(DeploymentFilter { state: Some(S::Queued), limit: Some(0), ..Default::default() }).await, 1);
}

#[tokio::test]
async fn a_pipelines_events_make_the_row_and_supersede_what_ran() {
    let (_dir, store) = store();
    let (old, new, elsewhere) = (queued(eredar()), queued(eredar()), queued(InstanceKey::quick(eredar().repo)));
    for deployment in [&old, &elsewhere, &new] {
        store.insert_deployment(deployment).await.unwrap();
    }
    assert_eq!(store.active_deployments(None).await.unwrap().len(), 3);
    for deployment in [&old, &elsewhere] {
        let changed = store.fold_events(deployment.id, &to_running()).await.unwrap();
        assert_eq!(changed.len(), 1);
    }
    assert_eq!(store.running(&eredar()).await.unwrap().unwrap().id, old.id);
    let changed = store.fold_events(new.id, &to_running()).await.unwrap();
    let states: Vec<_> = changed.iter().map(|deployment| (deployment.id, deployment.state)).collect();
    assert_eq!(states, [(new.id, S::Running), (old.id, S::Superseded)]);
    assert_eq!(changed[0].stages.len(), 5);
    assert_eq!(changed[0].finished_at, Some(at(2_022)));
    assert_eq!(store.folded_seq(new.id).await.unwrap(), 22);
    assert!(store.fold_events(new.id, &to_running()).await.unwrap().is_empty(), "again changes nothing");
    assert_eq!(store.running(&eredar()).await.unwrap().unwrap().id, new.id);
    assert!(store.active_deployments(Some(&agent("micro-92"))).await.unwrap().is_empty());
}

#[tokio::test]
async fn commit_and_endpoint_come_from_events_and_log_lines_cost_no_write() {
    let (_dir, store) = store();
    let deployment = queued(eredar());
    store.insert_deployment(&deployment).await.unwrap();
    let commit = CommitId::new("0123456789abcdef0123456789abcdef01234567").unwrap();
    let host_port = HostPort::new(9002).unwrap();
    let events = [
        event(1, EventKind::note(Stage::Source, "hello")),
        event(2, EventKind::Source { branch: deployment.branch.clone(), commit: commit.clone() }),
        event(3, EventKind::Endpoint { host_port, url: "http://h:9002".into(), instance: "sdp-pay-eredar".into() }),
    ];
    assert!(store.fold_events(deployment.id, &events[..1]).await.unwrap().is_empty());
    assert_eq!(store.folded_seq(deployment.id).await.unwrap(), 0);
    let changed = store.fold_events(deployment.id, &events).await.unwrap();
    assert_eq!((&changed[0].commit, changed[0].host_port), (&Some(commit), Some(host_port)));
    assert_eq!(changed[0].url.as_deref(), Some("http://h:9002"));
    let unknown = store.fold_events(DeploymentId::new(), &events).await.unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn the_previous_good_one_ran_in_the_same_place() {
    let (_dir, store) = store();
    let commit = CommitId::new("0123456789abcdef0123456789abcdef01234567").unwrap();
    let kept = async |change: &dyn Fn(&mut Deployment)| {
        let mut deployment = queued(eredar());
        (deployment.state, deployment.commit) = (S::Superseded, Some(commit.clone()));
        change(&mut deployment);
        store.insert_deployment(&deployment).await.unwrap();
        deployment
    };
    let long_ago = kept(&|it| it.created_at = at(10)).await;
    let other = CommitId::new("89abcdef0123456789abcdef0123456789abcdef").unwrap();
    let good = kept(&|it| it.commit = Some(other.clone())).await;
    // The same as what runs, which was left as it was: nothing to go back to.
    kept(&|_| ()).await;
    kept(&|it| it.state = S::Failed).await;
    kept(&|it| it.commit = None).await;
    kept(&|it| it.agent = agent("elsewhere")).await;
    kept(&|it| it.key = InstanceKey::quick(it.key.repo.clone())).await;
    let present = kept(&|it| it.state = S::Running).await;
    kept(&|_| ()).await;
    let before = async |deployment, since| store.previous_good(deployment, at(since)).await.unwrap().map(|it| it.id);
    assert_eq!(before(&present, 0).await, Some(good.id));
    assert_eq!(before(&good, 0).await, Some(long_ago.id));
    assert_eq!(before(&good, 11).await, None, "of an earlier sandbox");
    assert_eq!(before(&long_ago, 0).await, None);
}

#[test]
fn what_an_older_version_kept_is_read_after_the_upgrade() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sdp.db");
    let mut connection = rusqlite::Connection::open(&path).unwrap();
    migrations().to_version(&mut connection, 1).unwrap();
    let id = DeploymentId::new();
    let insert = "INSERT INTO deployments (id, repo, branch, agent, state, env, user, created_at)
        VALUES (?1, 'eredar', 'main', 'micro-92', 'running', '{}', 'ada', 1000000)";
    connection.execute(insert, [id.to_string()]).unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let deployment = runtime.block_on(store.deployment(id)).unwrap().unwrap();
    assert_eq!((deployment.state, deployment.rollback_of), (S::Running, None));
}

#[tokio::test]
async fn set_state_allows_only_legal_moves() {
    let (_dir, store) = store();
    let deployment = queued(eredar());
    store.insert_deployment(&deployment).await.unwrap();
    let illegal = store.set_state(deployment.id, S::Stopped, None).await.unwrap_err();
    assert!(matches!(illegal, StoreError::Illegal { from: S::Queued, to: S::Stopped, .. }));
    let cancelled = store.set_state(deployment.id, S::Cancelled, None).await.unwrap().unwrap();
    assert!(cancelled.state == S::Cancelled && cancelled.finished_at.is_some());
    assert_eq!(store.set_state(deployment.id, S::Cancelled, None).await.unwrap(), Some(cancelled));
    assert_eq!(store.set_state(DeploymentId::new(), S::Failed, None).await.unwrap(), None);
}

#[tokio::test]
async fn agents_are_enrolled_seen_and_revoked() {
    let (_dir, store) = store();
    let name = agent("micro-92");
    store.add_agent(&name, [7; 32]).await.unwrap();
    assert!(matches!(store.add_agent(&name, [8; 32]).await, Err(StoreError::Exists { .. })));
    assert_eq!(store.agent_token_hash(&name).await.unwrap(), Some([7; 32]));
    assert_eq!(store.agents().await.unwrap(), [(name.clone(), None, None)]);
    let inventory = Inventory {
        version: "0.1.0".into(),
        advertise: "127.0.0.1".into(),
        deployer: "docker".into(),
        repos: Vec::new(),
        port_range: None,
        gateway: None,
        exact_commits: false,
        serves_beside: false,
        exec: None,
    };
    store.agent_seen(&name, at(5), Some(&inventory)).await.unwrap();
    store.agent_seen(&name, at(6), None).await.unwrap();
    assert_eq!(store.agents().await.unwrap(), [(name.clone(), Some(at(6)), Some(inventory))]);
    let known = HashSet::from([name.clone()]);
    assert_eq!(store.agents_but(known).await.unwrap(), [(name.clone(), Some(at(6)), None)]);
    assert!(store.remove_agent(&name).await.unwrap());
    store.agent_seen(&name, at(7), None).await.unwrap();
    assert!(store.agents().await.unwrap().is_empty() && !store.remove_agent(&name).await.unwrap());
}

#[tokio::test]
async fn a_write_that_fails_does_not_undo_those_committed_with_it() {
    let (_dir, store) = store();
    let tasks: Vec<_> = (0..200_u8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.add_agent(&agent(&format!("a-{}", n / 2)), [n; 32]).await.is_ok() })
        })
        .collect();
    let mut kept = 0;
    for task in tasks {
        kept += usize::from(task.await.unwrap());
    }
    assert_eq!((kept, store.agents().await.unwrap().len()), (100, 100));
}

#[tokio::test]
async fn a_half_done_write_that_fails_leaves_nothing() {
    let (_dir, store) = store();
    let result: Result<(), _> = store
        .writer
        .write(|connection| {
            connection.execute("INSERT INTO agents (name, token_hash) VALUES ('x', zeroblob(32))", [])?;
            Err(StoreError::Closed)
        })
        .await;
    assert!(result.is_err());
    assert!(store.agents().await.unwrap().is_empty());
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let (dir, store) = store();
    drop(store);
    let path = dir.path().join("sdp.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer(_)), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sdp.db");
    fs::write(&path, "This is not a database. ".repeat(100)).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(matches!(Store::open(&dir.path().join("no/such/dir.db")), Err(StoreError::Open { .. })));
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let (dir, store) = store();
    for n in 0..200_u8 {
        store.add_agent(&agent(&format!("a-{n}")), [n; 32]).await.unwrap();
    }
    drop(store);
    let path = dir.path().join("copy.db");
    let source = rusqlite::Connection::open(dir.path().join("sdp.db")).unwrap();
    source.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let second_page = 4096;
    bytes[second_page..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

/// A second, simpler account of what events mean.
#[derive(Default)]
struct Model {
    state: Option<S>,
    stages: BTreeMap<Stage, StageStatus>,
    last: u64,
}

fn any_kind() -> impl Strategy<Value = EventKind> {
    let stages = proptest::sample::select(Stage::ALL.to_vec());
    let status = proptest::sample::select(vec![StageStatus::Started, StageStatus::Done, StageStatus::Failed]);
    prop_oneof![
        4 => proptest::sample::select(S::ALL.to_vec()).prop_map(EventKind::state),
        2 => (stages, status).prop_map(|(stage, status)| EventKind::Stage { stage, status }),
        1 => Just(EventKind::note(Stage::Build, "line")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn folding_agrees_with_the_model_whatever_is_repeated(
        kinds in proptest::collection::vec(any_kind(), 1..40),
        on_the_way in any::<bool>(),
        calls in proptest::collection::vec((0_usize..40, 1_usize..10), 1..20),
    ) {
        let head = if on_the_way { to_running() } else { Vec::new() };
        let kinds = head.into_iter().map(|event| event.kind).chain(kinds);
        let events: Vec<_> = (1..).zip(kinds).map(|(seq, kind)| event(seq, kind)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (model, folded) = runtime.block_on(async {
            let (_dir, store) = store();
            let deployment = queued(eredar());
            store.insert_deployment(&deployment).await.unwrap();
            let mut model = Model { state: Some(S::Queued), ..Model::default() };
            // Repeats from anywhere before, never leaving one out; the rest comes last.
            let mut reached = 0;
            for (back, count) in calls.into_iter().chain([(0, events.len())]) {
                let first = reached - back.min(reached);
                let until = (first + count).min(events.len()).max(first);
                store.fold_events(deployment.id, &events[first..until]).await.unwrap();
                reached = reached.max(until);
            }
            for event in &events {
                match &event.kind {
                    EventKind::State { state, .. } if model.state.is_some_and(|from| from.can_become(*state)) => {
                        model.state = Some(*state);
                    }
                    EventKind::Stage { stage, status } => {
                        model.stages.insert(*stage, *status);
                    }
                    _ => {}
                }
                if !matches!(event.kind, EventKind::Log { .. }) {
                    model.last = event.seq;
                }
            }
            let stored = store.deployment(deployment.id).await.unwrap().unwrap();
            let folded = store.folded_seq(deployment.id).await.unwrap();
            (model, (stored, folded))
        });
        let (stored, last) = folded;
        prop_assert_eq!(Some(stored.state), model.state);
        prop_assert_eq!(stored.finished_at.is_none(), stored.state.is_active());
        let stages: BTreeMap<_, _> = stored.stages.iter().map(|record| (record.stage, record.status)).collect();
        prop_assert_eq!(stages, model.stages);
        prop_assert_eq!(last, model.last);
    }
}
