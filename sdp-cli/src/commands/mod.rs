//! The commands, one file each.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod deploy;
pub(crate) mod deployment;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod history;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod repo;
pub(crate) mod route;
pub(crate) mod sandbox;
pub(crate) mod show;
pub(crate) mod template;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod whoami;
