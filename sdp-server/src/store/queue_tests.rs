//! The queue, deliveries and pull requests.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use sdp_core::{IntegrationName, Sandbox, SandboxState, Shape};

use super::{NewTask, PullRequestKey, Received, Store, Task};
use crate::bitbucket::{PullRequest, PullRequestState};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    (dir, store)
}

impl Store {
    async fn happenings_of(&self, kind: &'static str) -> i64 {
        let count = self.readers.read(move |connection| {
            Ok(connection.query_row("SELECT count(*) FROM happenings WHERE kind = ?1", [kind], |row| row.get(0))?)
        });
        count.await.unwrap()
    }
}

fn task(lane: &str, work: &str, once: bool) -> NewTask {
    NewTask { lane: lane.into(), work: work.into(), once }
}

async fn due(store: &Store, busy: &[&str]) -> Vec<Task> {
    let busy: BTreeSet<_> = busy.iter().map(|lane| (*lane).to_owned()).collect();
    store.due_tasks(Timestamp::now(), busy, 10).await.unwrap().0
}

fn works(tasks: &[Task]) -> Vec<&str> {
    tasks.iter().map(|task| task.work.as_str()).collect()
}

#[tokio::test]
async fn of_each_lane_the_first_is_due_until_it_is_done() {
    let (dir, store) = store();
    for (lane, work) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
        store.enqueue(task(lane, work, false)).await.unwrap();
    }
    let first = due(&store, &[]).await;
    assert_eq!(works(&first), ["a1", "b1"]);
    assert_eq!(works(&due(&store, &["b"]).await), ["a1"]);

    // One that is put off holds its lane up, also over a restart.
    assert!(store.begin_task(first[0].id).await.unwrap());
    let later = Timestamp::now().checked_add(Duration::from_secs(60)).unwrap();
    store.put_off_task(first[0].id, later, "no".into()).await.unwrap();
    drop(store);
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    let (now, next) = store.due_tasks(Timestamp::now(), BTreeSet::new(), 10).await.unwrap();
    assert_eq!(works(&now), ["b1"]);
    assert_eq!(next.map(|next| next.as_microsecond()), Some(later.as_microsecond()));
    let (then, _) = store.due_tasks(later, BTreeSet::new(), 10).await.unwrap();
    let again = then.iter().find(|task| task.work == "a1").unwrap();
    assert_eq!((again.attempts, again.problem.as_deref()), (1, Some("no")));

    store.end_task(first[0].id).await.unwrap();
    assert!(!store.begin_task(first[0].id).await.unwrap(), "it is gone");
    assert_eq!(works(&due(&store, &[]).await), ["b1", "a2"]);
}

#[tokio::test]
async fn what_waits_already_is_not_queued_again_but_for_what_was_begun() {
    let (_dir, store) = store();
    for _ in 0..3 {
        store.enqueue(task("a", "look", true)).await.unwrap();
    }
    let first = due(&store, &[]).await.remove(0);
    assert!(store.begin_task(first.id).await.unwrap());
    for _ in 0..3 {
        store.enqueue(task("a", "look", true)).await.unwrap();
    }
    store.end_task(first.id).await.unwrap();
    let second = due(&store, &[]).await.remove(0);
    store.end_task(second.id).await.unwrap();
    assert_eq!(due(&store, &[]).await, []);
}

#[tokio::test]
async fn what_happens_is_announced_once_in_its_order() {
    let (_dir, store) = store();
    let sandbox = Sandbox {
        name: "pay".parse().unwrap(),
        environment: Default::default(),
        owner: "ada".parse().unwrap(),
        shared_with: Default::default(),
        created_at: Timestamp::now(),
        expires_at: Timestamp::now().checked_add(Duration::from_secs(60)).unwrap(),
        state: SandboxState::Active,
    };
    store.insert_sandbox(&sandbox, &Shape::default()).await.unwrap();
    // A quarter of its minute is the most that is near.
    for (before, soon) in [(16, 86_400), (2, 1), (14, 86_400), (0, 86_400)] {
        let now = sandbox.expires_at.checked_sub(Duration::from_secs(before)).unwrap();
        store.announce_near_ends(now, Duration::from_secs(soon)).await.unwrap();
        let is_told = store.happenings_of("sandbox-expiring").await == 1;
        assert_eq!(is_told, before <= 14 && soon > 1, "{before} s before its end");
    }
    store.begin_delete(&sandbox.name).await.unwrap();
    assert!(store.end_delete(&sandbox.name).await.unwrap());
    let plan = |happening: &super::Happening| vec![task("told", &happening.kind, false)];
    assert!(store.announce(plan).await.unwrap());
    assert!(!store.announce(plan).await.unwrap());
    let mut told = Vec::new();
    while let Some(next) = due(&store, &[]).await.pop() {
        store.end_task(next.id).await.unwrap();
        told.push(next.work);
    }
    assert_eq!(told, ["sandbox-created", "sandbox-expiring", "sandbox-deleted"]);
}

#[tokio::test]
async fn a_pull_request_is_as_it_was_last_told_and_deliveries_are_known_again() {
    let (_dir, store) = store();
    let source: IntegrationName = "corp".parse().unwrap();
    let key = PullRequestKey { source: source.clone(), repository: "shop/eredar".into(), number: 7 };
    let told = |state, at| PullRequest {
        state,
        branch: "x".parse().unwrap(),
        commit: "0123456".into(),
        is_from_elsewhere: false,
        updated_at: Timestamp::from_second(at).unwrap(),
    };
    use PullRequestState::{Merged, Open};
    let tell = async |delivery: &str, state, at| {
        let told = Some((key.clone(), told(state, at)));
        store.receive(&source, Some(delivery.into()), told, vec![task("a", delivery, false)]).await.unwrap()
    };
    assert_eq!(tell("1", Open, 100).await, Received::Taken);
    assert_eq!(tell("1", Merged, 900).await, Received::Again);
    assert_eq!(tell("2", Merged, 300).await, Received::Taken);
    assert_eq!(tell("3", Open, 200).await, Received::Stale);
    assert_eq!(tell("4", Open, 300).await, Received::Stale, "it is closed since then");
    assert_eq!(store.pull_request(&key).await.unwrap().unwrap().told.state, Merged);
    assert_eq!(tell("5", Open, 301).await, Received::Taken, "it was opened again");
    store.forget_deliveries(Timestamp::MAX).await.unwrap();
    assert_eq!(tell("1", Open, 302).await, Received::Taken);

    store.set_pull_request_done(&key, Some("pr-eredar-7".parse().unwrap()), None, None).await.unwrap();
    assert_eq!(store.pull_request_of(&"pr-eredar-7".parse().unwrap()).await.unwrap(), Some(key.clone()));
    assert_eq!(tell("6", Open, 400).await, Received::Taken);
    let kept = store.pull_request(&key).await.unwrap().unwrap();
    assert_eq!(kept.sandbox.map(|name| name.to_string()).as_deref(), Some("pr-eredar-7"), "what was done stays");
}
