//! Sandboxes. Deleting one leaves its deployments as history.

use rusqlite::{Connection, Row, params};
use sdp_core::{Sandbox, SandboxName};

use super::{
    Store, StoreError,
    error::is_taken,
    routing::give_key,
    values::{micros, text, time},
};

impl Store {
    /// Keeps a new sandbox. Times are kept to the microsecond.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn insert_sandbox(&self, sandbox: &Sandbox) -> Result<(), StoreError> {
        let sandbox = sandbox.clone();
        self.writer.write(move |connection| insert(connection, &sandbox)).await
    }

    /// The sandbox of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox(&self, name: &SandboxName) -> Result<Option<Sandbox>, StoreError> {
        let name = name.clone();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM sandboxes WHERE name = ?1")?;
                let mut rows = statement.query([name.as_str()])?;
                rows.next()?.map(from_row).transpose()
            })
            .await
    }

    /// Every sandbox, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM sandboxes ORDER BY name")?;
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(from_row(row)?);
                }
                Ok(found)
            })
            .await
    }

    /// Forgets a sandbox. False when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn delete_sandbox(&self, name: &SandboxName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                Ok(connection.prepare_cached("DELETE FROM sandboxes WHERE name = ?1")?.execute([name.as_str()])? > 0)
            })
            .await
    }
}

fn insert(connection: &Connection, sandbox: &Sandbox) -> Result<(), StoreError> {
    let inserted = connection
        .prepare_cached(
            "INSERT INTO sandboxes (name, environment, owner, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            sandbox.name.as_str(),
            sandbox.environment.as_str(),
            sandbox.owner.as_str(),
            micros(sandbox.created_at),
            micros(sandbox.expires_at),
        ]);
    match inserted {
        Ok(_) => give_key(connection, &sandbox.name),
        Err(error) if is_taken(&error) => Err(StoreError::Exists { what: "sandbox", name: sandbox.name.to_string() }),
        Err(error) => Err(error.into()),
    }
}

fn from_row(row: &Row<'_>) -> Result<Sandbox, StoreError> {
    Ok(Sandbox {
        name: text(row, "name")?,
        environment: text(row, "environment")?,
        owner: text(row, "owner")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
    })
}
