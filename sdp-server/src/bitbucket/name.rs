//! Names of pull requests' sandboxes.

use sdp_core::{RepoName, SandboxName};
use sha2::{Digest, Sha256};

/// The longest name of a sandbox.
const LONGEST: usize = 63;

/// The sandbox of a pull request: `pr-<repo>-<number>`. A repo's dots and underscores become hyphens, and of a name that
/// is too long the middle is left out for a few digits of its hash.
pub fn sandbox_name(repo: &RepoName, number: u64) -> SandboxName {
    let slug = repo.as_str().replace(['.', '_'], "-");
    let mut name = format!("pr-{slug}-{number}");
    if name.len() > LONGEST {
        let hash = Sha256::digest(repo.as_str().as_bytes());
        let end = format!("-{:02x}{:02x}{:02x}{:02x}-{number}", hash[0], hash[1], hash[2], hash[3]);
        let room = LONGEST - "pr-".len() - end.len();
        name = format!("pr-{}{end}", &slug[..room.min(slug.len())]);
    }
    SandboxName::new(name).expect("a repo's name without dots and underscores is letters, digits and hyphens")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_say_repo_and_number() {
        let name = |repo: &str, number| sandbox_name(&repo.parse().unwrap(), number).to_string();
        assert_eq!(name("eredar", 7), "pr-eredar-7");
        assert_eq!(name("erangel.ocean_v2", 12), "pr-erangel-ocean-v2-12");
        let long = "x".repeat(100);
        assert_eq!(name(&long, u64::MAX).len(), 63);
        assert_ne!(name(&long, 1), name(&format!("{}y", &long[..99]), 1));
    }

    proptest! {
        #[test]
        fn every_repo_and_number_has_a_name(repo in "[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?", number: u64) {
            if let Ok(repo) = RepoName::new(repo) {
                let name = sandbox_name(&repo, number);
                prop_assert_eq!(SandboxName::new(name.as_str()), Ok(name));
            }
        }
    }
}
