//! Environments. The default one is there also when it was never kept.

use rusqlite::{Connection, OptionalExtension, params};
use sdp_core::{Environment, EnvironmentName, SandboxName};

use super::{
    Deed, Expected, Store, StoreError, audit,
    error::is_taken,
    values::{json, text, to_json},
};

impl Store {
    /// Keeps a new environment.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn insert_environment(&self, environment: &Environment, deed: Deed) -> Result<(), StoreError> {
        let (name, settings) = (environment.name.clone(), to_json(environment));
        self.writer
            .write(move |connection| {
                let query = "INSERT INTO environments (name, settings) VALUES (?1, ?2)";
                match connection.prepare_cached(query)?.execute(params![name.as_str(), settings]) {
                    Ok(_) if name != EnvironmentName::default() => audit::append(connection, &deed),
                    Err(error) if !is_taken(&error) => Err(error.into()),
                    _ => Err(StoreError::Exists { what: "environment", name: name.to_string() }),
                }
            })
            .await
    }

    /// Sets everything of an environment anew, and keeps with it what was done. False when there is none.
    ///
    /// # Errors
    /// [`StoreError::Changed`].
    pub async fn replace_environment(
        &self,
        environment: &Environment,
        expected: &Expected,
        deed: Deed,
    ) -> Result<bool, StoreError> {
        let (name, settings, expected) = (environment.name.clone(), to_json(environment), expected.clone());
        self.writer
            .write(move |connection| {
                let Some(before) = load_or_default(connection, &name)? else { return Ok(false) };
                expected.check("environment", name.as_str(), &before)?;
                let query = "INSERT INTO environments (name, settings) VALUES (?1, ?2)
                    ON CONFLICT (name) DO UPDATE SET settings = ?2";
                connection.prepare_cached(query)?.execute(params![name.as_str(), settings])?;
                audit::append(connection, &deed).map(|()| true)
            })
            .await
    }

    /// The environment of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn environment(&self, name: &EnvironmentName) -> Result<Option<Environment>, StoreError> {
        let name = name.clone();
        self.readers.find(move |connection| load_or_default(connection, &name)).await
    }

    /// Every environment, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT settings FROM environments ORDER BY name")?;
                let mut rows = statement.query([])?;
                let mut found: Vec<Environment> = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(json(row, "settings")?);
                }
                let default = EnvironmentName::default();
                if let Err(at) = found.binary_search_by(|kept| kept.name.cmp(&default)) {
                    found.insert(at, Environment::new(default));
                }
                Ok(found)
            })
            .await
    }

    /// Forgets an environment that no sandbox lives in; the default one goes back to no settings. False when
    /// there is none. What was done is kept with it.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; [`StoreError::Changed`].
    pub async fn delete_environment(
        &self,
        name: &EnvironmentName,
        expected: &Expected,
        deed: Deed,
    ) -> Result<bool, StoreError> {
        let (name, expected) = (name.clone(), expected.clone());
        self.writer
            .write(move |connection| {
                let Some(before) = load_or_default(connection, &name)? else { return Ok(false) };
                expected.check("environment", name.as_str(), &before)?;
                let query = "SELECT name FROM sandboxes WHERE environment = ?1 ORDER BY name LIMIT 1";
                let mut statement = connection.prepare_cached(query)?;
                let sandbox = statement.query_row([name.as_str()], |row| Ok(text::<SandboxName>(row, "name")));
                if let Some(sandbox) = sandbox.optional()?.transpose()? {
                    return Err(StoreError::InUse { environment: name, sandbox });
                }
                let query = "DELETE FROM environments WHERE name = ?1";
                connection.prepare_cached(query)?.execute([name.as_str()])?;
                audit::append(connection, &deed).map(|()| true)
            })
            .await
    }
}

fn load_or_default(connection: &Connection, name: &EnvironmentName) -> Result<Option<Environment>, StoreError> {
    let kept = load(connection, name)?;
    Ok(kept.or_else(|| (*name == EnvironmentName::default()).then(|| Environment::new(name.clone()))))
}

fn load(connection: &Connection, name: &EnvironmentName) -> Result<Option<Environment>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT settings FROM environments WHERE name = ?1")?;
    statement.query_row([name.as_str()], |row| Ok(json(row, "settings"))).optional()?.transpose()
}
