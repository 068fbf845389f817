//! Random tokens, of which only the SHA-256 is kept.

use std::fmt::Write;

use sdp_core::AgentName;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::AGENT_TOKEN;
use crate::store::{Store, StoreError};

/// A new token of 256 random bits in hexadecimal, after `prefix`.
pub fn new_token(prefix: &str) -> SecretString {
    let bytes: [u8; 32] = rand::random();
    let mut text = String::with_capacity(prefix.len() + 64);
    text.push_str(prefix);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// The SHA-256 of a token: what is kept of it.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// Gives an enrolled agent another token, which is not to be had again. None when there is no such agent.
///
/// # Errors
/// [`StoreError`] when the database fails.
pub async fn rotate(store: &Store, name: &AgentName) -> Result<Option<SecretString>, StoreError> {
    let token = new_token(AGENT_TOKEN);
    let rotated = store.rotate_agent(name, hash(token.expose_secret())).await?;
    Ok(rotated.then_some(token))
}

/// Enrols an agent. The token is not to be had again.
///
/// # Errors
/// [`StoreError::Exists`] when the name is taken.
pub async fn enrol(store: &Store, name: &AgentName) -> Result<SecretString, StoreError> {
    let token = new_token(AGENT_TOKEN);
    store.add_agent(name, hash(token.expose_secret())).await?;
    Ok(token)
}
