//! What the demo's git host holds: two Go services and a PHP gateway, each on `main` and a feature
//! branch.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sdp_core::CommitId;
use sdp_git::testing::GitHost;

use crate::Failed;

/// The developer of the story.
pub const USER: &str = "ada";
/// The gateway's repo.
pub const GATEWAY: &str = "erangel-ocean";
/// The service that the story routes.
pub const SERVICE: &str = "eredar";
/// Every service.
pub const SERVICES: [&str; 2] = ["eredar", "illidan"];
/// The feature branch that every repo has.
pub const FEATURE: &str = "feature/greeting";

/// Where the stable cluster answers for each service.
pub type StableUrls<'a> = &'a [(&'static str, String)];

/// Files by their path in a repo.
type Files = BTreeMap<String, Vec<u8>>;

/// Creates the services' repos.
///
/// # Errors
/// When the sources beside this crate cannot be read.
pub async fn fill_services(host: &GitHost) -> Result<(), Failed> {
    let common = read_tree("go-service", &[])?;
    for repo in SERVICES {
        commit_both(host, repo, common.clone(), &[]).await?;
    }
    Ok(())
}

/// Commits a service that answers with `message` onto a branch that is there, or onto a new one from `main`.
///
/// # Errors
/// When the sources beside this crate cannot be read, or there is no such repo.
pub async fn commit_service(host: &GitHost, repo: &str, branch: &str, message: &str) -> Result<CommitId, Failed> {
    let mut files = read_tree("go-service", &[])?;
    let about =
        format!("package main\n\nconst (\n\tservice = {repo:?}\n\tbranch  = {branch:?}\n\tmessage = {message:?}\n)\n");
    files.insert("about.go".into(), about.into_bytes());
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let onto = host.commit(repo, branch, Some(branch), &files, message).await;
    match onto {
        Ok(commit) => Ok(commit),
        Err(_) => Ok(host.commit(repo, branch, Some("main"), &files, message).await?),
    }
}

/// Creates the gateway's repo, whose defaults are the stable cluster's URLs.
///
/// # Errors
/// When the sources beside this crate cannot be read.
pub async fn fill_gateway(host: &GitHost, stable: StableUrls<'_>) -> Result<(), Failed> {
    commit_both(host, GATEWAY, Files::new(), stable).await
}

/// Creates one of the demo's repos: `main` adds to `files`, and the feature branch changes some.
async fn commit_both(host: &GitHost, repo: &str, mut files: Files, stable: StableUrls<'_>) -> Result<(), Failed> {
    host.create_repo(repo).await?;
    for (variant, branch, parent) in [("main", "main", None), ("feature", FEATURE, Some("main"))] {
        files.extend(read_tree(&format!("{repo}/{variant}"), stable)?);
        let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        host.commit(repo, branch, parent, &files, &format!("{repo}: the {variant} variant")).await?;
    }
    Ok(())
}

/// Every file of a fixture with its path in it; `@EREDAR_URL@` and the like become the stable URLs.
fn read_tree(fixture: &str, stable: StableUrls<'_>) -> Result<Files, Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&inner))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let mut text = std::fs::read_to_string(entry.path())?;
            for (service, url) in stable {
                text = text.replace(&format!("@{}_URL@", service.to_uppercase()), url);
            }
            files.insert(path.to_string_lossy().into_owned(), text.into_bytes());
        }
    }
    Ok(files)
}
