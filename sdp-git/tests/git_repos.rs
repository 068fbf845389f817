//! The adapter against a real git host with real authentication.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sdp_core::{
    BranchName, Checkout, CommitId, Credentials, InstanceKey, RepoError, RepoSource, RepoSpec,
    problem::chain,
    testing::{
        MemorySink,
        conformance::repos::{RemoteFixture, suite},
    },
};
use sdp_git::{
    GitConfig, GitRepos,
    testing::{GitHost, Mood},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "c0rrect-h0rse/battery+staple";

struct World {
    host: GitHost,
    repos: GitRepos,
    dir: TempDir,
}

fn spec(name: &str, path: PathBuf, remote: String) -> RepoSpec {
    serde_json::from_value(serde_json::json!({"name": name, "path": path, "remote": remote, "recipe": "go"})).unwrap()
}

async fn world(password: &str) -> World {
    let host = GitHost::start(&[("ada", password)]).await.unwrap();
    host.create_repo("eredar").await.unwrap();
    let dir = TempDir::new().unwrap();
    let repo = spec("eredar", dir.path().join("eredar"), host.url("eredar"));
    let repos = GitRepos::new(GitConfig::new(vec![repo], dir.path().join("worktrees"))).unwrap();
    World { host, repos, dir }
}

fn ada() -> Credentials {
    Credentials::new("ada".parse().unwrap(), PASSWORD.into())
}

fn quick() -> InstanceKey {
    InstanceKey::quick("eredar".parse().unwrap())
}

fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

impl World {
    async fn commit(&self, branch: &str, parent: Option<&str>, files: &[(&str, &str)]) -> CommitId {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        self.host.commit("eredar", branch, parent, &files, "a commit").await.unwrap()
    }

    async fn try_prepare(&self, key: &InstanceKey, name: &str) -> Result<Checkout, RepoError> {
        let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
        let prepared = self.repos.prepare(key, &branch(name), Some(&ada()), &sink, &cancel).await;
        let told = format!("{:?} {prepared:?}", sink.lines());
        assert!(!told.contains(PASSWORD), "{told}");
        prepared
    }

    async fn prepare(&self, name: &str) -> Checkout {
        self.try_prepare(&quick(), name).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("eredar")
    }
}

/// Something that happens to a checkout.
type Harm<'a> = (&'static str, Box<dyn Fn() + 'a>);

struct Fixture(World);

#[async_trait]
impl RemoteFixture for Fixture {
    fn source(&self) -> &dyn RepoSource {
        &self.0.repos
    }

    async fn push(&self, _repo: &str, branch: &str, files: &[(&str, &str)]) -> CommitId {
        // History that starts again: a force push as far as a checkout can tell.
        self.0.commit(branch, None, files).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_keeps_the_contract() {
    suite(&Fixture(world("right").await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happened_to_the_checkout_the_next_prepare_heals_it() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one"), ("b/c.txt", "c")]).await;
    let good = world.prepare("main").await;
    let path = world.path();
    let git = path.join(".git");
    let harms: Vec<Harm<'_>> = vec![
        ("a stale index lock", Box::new(|| fs::write(git.join("index.lock"), "").unwrap())),
        ("a broken index", Box::new(|| fs::write(git.join("index"), "nonsense").unwrap())),
        ("no index", Box::new(|| fs::remove_file(git.join("index")).unwrap())),
        (
            "an unfinished merge",
            Box::new(|| fs::write(git.join("MERGE_HEAD"), format!("{}\n", "0".repeat(40))).unwrap()),
        ),
        ("a broken HEAD", Box::new(|| fs::write(git.join("HEAD"), "garbage\n").unwrap())),
        ("no HEAD", Box::new(|| fs::remove_file(git.join("HEAD")).unwrap())),
        ("no objects", Box::new(|| fs::remove_dir_all(git.join("objects")).unwrap())),
        (
            "empty objects",
            Box::new(|| {
                fs::remove_dir_all(git.join("objects")).unwrap();
                fs::create_dir_all(git.join("objects")).unwrap();
            }),
        ),
        ("a broken config", Box::new(|| fs::write(git.join("config"), "[[[").unwrap())),
        ("no .git", Box::new(|| fs::remove_dir_all(&git).unwrap())),
        ("a deleted file", Box::new(|| fs::remove_file(path.join("a.txt")).unwrap())),
        (
            "a folder where a file was",
            Box::new(|| {
                fs::remove_file(path.join("a.txt")).unwrap();
                fs::create_dir_all(path.join("a.txt/x")).unwrap();
                fs::write(path.join("a.txt/x/y"), "z").unwrap();
            }),
        ),
        (
            "an untracked repository",
            Box::new(|| {
                fs::create_dir_all(path.join("inner/.git")).unwrap();
                fs::write(path.join("inner/file"), "x").unwrap();
            }),
        ),
    ];
    fs::create_dir_all(path.join(".sdp")).unwrap();
    fs::write(path.join(".sdp/kept"), "kept").unwrap();
    for (what, harm) in harms {
        harm();
        if what == "no .git" {
            // Without it the files are someone's: they are not touched.
            let error = world.try_prepare(&quick(), "main").await.unwrap_err();
            assert!(error.to_string().contains("move them away"), "{error}");
            fs::remove_file(path.join("a.txt")).unwrap();
            fs::remove_dir_all(path.join("b")).unwrap();
        }
        let healed = world.try_prepare(&quick(), "main").await;
        let healed = healed.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
        assert_eq!(healed, good, "{what}");
        assert_eq!(fs::read_to_string(path.join("a.txt")).unwrap(), "one", "{what}");
        assert_eq!(fs::read_to_string(path.join(".sdp/kept")).unwrap(), "kept", "{what}");
        assert!(!path.join("inner/file").exists(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_worktree_is_made_anew_and_keeps_its_own_folder() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    let good = world.try_prepare(&key, "main").await.unwrap();
    fs::create_dir_all(good.path.join(".sdp")).unwrap();
    fs::write(good.path.join(".sdp/kept"), "kept").unwrap();
    for harm in [".git", "a.txt"] {
        fs::remove_file(good.path.join(harm)).unwrap();
        assert_eq!(world.try_prepare(&key, "main").await.unwrap(), good, "without {harm}");
        assert_eq!(fs::read_to_string(good.path.join("a.txt")).unwrap(), "one");
        assert_eq!(fs::read_to_string(good.path.join(".sdp/kept")).unwrap(), "kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_in_each_others_way_and_moved_remotes_are_no_obstacle() {
    let world = world(PASSWORD).await;
    world.commit("feature", None, &[("a.txt", "short")]).await;
    world.prepare("feature").await;
    world.host.delete_branch("eredar", "feature").await.unwrap();
    let commit = world.commit("feature/deep", None, &[("a.txt", "deep")]).await;
    assert_eq!(world.prepare("feature/deep").await.commit, commit);
    fs::write(world.path().join(".git/config"), "[remote \"origin\"]\n\turl = http://elsewhere.invalid/x.git\n")
        .unwrap();
    assert_eq!(world.prepare("feature/deep").await.commit, commit);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_new_commit_is_fetched_once_for_all_sandboxes() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    world.prepare("main").await;
    let commit = world.commit("main", Some("main"), &[("a.txt", "two")]).await;
    let keys = ["a", "b", "c"].map(|name| InstanceKey::in_sandbox(name.parse().unwrap(), "eredar".parse().unwrap()));
    for key in &keys {
        assert_eq!(world.try_prepare(key, "main").await.unwrap().commit, commit);
    }
    let packs = |requests: Vec<String>| requests.iter().filter(|told| told.contains("POST")).count();
    let before = packs(world.host.requests());
    for key in &keys {
        world.try_prepare(key, "main").await.unwrap();
    }
    assert_eq!(packs(world.host.requests()), before, "nothing new, nothing fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_here_is_checked_out_while_the_host_is_down_unless_part_of_it_is_lost() {
    let world = world(PASSWORD).await;
    let first = world.commit("main", None, &[("a.txt", "one"), ("b/c.txt", "c")]).await;
    world.prepare("main").await;
    world.commit("main", Some("main"), &[("a.txt", "two")]).await;
    world.prepare("main").await;
    world.host.set_mood(Mood::Broken);
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    let (key, main) = (quick(), branch("main"));
    let back = world.repos.prepare_commit(&key, &main, &first, None, &sink, &cancel).await.unwrap();
    assert_eq!((&back.commit, fs::read_to_string(back.path.join("a.txt")).unwrap()), (&first, "one".into()));
    assert!(sink.lines()[0].contains("is here already"), "{:?}", sink.lines());

    // A store that lost a file of it does not have it: the remote is asked.
    let store = git2::Repository::open(world.path()).unwrap();
    let tree = store.find_commit(git2::Oid::from_str(first.as_str()).unwrap()).unwrap().tree().unwrap();
    let lost = tree.get_path(Path::new("b/c.txt")).unwrap().id();
    explode_packs(&world.path());
    let loose = lost.to_string();
    fs::remove_file(world.path().join(".git/objects").join(&loose[..2]).join(&loose[2..])).unwrap();
    let error = world.repos.prepare_commit(&key, &main, &first, None, &sink, &cancel).await.unwrap_err();
    assert!(matches!(error, RepoError::Git { .. } | RepoError::Auth { .. }), "{error:?}");
}

/// Has each object of a store in a file of its own.
fn explode_packs(checkout: &Path) {
    let folder = checkout.join(".git/objects/pack");
    let kept = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        fs::copy(entry.path(), kept.path().join(entry.file_name())).unwrap();
        fs::remove_file(entry.path()).unwrap();
    }
    for entry in fs::read_dir(kept.path()).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "pack") {
            let mut git = std::process::Command::new("git");
            git.arg("-C").arg(checkout).args(["unpack-objects", "-q"]).stdin(fs::File::open(entry.path()).unwrap());
            assert!(git.status().unwrap().success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_beside_the_store_stay_while_a_sandbox_has_a_checkout() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    world.try_prepare(&key, "main").await.unwrap();
    world.prepare("main").await;
    let (build, other) = (world.path().join(".sdp/builds/key/out"), world.path().join(".sdp/apache"));
    fs::create_dir_all(&build).unwrap();
    fs::create_dir_all(&other).unwrap();
    world.repos.discard(&quick()).await.unwrap();
    assert!(build.exists() && !other.exists() && !world.path().join("a.txt").exists());
    world.repos.discard(&key).await.unwrap();
    world.prepare("main").await;
    world.repos.discard(&quick()).await.unwrap();
    assert!(!world.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_deployments_of_one_repo_do_not_disturb_one_another() {
    let world = Arc::new(world(PASSWORD).await);
    for n in 0..4 {
        world.commit(&format!("b{n}"), None, &[("a.txt", &format!("text {n}"))]).await;
    }
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let key = InstanceKey::in_sandbox(format!("s{n}").parse().unwrap(), "eredar".parse().unwrap());
                let checkout = world.try_prepare(&key, &format!("b{n}")).await.unwrap();
                assert_eq!(fs::read_to_string(checkout.path.join("a.txt")).unwrap(), format!("text {n}"));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_a_remote_can_fail_is_told_apart() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    let cancel = CancellationToken::new();
    let wrong = Credentials::new("ada".parse().unwrap(), "wr0ng".into());

    let error = world.repos.verify(None, &wrong, &cancel).await.unwrap_err();
    assert!(matches!(&error, RepoError::Auth { user: Some(user), .. } if user == "ada"), "{error:?}");
    assert!(!chain(&error).contains("wr0ng"));

    world.host.set_mood(Mood::Broken);
    let error = world.repos.verify(None, &ada(), &cancel).await.unwrap_err();
    assert!(matches!(error, RepoError::Git { .. }), "{error:?}");
    world.host.set_mood(Mood::NotGit);
    let error = world.repos.verify(None, &ada(), &cancel).await.unwrap_err();
    assert!(matches!(error, RepoError::Git { .. }), "{error:?}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for host in [closed.to_string(), "no-such-host.invalid".into()] {
        let repo = spec("eredar", world.path(), format!("http://{host}/x.git"));
        let repos = GitRepos::new(GitConfig::new(vec![repo], world.dir.path().join("w"))).unwrap();
        let error = repos.verify(None, &ada(), &cancel).await.unwrap_err();
        assert!(
            matches!(&error, RepoError::Unreachable { host: told, .. } if told.starts_with(host.split(':').next().unwrap())),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_can_be_cancelled_and_retried() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    world.host.set_mood(Mood::Hanging);
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    let (key, main, ada) = (quick(), branch("main"), ada());
    let call = world.repos.prepare(&key, &main, Some(&ada), &sink, &cancel);
    let stop = async {
        while sink.lines().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let both = async { tokio::join!(call, stop).0 };
    let prepared = tokio::time::timeout(Duration::from_secs(30), both).await.expect("it returns soon");
    assert!(matches!(prepared, Err(RepoError::Cancelled)), "{prepared:?}");
    world.host.set_mood(Mood::Good);
    world.prepare("main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_to_where_a_link_leads() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one"), ("b/c.txt", "c")]).await;
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    fs::write(outside.path().join("c.txt"), "kept").unwrap();
    let sandbox = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    for key in [quick(), sandbox] {
        let path = world.try_prepare(&key, "main").await.unwrap().path;
        // What an earlier commit brought, or a build made.
        fs::remove_file(path.join("a.txt")).unwrap();
        fs::remove_dir_all(path.join("b")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("kept"), path.join("a.txt")).unwrap();
        std::os::unix::fs::symlink(outside.path(), path.join("b")).unwrap();
        std::os::unix::fs::symlink(outside.path(), path.join(".sdp")).unwrap();
        world.try_prepare(&key, "main").await.unwrap();
        assert_eq!(fs::read_to_string(path.join("a.txt")).unwrap(), "one");
        assert_eq!(fs::read_to_string(path.join("b/c.txt")).unwrap(), "c");
        assert!(!path.join(".sdp").is_symlink());
        for name in ["kept", "c.txt"] {
            assert_eq!(fs::read_to_string(outside.path().join(name)).unwrap(), "kept");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_brings_our_own_folder_is_refused() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    world.commit("bad", Some("main"), &[(".sdp/builds/x", "x")]).await;
    world.prepare("main").await;
    let refused = world.try_prepare(&quick(), "bad").await.unwrap_err();
    assert!(chain(&refused).contains("rename it in the repo"), "{}", chain(&refused));
    world.prepare("main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_in_no_file() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    world.prepare("main").await;
    let key = InstanceKey::in_sandbox("pay".parse().unwrap(), "eredar".parse().unwrap());
    world.try_prepare(&key, "main").await.unwrap();
    let mut read = 0;
    grep(world.dir.path(), PASSWORD.as_bytes(), &mut read);
    assert!(read > 10, "there was something to search: {read} files");
}

fn grep(folder: &Path, needle: &[u8], read: &mut usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            grep(&entry.path(), needle, read);
        } else {
            *read += 1;
            let bytes = fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{}", entry.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxes_checkout_goes_without_a_trace_also_when_its_repo_is_configured_no_more() {
    let world = world(PASSWORD).await;
    world.commit("main", None, &[("a.txt", "one")]).await;
    let key = |sandbox: &str| InstanceKey::in_sandbox(sandbox.parse().unwrap(), "eredar".parse().unwrap());
    let of_store = || {
        let names = ["refs/heads/sdp-worktree", "refs/sdp", "worktrees"];
        let entries = names.map(|name| fs::read_dir(world.path().join(".git").join(name)));
        entries.into_iter().flatten().flatten().count()
    };
    let checkout = world.try_prepare(&key("pay"), "main").await.unwrap();
    assert_eq!(of_store(), 3);
    assert_eq!(world.repos.sandbox_checkouts().await.unwrap(), [key("pay")]);
    // Somebody tidied up by hand: what the store knows is still to go.
    fs::remove_dir_all(checkout.path.parent().unwrap()).unwrap();
    assert_eq!(world.repos.sandbox_checkouts().await.unwrap(), [key("pay")]);
    world.repos.discard(&key("pay")).await.unwrap();
    assert_eq!((of_store(), world.repos.sandbox_checkouts().await.unwrap()), (0, vec![]));

    let checkout = world.try_prepare(&key("ship"), "main").await.unwrap();
    let other = spec("other", world.dir.path().join("other"), world.host.url("other"));
    let repos = GitRepos::new(GitConfig::new(vec![other], world.dir.path().join("worktrees"))).unwrap();
    assert_eq!(repos.sandbox_checkouts().await.unwrap(), [key("ship")]);
    repos.discard(&key("ship")).await.unwrap();
    assert!(!checkout.path.parent().unwrap().exists());
}
