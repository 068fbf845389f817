//! What the demo's git host holds: two Go services and a PHP gateway, each on `main` and a feature
//! branch.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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

/// Creates the services' repos.
///
/// # Errors
/// When the sources beside this crate cannot be read.
pub async fn fill_services(host: &GitHost) -> Result<(), Failed> {
    for repo in SERVICES {
        commit_both(host, repo, &[]).await?;
    }
    Ok(())
}

/// Creates the gateway's repo, whose defaults are the stable cluster's URLs.
///
/// # Errors
/// When the sources beside this crate cannot be read.
pub async fn fill_gateway(host: &GitHost, stable: StableUrls<'_>) -> Result<(), Failed> {
    commit_both(host, GATEWAY, stable).await
}

/// Creates one of the demo's repos: `main`, and the feature branch on top of it.
async fn commit_both(host: &GitHost, repo: &str, stable: StableUrls<'_>) -> Result<(), Failed> {
    host.create_repo(repo).await?;
    // The feature branch changes some of the files of `main`.
    let mut files = BTreeMap::new();
    for (variant, branch, parent) in [("main", "main", None), ("feature", FEATURE, Some("main"))] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(repo).join(variant);
        files.extend(read_tree(&folder, stable)?);
        let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        host.commit(repo, branch, parent, &files, &format!("{repo}: the {variant} variant")).await?;
    }
    Ok(())
}

/// Every file of a folder with its path in it; `@EREDAR_URL@` and the like become the stable URLs.
fn read_tree(folder: &Path, stable: StableUrls<'_>) -> Result<Vec<(String, Vec<u8>)>, Failed> {
    let mut files = Vec::new();
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
            files.push((path.to_string_lossy().into_owned(), text.into_bytes()));
        }
    }
    Ok(files)
}
