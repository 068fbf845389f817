use proptest::prelude::*;
use sdp_core::{
    Deployment, DeploymentState as S, ErrorCode, EventKind, HostPort, InstanceKey, PortRange, Problem, Sandbox,
};

use super::{
    PortChoice, Store, StoreError,
    tests::{agent, at, event, pay, queued, store},
};

fn port(port: u16) -> HostPort {
    HostPort::new(port).unwrap()
}

fn quick(repo: &str) -> InstanceKey {
    InstanceKey::quick(repo.parse().unwrap())
}

fn range() -> PortRange {
    PortRange(9000..=9002)
}

fn picked() -> PortChoice {
    PortChoice::Picked { range: range(), anew: false }
}

async fn make_pay(store: &Store) {
    let environment = "default".parse().unwrap();
    let owner = "grace".parse().unwrap();
    let (created_at, expires_at, state) = (at(1), at(9_000), sdp_core::SandboxState::Active);
    let shared_with = Default::default();
    let sandbox = Sandbox { name: pay(), environment, owner, shared_with, created_at, expires_at, state };
    store.insert_sandbox(&sandbox, &sdp_core::Shape::default()).await.unwrap();
}

/// A deployment that was kept with the port reserved for it.
async fn kept(store: &Store, key: InstanceKey, choice: PortChoice) -> (Deployment, HostPort) {
    let mut deployment = queued(key);
    if let PortChoice::Chosen(port) = choice {
        deployment.host_port = Some(port);
    }
    let port = store.insert_deployment_with_port(&deployment, choice).await.unwrap().unwrap();
    (deployment, port)
}

/// Tells what an agent tells of a deployment that comes to run on `port`.
async fn runs(store: &Store, deployment: &Deployment, port: HostPort) {
    let url = format!("http://127.0.0.1:{port}");
    let mut kinds: Vec<_> = [S::Source, S::Build, S::Start].map(EventKind::state).into();
    kinds.push(EventKind::Endpoint { host_port: port, url, instance: "c".into() });
    kinds.extend([S::Health, S::Routes, S::Running].map(EventKind::state));
    let events: Vec<_> = (1..).zip(kinds).map(|(seq, kind)| event(seq, kind)).collect();
    store.fold_events(deployment.id, &events).await.unwrap();
}

async fn holder(store: &Store, port: HostPort) -> Option<String> {
    store.port_holder(&agent("micro-92"), port).await.unwrap().map(|holder| holder.key.to_string())
}

#[tokio::test]
async fn a_taken_port_is_refused_with_its_holder_and_nothing_is_kept() {
    let (_dir, store) = store();
    make_pay(&store).await;
    let key = InstanceKey::in_sandbox(pay(), "eredar".parse().unwrap());
    let (first, _) = kept(&store, key, PortChoice::Chosen(port(9001))).await;
    let second = queued(quick("eredar"));
    let refused = store.insert_deployment_with_port(&second, PortChoice::Chosen(port(9001))).await.unwrap_err();
    let problem = Problem::from(&refused);
    assert_eq!((problem.status, problem.code), (409, ErrorCode::PortTaken));
    assert_eq!((problem.field.as_deref(), problem.holder.as_deref()), (Some("host_port"), Some("pay/eredar")));
    for word in ["9001", "sandbox pay", "repo eredar", "grace", &first.id.to_string()] {
        assert!(problem.detail.contains(word), "{word}: {}", problem.detail);
    }
    assert_eq!(store.deployment(second.id).await.unwrap(), None);
    // Another agent has ports of its own.
    let elsewhere = Deployment { agent: agent("other"), ..second };
    store.insert_deployment_with_port(&elsewhere, PortChoice::Chosen(port(9001))).await.unwrap();
}

#[tokio::test]
async fn ports_are_picked_from_the_range_until_it_is_used_up() {
    let (_dir, store) = store();
    let mut ports = Vec::new();
    for repo in ["a", "b", "c"] {
        ports.push(kept(&store, quick(repo), picked()).await.1.get());
    }
    assert_eq!(ports, [9000, 9001, 9002]);
    let refused = store.insert_deployment_with_port(&queued(quick("d")), picked()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NoFreePort { .. }), "{refused}");
    assert_eq!(kept(&store, quick("b"), picked()).await.1, port(9001), "the same key has its port already");
}

#[tokio::test]
async fn a_redeploy_keeps_its_port_and_frees_it_only_when_nothing_answers_there() {
    let (_dir, store) = store();
    let (first, nine) = kept(&store, quick("a"), picked()).await;
    runs(&store, &first, nine).await;
    let (second, same) = kept(&store, quick("a"), picked()).await;
    assert_eq!(same, nine);
    store.set_state(second.id, S::Failed, None).await.unwrap();
    assert_eq!(holder(&store, nine).await.as_deref(), Some("a"), "the first still runs");

    let (third, other) = kept(&store, quick("a"), PortChoice::Chosen(port(9002))).await;
    runs(&store, &third, other).await;
    assert_eq!(holder(&store, nine).await, None, "the first is superseded");
    store.set_state(third.id, S::Stopped, None).await.unwrap();
    assert_eq!(holder(&store, other).await.as_deref(), Some("a"), "it can be started again");
    store.set_state(third.id, S::Running, None).await.unwrap();

    // While one is on its way, the port that it was given is not given away.
    let (fourth, again) = kept(&store, quick("a"), picked()).await;
    store.set_state(third.id, S::Failed, None).await.unwrap();
    assert_eq!((again, holder(&store, again).await.as_deref()), (other, Some("a")));
    store.set_state(fourth.id, S::Cancelled, None).await.unwrap();
    assert_eq!(holder(&store, again).await, None);
}

#[tokio::test]
async fn what_the_agent_bound_counts_and_a_sandbox_takes_its_ports_with_it() {
    let (_dir, store) = store();
    make_pay(&store).await;
    let (deployment, reserved) =
        kept(&store, InstanceKey::in_sandbox(pay(), "eredar".parse().unwrap()), picked()).await;
    runs(&store, &deployment, port(9002)).await;
    assert_eq!(holder(&store, reserved).await, None, "a stranger had it");
    assert_eq!(holder(&store, port(9002)).await.as_deref(), Some("pay/eredar"));
    store.set_state(deployment.id, S::Stopped, None).await.unwrap();
    store.begin_delete(&pay()).await.unwrap();
    store.end_delete(&pay()).await.unwrap();
    assert_eq!(holder(&store, port(9002)).await, None);
    assert_eq!(store.reconcile_ports().await.unwrap(), 0, "and does not come back");
}

#[tokio::test]
async fn reconciling_frees_what_nobody_may_use_and_gives_back_what_somebody_does() {
    let (_dir, store) = store();
    let (deployment, reserved) = kept(&store, quick("a"), picked()).await;
    runs(&store, &deployment, reserved).await;
    let (waiting, _) = kept(&store, quick("b"), picked()).await;
    assert_eq!(store.reconcile_ports().await.unwrap(), 0, "all is well, also for the one that waits");
    let broken = |connection: &rusqlite::Connection| -> Result<(), StoreError> {
        connection.execute("DELETE FROM ports WHERE repo = 'a'", [])?;
        connection.execute("INSERT INTO ports VALUES ('micro-92', 9002, NULL, 'gone', 'x')", [])?;
        Ok(())
    };
    store.writer.write(broken).await.unwrap();
    assert_eq!(store.reconcile_ports().await.unwrap(), 2);
    assert_eq!(holder(&store, reserved).await.as_deref(), Some("a"));
    assert_eq!(holder(&store, port(9002)).await, None);
    assert_eq!(holder(&store, port(9001)).await.as_deref(), Some("b"));
    store.set_state(waiting.id, S::Failed, None).await.unwrap();
    assert_eq!(holder(&store, port(9001)).await, None);
}

#[tokio::test]
async fn a_port_that_was_asked_for_is_remembered_and_a_picked_one_is_not() {
    let (_dir, store) = store();
    let (chosen, nine) = kept(&store, quick("a"), PortChoice::Chosen(port(9000))).await;
    let (free, reserved) = kept(&store, quick("b"), picked()).await;
    for (deployment, port) in [(&chosen, nine), (&free, reserved)] {
        runs(&store, deployment, port).await;
    }
    assert_eq!(store.chosen_port(chosen.id).await.unwrap(), Some(nine));
    assert_eq!(store.chosen_port(free.id).await.unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// Whatever happens to deployments of three keys, the ports that one may answer on are held for it, and others
    /// at most while their key has a deployment on its way whose port is not certain yet.
    #[test]
    fn ports_held_are_ports_in_use(steps in proptest::collection::vec((0_usize..3, 0_u8..6, 0_u16..4), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, store) = store();
            let mut made: Vec<(Deployment, HostPort)> = Vec::new();
            for (key, step, number) in steps {
                let key = quick(["a", "b", "c"][key]);
                let choice = if number == 3 { picked() } else { PortChoice::Chosen(port(9000 + number)) };
                let last = made.iter().rev().find(|(deployment, _)| deployment.key == key).cloned();
                match (step, last) {
                    (0 | 1, _) | (_, None) => {
                        let mut deployment = queued(key);
                        if let PortChoice::Chosen(port) = choice {
                            deployment.host_port = Some(port);
                        }
                        if let Ok(port) = store.insert_deployment_with_port(&deployment, choice).await {
                            made.push((deployment, port.unwrap()));
                        }
                    }
                    (2 | 3, Some((deployment, port))) => runs(&store, &deployment, port).await,
                    (4, Some((deployment, _))) => drop(store.set_state(deployment.id, S::Failed, None).await),
                    (_, Some((deployment, _))) => drop(store.set_state(deployment.id, S::Stopped, None).await),
                }
                let (mut used, mut uncertain) = (std::collections::BTreeMap::new(), Vec::new());
                for (deployment, reserved) in &made {
                    let now = store.deployment(deployment.id).await.unwrap().unwrap();
                    if now.state.is_active() && now.host_port.is_none() {
                        uncertain.push(now.key.to_string());
                    }
                    if !now.state.is_final() {
                        let port = now.host_port.unwrap_or(*reserved);
                        let before = used.insert(port, now.key.clone());
                        assert!(before.is_none_or(|key| key == now.key), "{port} is given to two");
                    }
                }
                for number in 9000..=9002 {
                    let held = holder(&store, port(number)).await;
                    match used.get(&port(number)) {
                        Some(key) => assert_eq!(held, Some(key.to_string()), "{number}"),
                        None => assert!(held.as_ref().is_none_or(|key| uncertain.contains(key)), "{number}: {held:?}"),
                    }
                }
                assert_eq!(store.reconcile_ports().await.unwrap(), 0);
            }
        });
    }
}
