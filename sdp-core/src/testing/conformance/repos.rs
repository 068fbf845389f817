//! The suite of [`RepoSource`].

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    model::{
        credentials::Credentials,
        ids::InstanceKey,
        names::{BranchName, CommitId, RepoName},
    },
    repos::{RepoError, RepoSource},
    testing::MemorySink,
};

/// A source with one repo, `eredar`, whose remote accepts user `ada` with password `right` and no
/// one else.
#[async_trait]
pub trait RemoteFixture: Sync {
    /// The source under test. Its checkouts are real directories.
    fn source(&self) -> &dyn RepoSource;

    /// Puts the tip of `branch` on the remote at a new commit of exactly these files, whatever it
    /// was before.
    async fn push(&self, repo: &str, branch: &str, files: &[(&str, &str)]) -> CommitId;
}

/// Runs the whole suite.
pub async fn suite(remote: &dyn RemoteFixture) {
    remote.push("eredar", "main", &[("a.txt", "one"), ("dir/b.txt", "b")]).await;
    credentials_are_really_asked_for(remote).await;
    branches_are_those_of_the_remote(remote).await;
    a_checkout_holds_exactly_the_branch(remote).await;
    local_edits_never_block_and_only_sdp_files_survive(remote).await;
    a_rewritten_branch_is_followed(remote).await;
    a_rewind_needs_no_remote(remote).await;
    sandboxes_have_checkouts_of_their_own(remote).await;
    an_exact_commit_needs_no_remote_where_it_was_before(remote).await;
    an_exact_commit_that_was_never_here_is_fetched_or_refused(remote).await;
    unknown_names_are_told_apart(remote).await;
    a_cancelled_call_says_so_and_can_be_repeated(remote).await;
    a_discarded_checkout_is_gone_and_can_be_made_again(remote).await;
}

fn ada(password: &str) -> Credentials {
    Credentials::new("ada".parse().expect("valid"), password.to_owned().into())
}

fn repo() -> RepoName {
    "eredar".parse().expect("valid")
}

fn quick() -> InstanceKey {
    InstanceKey::quick(repo())
}

fn branch(name: &str) -> BranchName {
    name.parse().expect("valid")
}

async fn prepare(remote: &dyn RemoteFixture, key: &InstanceKey, name: &str) -> crate::Checkout {
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    let prepared = remote.source().prepare(key, &branch(name), Some(&ada("right")), &sink, &cancel).await;
    let checkout = prepared.unwrap_or_else(|error| panic!("{name}: {}", crate::problem::chain(&error)));
    assert!(!sink.lines().is_empty(), "it tells what it does");
    assert!(sink.lines().iter().all(|line| !line.contains("right")), "and no secret: {:?}", sink.lines());
    checkout
}

fn read(checkout: &crate::Checkout, path: &str) -> Option<String> {
    std::fs::read_to_string(checkout.path.join(path)).ok()
}

async fn credentials_are_really_asked_for(remote: &dyn RemoteFixture) {
    let (source, cancel) = (remote.source(), CancellationToken::new());
    source.verify(None, &ada("right"), &cancel).await.expect("the right password is accepted");
    source.verify(Some(&repo()), &ada("right"), &cancel).await.expect("for a named repo too");
    let refused = source.verify(None, &ada("wr0ng-pa55"), &cancel).await.expect_err("a wrong one is not");
    assert!(matches!(&refused, RepoError::Auth { user: Some(user), .. } if user == "ada"), "{refused:?}");
    assert!(!format!("{refused:?} {}", crate::problem::chain(&refused)).contains("wr0ng-pa55"));
    let anonymous = source.branches(&repo(), None, &cancel).await.expect_err("nor none");
    assert!(matches!(anonymous, RepoError::Auth { user: None, .. }), "{anonymous:?}");
}

async fn branches_are_those_of_the_remote(remote: &dyn RemoteFixture) {
    let commit = remote.push("eredar", "feature/ünï", &[("a.txt", "feature")]).await;
    let (source, cancel) = (remote.source(), CancellationToken::new());
    let branches = source.branches(&repo(), Some(&ada("right")), &cancel).await.expect("branches");
    let names: Vec<_> = branches.iter().map(|branch| branch.name.as_str()).collect();
    assert_eq!(names, ["feature/ünï", "main"], "by name");
    assert_eq!(branches[0].commit, commit);
}

async fn a_checkout_holds_exactly_the_branch(remote: &dyn RemoteFixture) {
    let key = quick();
    assert_eq!(remote.source().checkout(&key).await.expect("readable"), None, "none yet");
    let commit = remote.push("eredar", "main", &[("a.txt", "two"), ("dir/b.txt", "b")]).await;
    let checkout = prepare(remote, &key, "main").await;
    assert_eq!((&checkout.commit, checkout.branch.as_str()), (&commit, "main"));
    assert_eq!(read(&checkout, "a.txt").as_deref(), Some("two"));
    assert_eq!(read(&checkout, "dir/b.txt").as_deref(), Some("b"));
    assert_eq!(prepare(remote, &key, "main").await, checkout, "again, with nothing new");
    assert_eq!(remote.source().checkout(&key).await.expect("readable"), Some(checkout));

    let commit = remote.push("eredar", "main", &[("a.txt", "three"), ("c.txt", "new")]).await;
    let checkout = prepare(remote, &key, "main").await;
    assert_eq!(checkout.commit, commit);
    assert_eq!(read(&checkout, "a.txt").as_deref(), Some("three"));
    assert_eq!((read(&checkout, "dir/b.txt"), read(&checkout, "c.txt").as_deref()), (None, Some("new")));

    let checkout = prepare(remote, &key, "feature/ünï").await;
    assert_eq!((read(&checkout, "a.txt").as_deref(), read(&checkout, "c.txt")), (Some("feature"), None));
}

async fn local_edits_never_block_and_only_sdp_files_survive(remote: &dyn RemoteFixture) {
    let checkout = prepare(remote, &quick(), "main").await;
    std::fs::write(checkout.path.join("a.txt"), "edited").expect("written");
    std::fs::create_dir_all(checkout.path.join(".sdp")).expect("made");
    std::fs::write(checkout.path.join(".sdp/kept"), "kept").expect("written");
    let committed = remote.source().committed_file(&quick(), Path::new("a.txt")).await.expect("readable");
    assert_eq!(committed.as_deref(), Some(b"three".as_slice()), "whatever the working tree holds");
    let none = remote.source().committed_file(&quick(), Path::new("nope.txt")).await.expect("readable");
    assert_eq!(none, None);
    let again = prepare(remote, &quick(), "main").await;
    assert_eq!(again, checkout);
    assert_eq!(read(&checkout, "a.txt").as_deref(), Some("three"));
    assert_eq!(read(&checkout, ".sdp/kept").as_deref(), Some("kept"));
}

async fn a_rewritten_branch_is_followed(remote: &dyn RemoteFixture) {
    let commit = remote.push("eredar", "main", &[("a.txt", "rewritten")]).await;
    let checkout = prepare(remote, &quick(), "main").await;
    assert_eq!(checkout.commit, commit);
    assert_eq!((read(&checkout, "a.txt").as_deref(), read(&checkout, "c.txt")), (Some("rewritten"), None));
}

async fn a_rewind_needs_no_remote(remote: &dyn RemoteFixture) {
    let before = prepare(remote, &quick(), "main").await;
    remote.push("eredar", "main", &[("a.txt", "bad"), ("bad.txt", "bad")]).await;
    let bad = prepare(remote, &quick(), "main").await;
    assert_ne!(bad.commit, before.commit);
    remote.source().rewind(&quick(), &before).await.expect("rewound");
    assert_eq!(remote.source().checkout(&quick()).await.expect("readable"), Some(before.clone()));
    assert_eq!((read(&before, "a.txt").as_deref(), read(&before, "bad.txt")), (Some("rewritten"), None));
    assert_eq!(read(&before, ".sdp/kept").as_deref(), Some("kept"));
}

async fn sandboxes_have_checkouts_of_their_own(remote: &dyn RemoteFixture) {
    let quick_checkout = prepare(remote, &quick(), "main").await;
    let [one, two] = ["one", "two"].map(|name| InstanceKey::in_sandbox(name.parse().expect("valid"), repo()));
    let in_one = prepare(remote, &one, "main").await;
    let in_two = prepare(remote, &two, "feature/ünï").await;
    let mut paths = vec![&quick_checkout.path, &in_one.path, &in_two.path];
    paths.dedup();
    assert_eq!(paths.len(), 3, "three directories");
    assert_eq!(in_one.commit, quick_checkout.commit, "the same branch twice at once");
    assert_eq!(read(&in_two, "a.txt").as_deref(), Some("feature"));
    assert_eq!(read(&in_one, "a.txt").as_deref(), Some("bad"));
    assert_eq!(in_two.branch, branch("feature/ünï"));
    for key in [one, two] {
        remote.source().discard(&key).await.expect("discarded");
    }
    assert_eq!(read(&quick_checkout, "a.txt").as_deref(), Some("bad"), "the others are left alone");
}

async fn an_exact_commit_needs_no_remote_where_it_was_before(remote: &dyn RemoteFixture) {
    let source = remote.source();
    let earlier = prepare(remote, &quick(), "main").await;
    remote.push("eredar", "main", &[("a.txt", "newer"), ("newer.txt", "newer")]).await;
    let newer = prepare(remote, &quick(), "main").await;
    let (sink, cancel, main) = (MemorySink::default(), CancellationToken::new(), branch("main"));
    let sandbox = InstanceKey::in_sandbox("back".parse().expect("valid"), repo());
    for key in [quick(), sandbox.clone()] {
        // Without credentials: the remote would refuse to be asked.
        let back = source.prepare_commit(&key, &main, &earlier.commit, None, &sink, &cancel).await;
        let back = back.unwrap_or_else(|error| panic!("{}", crate::problem::chain(&error)));
        assert_eq!((&back.commit, &back.tree, &back.branch), (&earlier.commit, &earlier.tree, &main));
        assert_eq!((read(&back, "a.txt").as_deref(), read(&back, "newer.txt")), (Some("bad"), None));
        assert_eq!(source.checkout(&key).await.expect("readable"), Some(back));
    }
    assert!(!sink.lines().is_empty(), "it tells what it does");
    assert_eq!(read(&newer, ".sdp/kept").as_deref(), Some("kept"));
    assert_eq!(prepare(remote, &quick(), "main").await, newer, "the next goes on to the tip");
    source.discard(&sandbox).await.expect("discarded");
}

async fn an_exact_commit_that_was_never_here_is_fetched_or_refused(remote: &dyn RemoteFixture) {
    let (source, sink, cancel, ada) = (remote.source(), MemorySink::default(), CancellationToken::new(), ada("right"));
    let before = source.checkout(&quick()).await.expect("readable");
    let (key, main) = (quick(), branch("main"));
    let replaced = remote.push("eredar", "main", &[("a.txt", "replaced")]).await;
    let tip = remote.push("eredar", "main", &[("a.txt", "tip")]).await;
    let error = source.prepare_commit(&key, &main, &tip, None, &sink, &cancel).await.expect_err("the remote is asked");
    assert!(matches!(error, RepoError::Auth { .. }), "{error:?}");
    for (name, commit) in [(&main, &replaced), (&branch("nope"), &replaced)] {
        let refused = source.prepare_commit(&key, name, commit, Some(&ada), &sink, &cancel).await;
        assert!(
            matches!(&refused, Err(RepoError::UnknownCommit { commit, branch, .. }) if *commit == replaced && branch == name),
            "{refused:?}"
        );
    }
    assert_eq!(source.checkout(&key).await.expect("readable"), before, "the checkout is as it was");
    let fetched = source.prepare_commit(&key, &main, &tip, Some(&ada), &sink, &cancel).await.expect("fetched");
    assert_eq!((&fetched.commit, read(&fetched, "a.txt").as_deref()), (&tip, Some("tip")));
    cancel.cancel();
    let cancelled = source.prepare_commit(&key, &main, &tip, Some(&ada), &sink, &cancel).await;
    assert!(matches!(cancelled, Err(RepoError::Cancelled)), "{cancelled:?}");
}

async fn unknown_names_are_told_apart(remote: &dyn RemoteFixture) {
    let (sink, cancel, ada) = (MemorySink::default(), CancellationToken::new(), ada("right"));
    let source = remote.source();
    let before = source.checkout(&quick()).await.expect("readable");
    let error = source.prepare(&quick(), &branch("nope"), Some(&ada), &sink, &cancel).await.expect_err("refused");
    assert!(matches!(&error, RepoError::UnknownBranch { branch, .. } if branch.as_str() == "nope"), "{error:?}");
    assert_eq!(source.checkout(&quick()).await.expect("readable"), before, "the checkout is as it was");
    let other: RepoName = "nope".parse().expect("valid");
    let error = source.branches(&other, Some(&ada), &cancel).await.expect_err("refused");
    assert!(matches!(error, RepoError::UnknownRepo { .. }), "{error:?}");
    let key = InstanceKey::quick(other);
    let error = source.prepare(&key, &branch("main"), Some(&ada), &sink, &cancel).await.expect_err("refused");
    assert!(matches!(error, RepoError::UnknownRepo { .. }), "{error:?}");
}

async fn a_cancelled_call_says_so_and_can_be_repeated(remote: &dyn RemoteFixture) {
    let (sink, cancel) = (MemorySink::default(), CancellationToken::new());
    cancel.cancel();
    let (key, main, ada) = (quick(), branch("main"), ada("right"));
    let call = remote.source().prepare(&key, &main, Some(&ada), &sink, &cancel);
    let answered = tokio::time::timeout(Duration::from_secs(30), call).await.expect("it returns");
    assert!(matches!(answered, Err(RepoError::Cancelled)), "{answered:?}");
    prepare(remote, &quick(), "main").await;
}

async fn a_discarded_checkout_is_gone_and_can_be_made_again(remote: &dyn RemoteFixture) {
    let source = remote.source();
    let checkout = prepare(remote, &quick(), "main").await;
    source.discard(&quick()).await.expect("discarded");
    source.discard(&quick()).await.expect("twice is fine");
    assert!(!checkout.path.exists());
    assert_eq!(source.checkout(&quick()).await.expect("readable"), None);
    assert_eq!(prepare(remote, &quick(), "main").await.commit, checkout.commit);

    let key = InstanceKey::in_sandbox("leaves".parse().expect("valid"), repo());
    let checkout = prepare(remote, &key, "main").await;
    let listed = async || source.sandbox_checkouts().await.expect("listed");
    assert!(listed().await.contains(&key), "its sandbox has a checkout");
    source.discard(&key).await.expect("discarded");
    source.discard(&key).await.expect("twice is fine");
    assert!(!checkout.path.exists());
    assert!(!listed().await.contains(&key), "and then none");
}
