//! Plain data, one file per aggregate.

pub mod agent;
pub mod changes;
pub mod command;
pub mod credentials;
pub mod deployment;
pub mod environment;
pub mod event;
pub mod explain;
pub mod ids;
pub mod instance;
pub mod machine;
pub mod manifest;
pub mod names;
pub mod repo;
pub mod route;
pub mod sandbox;
pub mod shape;
pub mod template;
pub mod units;
pub mod user;
