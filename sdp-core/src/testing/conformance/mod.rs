//! One suite per trait: plain async functions that panic where an implementation breaks the
//! trait's contract. Call them from a test with the implementation under test.

pub mod deployer;
pub mod events;
pub mod repos;
pub mod routes;
