//! Enrolled agents. Of a token only its SHA-256 is kept.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};
use sdp_core::{AgentName, Inventory};

use super::{
    Store, StoreError,
    error::is_taken,
    values::{micros, optional_json, optional_time, text, to_json},
};

impl Store {
    /// Enrols an agent by the SHA-256 of its token.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn add_agent(&self, name: &AgentName, token_hash: [u8; 32]) -> Result<(), StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                let inserted = connection
                    .prepare_cached("INSERT INTO agents (name, token_hash) VALUES (?1, ?2)")?
                    .execute(params![name.as_str(), token_hash]);
                match inserted {
                    Ok(_) => Ok(()),
                    Err(error) if is_taken(&error) => Err(StoreError::Exists { what: "agent", name: name.to_string() }),
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }

    /// The SHA-256 of an agent's token; none when it is not enrolled.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn agent_token_hash(&self, name: &AgentName) -> Result<Option<[u8; 32]>, StoreError> {
        let name = name.clone();
        self.readers
            .find(move |connection| {
                let mut statement = connection.prepare_cached("SELECT token_hash FROM agents WHERE name = ?1")?;
                Ok(statement.query_row([name.as_str()], |row| row.get(0)).optional()?)
            })
            .await
    }

    /// Keeps when an agent was last heard of and, if given, what it told about itself. One that is
    /// not enrolled any more stays so.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn agent_seen(
        &self,
        name: &AgentName,
        at: Timestamp,
        inventory: Option<&Inventory>,
    ) -> Result<(), StoreError> {
        let (name, inventory) = (name.clone(), inventory.map(to_json));
        self.writer
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "UPDATE agents SET last_seen = ?2, inventory = coalesce(?3, inventory) WHERE name = ?1",
                    )?
                    .execute(params![name.as_str(), micros(at), inventory])?;
                Ok(())
            })
            .await
    }

    /// Every enrolled agent by name: when it was last heard of, and what it last told about itself.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn agents(&self) -> Result<Vec<(AgentName, Option<Timestamp>, Option<Inventory>)>, StoreError> {
        self.agents_but(HashSet::new()).await
    }

    /// As [`agents`](Self::agents), without the inventories of those whose inventory is `known`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub(crate) async fn agents_but(
        &self,
        known: HashSet<AgentName>,
    ) -> Result<Vec<(AgentName, Option<Timestamp>, Option<Inventory>)>, StoreError> {
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM agents ORDER BY name")?;
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    let name = text(row, "name")?;
                    let inventory = if known.contains(&name) { None } else { optional_json(row, "inventory")? };
                    found.push((name, optional_time(row, "last_seen")?, inventory));
                }
                Ok(found)
            })
            .await
    }

    /// Gives an enrolled agent another token by its SHA-256. False when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn rotate_agent(&self, name: &AgentName, token_hash: [u8; 32]) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                let query = "UPDATE agents SET token_hash = ?2 WHERE name = ?1";
                Ok(connection.prepare_cached(query)?.execute(params![name.as_str(), token_hash])? > 0)
            })
            .await
    }

    /// Revokes an agent's enrolment. False when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                Ok(connection.prepare_cached("DELETE FROM agents WHERE name = ?1")?.execute([name.as_str()])? > 0)
            })
            .await
    }
}
