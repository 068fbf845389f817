#![doc = include_str!("../README.md")]

mod cli;
mod commands;
mod config;
mod context;
mod credentials;
mod error;
mod follow;
mod git;
mod output;
mod paths;
mod values;
mod which;

pub use cli::Cli;
pub use paths::Variables;
