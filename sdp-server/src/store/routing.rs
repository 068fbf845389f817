//! What belongs to the routes of sandboxes: their keys, what they lost, what they chose for gateways of their own.
//! All of it goes with its sandbox.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use sdp_core::{RouteTarget, SandboxKey, SandboxName, ServiceName, api::routing::LostRoute};

use super::{
    Store, StoreError,
    values::{micros, optional_text, text, time},
};

impl Store {
    /// The key of a sandbox; none when there is no such sandbox.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_key(&self, sandbox: &SandboxName) -> Result<Option<SandboxKey>, StoreError> {
        let sandbox = sandbox.clone();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT key FROM sandbox_keys WHERE sandbox = ?1")?;
                let mut rows = statement.query([sandbox.as_str()])?;
                rows.next()?.map(|row| text(row, "key")).transpose()
            })
            .await
    }

    /// The key of every sandbox.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_keys(&self) -> Result<BTreeMap<SandboxName, SandboxKey>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM sandbox_keys")?;
                let mut rows = statement.query([])?;
                let mut found = BTreeMap::new();
                while let Some(row) = rows.next()? {
                    found.insert(text(row, "sandbox")?, text(row, "key")?);
                }
                Ok(found)
            })
            .await
    }

    /// Keeps that sandboxes lost routes, each with who lost it. Of sandboxes that are gone nothing is kept.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn lose_routes(&self, lost: Vec<(SandboxName, LostRoute)>) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                let mut statement = connection.prepare_cached(
                    "INSERT OR REPLACE INTO lost_routes (sandbox, service, url, by, user, at)
                        SELECT name, ?2, ?3, ?4, ?5, ?6 FROM sandboxes WHERE name = ?1",
                )?;
                for (sandbox, LostRoute { service, url, by, user, at }) in &lost {
                    let (service, url, by, user) = (service.as_str(), url.as_str(), by.as_str(), user.as_str());
                    statement.execute(params![sandbox.as_str(), service, url, by, user, micros(*at)])?;
                }
                Ok(())
            })
            .await
    }

    /// Keeps that a sandbox has set these services, whatever it lost of them before: whether its claims on them end
    /// only with it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails, or the sandbox is gone.
    pub async fn claim_routes(
        &self,
        sandbox: &SandboxName,
        services: Vec<ServiceName>,
        open: bool,
    ) -> Result<(), StoreError> {
        let sandbox = sandbox.clone();
        self.writer
            .write(move |connection| {
                let ends = match open {
                    true => "INSERT OR IGNORE INTO open_claims (sandbox, service) VALUES (?1, ?2)",
                    false => "DELETE FROM open_claims WHERE sandbox = ?1 AND service = ?2",
                };
                let lost = "DELETE FROM lost_routes WHERE sandbox = ?1 AND service = ?2";
                for service in &services {
                    for query in [ends, lost] {
                        connection.prepare_cached(query)?.execute([sandbox.as_str(), service.as_str()])?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// The claims that end only with their sandbox, of those that are still held and some that are not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn open_claims(&self) -> Result<BTreeSet<(SandboxName, ServiceName)>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM open_claims")?;
                let mut rows = statement.query([])?;
                let mut found = BTreeSet::new();
                while let Some(row) = rows.next()? {
                    found.insert((text(row, "sandbox")?, text(row, "service")?));
                }
                Ok(found)
            })
            .await
    }

    /// The routes that others took from a sandbox, by service.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn lost_routes(&self, sandbox: &SandboxName) -> Result<Vec<LostRoute>, StoreError> {
        let sandbox = sandbox.clone();
        self.readers
            .read(move |connection| {
                let query = "SELECT * FROM lost_routes WHERE sandbox = ?1 ORDER BY service";
                let mut statement = connection.prepare_cached(query)?;
                let mut rows = statement.query([sandbox.as_str()])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(LostRoute {
                        service: text(row, "service")?,
                        url: text(row, "url")?,
                        by: text(row, "by")?,
                        user: text(row, "user")?,
                        at: time(row, "at")?,
                    });
                }
                Ok(found)
            })
            .await
    }

    /// Keeps what was chosen for the routes of a sandbox's own gateway; the sandbox's deployment is what is chosen
    /// without a choice.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails, or the sandbox is gone.
    pub async fn choose_own_routes(
        &self,
        sandbox: &SandboxName,
        choices: BTreeMap<ServiceName, RouteTarget>,
    ) -> Result<(), StoreError> {
        let sandbox = sandbox.clone();
        self.writer
            .write(move |connection| {
                for (service, target) in &choices {
                    let url = match target {
                        RouteTarget::Sandbox => {
                            connection
                                .prepare_cached("DELETE FROM own_routes WHERE sandbox = ?1 AND service = ?2")?
                                .execute([sandbox.as_str(), service.as_str()])?;
                            continue;
                        }
                        RouteTarget::Ocp => None,
                        RouteTarget::Url(url) => Some(url.as_str()),
                    };
                    connection
                        .prepare_cached(
                            "INSERT OR REPLACE INTO own_routes (sandbox, service, url) VALUES (?1, ?2, ?3)",
                        )?
                        .execute(params![sandbox.as_str(), service.as_str(), url])?;
                }
                Ok(())
            })
            .await
    }

    /// What was chosen for the routes of a sandbox's own gateway.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn own_routes(&self, sandbox: &SandboxName) -> Result<BTreeMap<ServiceName, RouteTarget>, StoreError> {
        let sandbox = sandbox.clone();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM own_routes WHERE sandbox = ?1")?;
                let mut rows = statement.query([sandbox.as_str()])?;
                let mut found = BTreeMap::new();
                while let Some(row) = rows.next()? {
                    let url = optional_text(row, "url")?;
                    found.insert(text(row, "service")?, url.map_or(RouteTarget::Ocp, RouteTarget::Url));
                }
                Ok(found)
            })
            .await
    }
}

/// Gives a sandbox its key.
pub(super) fn give_key(connection: &Connection, sandbox: &SandboxName) -> Result<(), StoreError> {
    // The random end is 40 bits: the chance that it is taken is one in many millions, and then the next is not.
    let taken = "SELECT TRUE FROM sandbox_keys WHERE key = ?1";
    let key = loop {
        let key = SandboxKey::generate(sandbox, rand::random());
        let mut statement = connection.prepare_cached(taken)?;
        if statement.query_row([key.as_str()], |row| row.get::<_, bool>(0)).optional()?.is_none() {
            break key;
        }
    };
    connection
        .prepare_cached("INSERT INTO sandbox_keys (sandbox, key) VALUES (?1, ?2)")?
        .execute([sandbox.as_str(), key.as_str()])?;
    Ok(())
}

/// Gives those sandboxes a key that are from before there were any.
pub(super) fn give_missing_keys(connection: &Connection) -> Result<(), StoreError> {
    let query = "SELECT name FROM sandboxes WHERE name NOT IN (SELECT sandbox FROM sandbox_keys)";
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    let mut without = Vec::new();
    while let Some(row) = rows.next()? {
        without.push(text(row, "name")?);
    }
    without.iter().try_for_each(|sandbox| give_key(connection, sandbox))
}
