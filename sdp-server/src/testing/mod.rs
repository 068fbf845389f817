//! Stand-ins for what the server works with outside, for tests and examples.

mod bitbucket_host;

pub use self::bitbucket_host::{BitbucketHost, Refusal, pull_request};
