#![doc = include_str!("../README.md")]

pub mod api;
pub mod app;
pub mod auth;
pub mod backup;
pub mod bitbucket;
pub mod cli;
pub mod config;
mod dashboard;
mod ended;
pub mod error;
pub mod events;
pub mod hub;
mod integrations;
mod metrics;
mod outgoing;
mod queue;
mod routing;
mod sandboxes;
mod serve;
pub mod store;
mod tls;
pub mod traces;
mod turns;
mod upkeep;
pub mod webhooks;

pub use app::{AppState, Parts, Server, ServerError, router};
pub use config::ServerConfig;
pub use error::ApiError;
pub use events::EventLogs;
pub use hub::Hub;
pub use store::Store;
pub use tls::TlsError;

#[cfg(feature = "testing")]
pub mod testing;
