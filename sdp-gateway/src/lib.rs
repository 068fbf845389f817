#![doc = include_str!("../README.md")]

mod atomic;
mod change;
mod config;
mod defaults;
mod error;
mod files;
mod http;
mod lint;
mod lock;
mod overrides;
pub mod php;
mod php_routes;
mod plan;
mod probe;
pub mod reload;
mod request_table;
mod site;
mod table;

pub use config::{ConfigError, GatewayConfig, ReloadConfig};
pub use php_routes::PhpRoutes;
pub use reload::Reload;
