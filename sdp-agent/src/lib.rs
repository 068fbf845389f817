#![doc = include_str!("../README.md")]

mod adapters;
mod agent;
pub mod cli;
pub mod config;
mod disk;
pub mod doctor;
mod error;
pub mod images;
mod inventory;
pub mod link;
pub mod outbox;
mod output;
pub mod redact;
mod requests;
mod work;

pub use agent::{Agent, Parts};
pub use config::AgentConfig;
pub use error::AgentError;
pub use link::LinkState;
pub use outbox::Outbox;
