//! A control plane on a real socket, with agents that do what the test's script says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod audit;
mod bitbucket;
mod claims;
mod client;
mod daemon;
mod declared;
mod deployments;
mod environments;
mod exec;
mod gateway;
mod http;
mod leftovers;
mod lifecycle;
mod live;
mod model;
mod openapi;
mod operations;
mod output;
mod own_gateway;
mod people;
mod plain_http;
mod ports;
mod privileges;
mod recovery;
mod requests;
mod retries;
mod rollback;
mod routes;
mod security;
mod sleep;
mod slow;
mod stats;
mod streams;
mod support;
mod templates;
mod webhooks;
