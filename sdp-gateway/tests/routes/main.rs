//! The route store on a gateway's checkout: the contract, trouble, crashes, and real PHP servers.
#![expect(clippy::disallowed_methods, reason = "tests arrange files")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apache;
mod asking;
mod contract;
mod cost;
mod crash;
mod fixture;
mod request_passed_on;
mod request_server;
mod request_toggle;
mod requests;
mod server;
mod trouble;
