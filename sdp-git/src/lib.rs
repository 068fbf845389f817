#![doc = include_str!("../README.md")]

mod checkout;
mod config;
mod error;
mod git_repos;
mod opened;
mod remote;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod worktrees;

pub use config::{ConfigError, GitConfig};
pub use git_repos::GitRepos;
