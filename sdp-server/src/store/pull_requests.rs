//! Pull requests: as their host last told of them, and what was done for them. And deliveries that were taken.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use sdp_core::{IntegrationName, SandboxName};
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    queue::{NewTask, enqueue},
    values::{json, micros, optional_json, optional_text, time, to_json},
};
use crate::bitbucket::PullRequest;

/// Which pull request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PullRequestKey {
    /// The integration that told of it.
    pub(crate) source: IntegrationName,
    /// Its repository, as the integration's configuration writes it.
    pub(crate) repository: String,
    /// Its number there.
    pub(crate) number: u64,
}

impl std::fmt::Display for PullRequestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}#{}", self.source, self.repository, self.number)
    }
}

/// A pull request with all that is kept of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PullRequestRecord {
    /// As it was last told.
    pub(crate) told: PullRequest,
    /// The sandbox made for it.
    pub(crate) sandbox: Option<SandboxName>,
    /// The commit that was last deployed for it, as it was told.
    pub(crate) deployed: Option<String>,
    /// Why there is nothing for it.
    pub(crate) problem: Option<String>,
    /// The comment on it, by its id.
    pub(crate) comment: Option<String>,
    /// What its host was last told.
    pub(crate) reported: Reported,
}

/// What a pull request's host was last told, to tell it no more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reported {
    /// The build status, as it was posted, with its commit.
    #[serde(default)]
    pub(crate) status: Option<(String, serde_json::Value)>,
    /// The comment's text.
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// It was taken.
    Taken,
    /// It was taken before.
    Again,
    /// Something newer was told before.
    Stale,
}

impl Store {
    /// Takes a delivery: keeps what it tells of a pull request and what is to be done for it, all of it or nothing.
    pub(crate) async fn receive(
        &self,
        source: &IntegrationName,
        delivery: Option<String>,
        told: Option<(PullRequestKey, PullRequest)>,
        tasks: Vec<NewTask>,
    ) -> Result<Received, StoreError> {
        let source = source.clone();
        self.writer
            .write(move |connection| {
                if let Some(delivery) = delivery {
                    let query = "INSERT OR IGNORE INTO received (source, delivery, at) VALUES (?1, ?2, ?3)";
                    let values = params![source.as_str(), delivery, micros(Timestamp::now())];
                    if connection.prepare_cached(query)?.execute(values)? == 0 {
                        return Ok(Received::Again);
                    }
                }
                if let Some((key, told)) = &told
                    && !tell(connection, key, told)?
                {
                    return Ok(Received::Stale);
                }
                tasks.iter().try_for_each(|task| enqueue(connection, task))?;
                Ok(Received::Taken)
            })
            .await
    }

    /// Forgets deliveries that were taken before `before`.
    pub(crate) async fn forget_deliveries(&self, before: Timestamp) -> Result<(), StoreError> {
        let any = self.readers.read(move |connection| {
            let query = "SELECT EXISTS (SELECT 1 FROM received WHERE at < ?1)";
            Ok(connection.prepare_cached(query)?.query_row([micros(before)], |row| row.get(0))?)
        });
        if !any.await? {
            return Ok(());
        }
        self.writer
            .write(move |connection| {
                connection.prepare_cached("DELETE FROM received WHERE at < ?1")?.execute([micros(before)])?;
                Ok(())
            })
            .await
    }

    /// A pull request that was told of.
    pub(crate) async fn pull_request(&self, key: &PullRequestKey) -> Result<Option<PullRequestRecord>, StoreError> {
        let key = key.clone();
        self.readers.read(move |connection| load(connection, &key)).await
    }

    /// The pull request that a sandbox was made for.
    pub(crate) async fn pull_request_of(&self, sandbox: &SandboxName) -> Result<Option<PullRequestKey>, StoreError> {
        let sandbox = sandbox.clone();
        self.readers.read(move |connection| key_of_sandbox(connection, sandbox.as_str())).await
    }

    /// Keeps what was done for a pull request.
    pub(crate) async fn set_pull_request_done(
        &self,
        key: &PullRequestKey,
        sandbox: Option<SandboxName>,
        deployed: Option<String>,
        problem: Option<String>,
    ) -> Result<(), StoreError> {
        let key = key.clone();
        self.writer
            .write(move |connection| {
                let query = "UPDATE pull_requests SET sandbox = ?4, deployed = ?5, problem = ?6
                    WHERE source = ?1 AND repository = ?2 AND number = ?3";
                let sandbox = sandbox.as_ref().map(SandboxName::as_str);
                let values = params![key.source.as_str(), key.repository, number(&key), sandbox, deployed, problem];
                connection.prepare_cached(query)?.execute(values)?;
                Ok(())
            })
            .await
    }

    /// Keeps what a pull request's host was told.
    pub(crate) async fn set_reported(
        &self,
        key: &PullRequestKey,
        comment: Option<String>,
        reported: Reported,
    ) -> Result<(), StoreError> {
        let key = key.clone();
        self.writer
            .write(move |connection| {
                let query = "UPDATE pull_requests SET comment = ?4, reported = ?5
                    WHERE source = ?1 AND repository = ?2 AND number = ?3";
                let values = params![key.source.as_str(), key.repository, number(&key), comment, to_json(&reported)];
                connection.prepare_cached(query)?.execute(values)?;
                Ok(())
            })
            .await
    }
}

/// Keeps what was told, unless something newer was, or it is closed since then.
fn tell(connection: &Connection, key: &PullRequestKey, told: &PullRequest) -> Result<bool, StoreError> {
    let query = "SELECT told, updated_at FROM pull_requests WHERE source = ?1 AND repository = ?2 AND number = ?3";
    let known = connection
        .prepare_cached(query)?
        .query_row(params![key.source.as_str(), key.repository, number(key)], |row| {
            Ok(json::<PullRequest>(row, "told").and_then(|known| Ok((known, time(row, "updated_at")?))))
        })
        .optional()?
        .transpose()?;
    if let Some((known, at)) = known {
        let reopens = known.state.is_closed() && !told.state.is_closed();
        let now = micros(told.updated_at);
        if now < micros(at) || (now == micros(at) && reopens) {
            return Ok(false);
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO pull_requests (source, repository, number, told, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET told = excluded.told, updated_at = excluded.updated_at",
        )?
        .execute(params![key.source.as_str(), key.repository, number(key), to_json(told), micros(told.updated_at)])?;
    Ok(true)
}

pub(super) fn key_of_sandbox(connection: &Connection, sandbox: &str) -> Result<Option<PullRequestKey>, StoreError> {
    let query = "SELECT source, repository, number FROM pull_requests WHERE sandbox = ?1 LIMIT 1";
    let found = connection.prepare_cached(query)?.query_row([sandbox], |row| {
        let number: i64 = row.get("number")?;
        let repository = row.get("repository")?;
        Ok(super::values::text(row, "source").map(|source| PullRequestKey {
            source,
            repository,
            number: u64::try_from(number).unwrap_or_default(),
        }))
    });
    found.optional()?.transpose()
}

fn load(connection: &Connection, key: &PullRequestKey) -> Result<Option<PullRequestRecord>, StoreError> {
    let query = "SELECT * FROM pull_requests WHERE source = ?1 AND repository = ?2 AND number = ?3";
    let found =
        connection.prepare_cached(query)?.query_row(params![key.source.as_str(), key.repository, number(key)], |row| {
            let (deployed, problem, comment) = (row.get("deployed")?, row.get("problem")?, row.get("comment")?);
            let record = || {
                Ok(PullRequestRecord {
                    told: json(row, "told")?,
                    sandbox: optional_text(row, "sandbox")?,
                    reported: optional_json(row, "reported")?.unwrap_or_default(),
                    deployed,
                    problem,
                    comment,
                })
            };
            Ok(record())
        });
    found.optional()?.transpose()
}

fn number(key: &PullRequestKey) -> i64 {
    i64::try_from(key.number).unwrap_or(i64::MAX)
}
