//! Every migration on a database with data of the version before it.

use rusqlite::Connection;

use super::{Store, migrations, tests::agent};

/// What a server of the first version leaves.
const FIRST: &str = "
    INSERT INTO sandboxes VALUES ('pay', 'default', 'ada', 1000, 9000000000000000);
    INSERT INTO agents VALUES ('micro-92', zeroblob(32), NULL, NULL);
    INSERT INTO deployments (id, sandbox, repo, branch, agent, state, host_port, url, env, user, created_at) VALUES
        ('0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e51', 'pay', 'eredar', 'main', 'micro-92', 'superseded', 9000, 'u', '{}', 'ada', 2000),
        ('0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e52', 'pay', 'eredar', 'main', 'micro-92', 'running', 9001, 'u', '{}', 'ada', 3000),
        ('0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e53', 'gone', 'eredar', 'main', 'micro-92', 'stopped', 9002, 'u', '{}', 'ada', 3000),
        ('0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e54', NULL, 'illidan', 'main', 'micro-92', 'queued', 9003, NULL, '{}', 'bob', 4000),
        ('0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55', NULL, 'thrall', 'main', 'micro-92', 'stopped', 9004, 'u', '{}', 'bob', 4000);
";

/// A database of the first version, with data, brought up to date.
fn upgraded() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sdp.db");
    let mut connection = Connection::open(&path).unwrap();
    migrations().to_version(&mut connection, 1).unwrap();
    connection.execute_batch(FIRST).unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    (dir, store)
}

#[tokio::test]
async fn sandboxes_of_before_have_keys_after_the_upgrade_and_keep_them() {
    let (dir, store) = upgraded();
    let pay = "pay".parse().unwrap();
    let key = store.sandbox_key(&pay).await.unwrap().unwrap();
    assert_eq!(key.sandbox(), pay);
    drop(store);
    let store = Store::open(&dir.path().join("sdp.db")).unwrap();
    assert_eq!(store.sandbox_keys().await.unwrap(), [(pay, key)].into());
}

#[tokio::test]
async fn people_who_signed_in_before_are_known_after_the_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sdp.db");
    let mut connection = Connection::open(&path).unwrap();
    migrations().to_version(&mut connection, 6).unwrap();
    let rows = "INSERT INTO audit (at, user, action, subject) VALUES (1000, 'ada', 'sign-in', 'users/ada'),
        (2000, 'ada', 'sign-in', 'users/ada'), (3000, 'bob', 'deploy', 'repos/eredar');";
    connection.execute_batch(rows).unwrap();
    drop(connection);
    let users = Store::open(&path).unwrap().users().await.unwrap();
    let known: Vec<_> =
        users.iter().map(|user| (user.name.as_str(), user.role, user.first_seen, user.last_seen)).collect();
    let at = |micros| jiff::Timestamp::from_microsecond(micros).unwrap();
    assert_eq!(known, [("ada", None, at(1000), at(2000))]);
}

#[tokio::test]
async fn ports_in_use_are_held_after_the_upgrade() {
    let (_dir, store) = upgraded();
    let micro = agent("micro-92");
    let mut held = Vec::new();
    for port in 9000..9005 {
        let holder = store.port_holder(&micro, port.try_into().unwrap()).await.unwrap();
        held.extend(holder.map(|holder| format!("{port} {holder}")));
    }
    assert_eq!(
        held,
        [
            "9001 repo eredar in sandbox pay of ada (deployment 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e52)",
            "9003 the quick deploy of repo illidan of bob (deployment 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e54)",
            "9004 the quick deploy of repo thrall of bob (deployment 0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55)",
        ]
    );
    let id = |text: &str| text.parse().unwrap();
    let asked_for = store.chosen_port(id("0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e54")).await.unwrap();
    assert_eq!(asked_for.map(|port| port.get()), Some(9003));
    assert_eq!(store.chosen_port(id("0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e52")).await.unwrap(), None, "nobody knows");
    assert_eq!(store.reconcile_ports().await.unwrap(), 0);
}

/// The copies in `backups/`, oldest first.
fn copies(dir: &tempfile::TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir.path().join("backups"));
    let mut copies: Vec<_> = entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    copies.sort();
    copies
}

#[tokio::test]
async fn the_database_is_copied_as_it_was_before_it_is_upgraded_and_only_then() {
    let (dir, store) = upgraded();
    drop(store);
    let copy = match &copies(&dir)[..] {
        [copy] => copy.clone(),
        other => panic!("{other:?}"),
    };
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let copied = Connection::open(&copy).unwrap();
    let version: u32 = copied.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let deployments: u32 = copied.query_row("SELECT count(*) FROM deployments", [], |row| row.get(0)).unwrap();
    assert_eq!((version, deployments), (1, 5));
    drop(copied);

    drop(Store::open(&dir.path().join("sdp.db")).unwrap());
    assert_eq!(copies(&dir), [copy], "there was nothing to upgrade");
    let new = tempfile::tempdir().unwrap();
    drop(Store::open(&new.path().join("sdp.db")).unwrap());
    assert_eq!(copies(&new), Vec::<std::path::PathBuf>::new(), "there was nothing to copy");
}

#[tokio::test]
async fn only_the_last_copies_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let upgrade = |user: &str| {
        let path = dir.path().join("sdp.db");
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(dir.path().join(format!("sdp.db{suffix}"))).ok();
        }
        let mut connection = Connection::open(&path).unwrap();
        migrations().to_version(&mut connection, 1).unwrap();
        connection.execute("INSERT INTO sandboxes VALUES ('pay', 'default', ?1, 1000, 9000)", [user]).unwrap();
        drop(connection);
        drop(Store::open(&path).unwrap());
    };
    std::fs::create_dir(dir.path().join("backups")).unwrap();
    std::fs::write(dir.path().join("backups/sdp-20200101T000000.000000Z-schema-1.db.partial"), "torn").unwrap();
    std::fs::write(dir.path().join("backups/kept.db"), "somebody's own").unwrap();
    ["ada", "bob", "cyd", "dan"].into_iter().for_each(upgrade);
    let mut copies = copies(&dir);
    assert!(copies.remove(0).ends_with("kept.db"));
    let owner = |copy: &std::path::PathBuf| -> String {
        Connection::open(copy).unwrap().query_row("SELECT owner FROM sandboxes", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(copies.iter().map(owner).collect::<Vec<_>>(), ["bob", "cyd", "dan"]);
}

#[tokio::test]
async fn a_database_that_cannot_be_copied_is_not_upgraded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sdp.db");
    let mut connection = Connection::open(&path).unwrap();
    migrations().to_version(&mut connection, 1).unwrap();
    std::fs::write(dir.path().join("backups"), "in the way").unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.starts_with("failed to copy the database to") && error.contains("before the upgrade"), "{error}");
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}
