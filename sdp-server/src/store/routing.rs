//! What belongs to the routes of sandboxes: their keys, what they lost, what they chose for gateways of their own.
//! All of it goes with its sandbox.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use sdp_core::{ClaimReason, RouteTarget, SandboxKey, SandboxName, ServiceName, api::routing::LostRoute};

use super::{
    Deed, Store, StoreError, audit, sandboxes,
    values::{micros, optional_text, optional_time, text, time},
};

/// Why a sandbox claims a route, and until when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// What its owner said it was for.
    pub reason: Option<ClaimReason>,
    /// When it ends; none when it ends with its sandbox.
    pub expires_at: Option<Timestamp>,
}

/// What is kept of routes that were set for a sandbox.
#[derive(Debug, Default)]
pub(crate) struct RoutesSet {
    /// Where the services go now.
    pub(crate) targets: BTreeMap<ServiceName, RouteTarget>,
    /// What is claimed with that, whatever was lost of it before.
    pub(crate) claims: BTreeMap<ServiceName, Claim>,
    /// Whether they are routes of the sandbox's own gateway.
    pub(crate) is_own: bool,
    /// What other sandboxes lost by it, each with who.
    pub(crate) lost: Vec<(SandboxName, LostRoute)>,
    /// What was done.
    pub(crate) deeds: Vec<Deed>,
}

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

    /// Keeps that routes of a sandbox were set. Of one that is gone or going meanwhile, what others lost by it, and what
    /// was done.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails, or the sandbox is [going](StoreError::Deleting).
    pub(crate) async fn routes_were_set(&self, sandbox: &SandboxName, set: RoutesSet) -> Result<(), StoreError> {
        let (sandbox, now) = (sandbox.clone(), Timestamp::now());
        self.writer
            .write(move |connection| {
                lose(connection, &set.lost)?;
                set.deeds.iter().try_for_each(|deed| audit::append(connection, deed))?;
                let Some(mut record) = sandboxes::load(connection, &sandbox)? else { return Ok(Ok(())) };
                if let Err(going) = record.admit() {
                    return Ok(Err(going));
                }
                if set.is_own {
                    choose_own(connection, &sandbox, &set.targets)?;
                }
                claim(connection, &sandbox, &set.claims)?;
                record.want_routes(set.targets, now);
                sandboxes::save(connection, &record).map(Ok)
            })
            .await?
    }

    /// What a sandbox claimed last, by service, whether or not it holds it still.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn claims(&self, sandbox: &SandboxName) -> Result<BTreeMap<ServiceName, Claim>, StoreError> {
        let sandbox = sandbox.clone();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM claims WHERE sandbox = ?1")?;
                let mut rows = statement.query([sandbox.as_str()])?;
                let mut found = BTreeMap::new();
                while let Some(row) = rows.next()? {
                    let claim =
                        Claim { reason: optional_text(row, "reason")?, expires_at: optional_time(row, "expires_at")? };
                    found.insert(text(row, "service")?, claim);
                }
                Ok(found)
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
                let mut statement = connection.prepare_cached("SELECT * FROM claims WHERE expires_at IS NULL")?;
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

/// Of a sandbox's own gateway. The sandbox's deployment is what is chosen without a choice.
fn choose_own(
    connection: &Connection,
    sandbox: &SandboxName,
    targets: &BTreeMap<ServiceName, RouteTarget>,
) -> Result<(), StoreError> {
    for (service, target) in targets {
        let url = match target {
            RouteTarget::Sandbox => {
                let query = "DELETE FROM own_routes WHERE sandbox = ?1 AND service = ?2";
                connection.prepare_cached(query)?.execute([sandbox.as_str(), service.as_str()])?;
                continue;
            }
            RouteTarget::Ocp => None,
            RouteTarget::Url(url) => Some(url.as_str()),
        };
        let query = "INSERT OR REPLACE INTO own_routes (sandbox, service, url) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(query)?.execute(params![sandbox.as_str(), service.as_str(), url])?;
    }
    Ok(())
}

/// Of sandboxes that are gone nothing is kept.
fn lose(connection: &Connection, lost: &[(SandboxName, LostRoute)]) -> Result<(), StoreError> {
    let query = "INSERT OR REPLACE INTO lost_routes (sandbox, service, url, by, user, at)
        SELECT name, ?2, ?3, ?4, ?5, ?6 FROM sandboxes WHERE name = ?1";
    for (sandbox, LostRoute { service, url, by, user, at }) in lost {
        let (service, url, by, user) = (service.as_str(), url.as_str(), by.as_str(), user.as_str());
        connection.prepare_cached(query)?.execute(params![sandbox.as_str(), service, url, by, user, micros(*at)])?;
    }
    Ok(())
}

fn claim(
    connection: &Connection,
    sandbox: &SandboxName,
    claims: &BTreeMap<ServiceName, Claim>,
) -> Result<(), StoreError> {
    let claim = "INSERT OR REPLACE INTO claims (sandbox, service, reason, expires_at) VALUES (?1, ?2, ?3, ?4)";
    let lost = "DELETE FROM lost_routes WHERE sandbox = ?1 AND service = ?2";
    for (service, Claim { reason, expires_at }) in claims {
        let (reason, end) = (reason.as_ref().map(ClaimReason::as_str), expires_at.map(micros));
        connection.prepare_cached(claim)?.execute(params![sandbox.as_str(), service.as_str(), reason, end])?;
        connection.prepare_cached(lost)?.execute([sandbox.as_str(), service.as_str()])?;
    }
    Ok(())
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
