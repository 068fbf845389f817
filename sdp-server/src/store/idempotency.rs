//! What creating requests with an `Idempotency-Key` were answered.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, named_params, params};
use sdp_core::UserName;

use super::{
    Store, StoreError,
    values::{micros, optional_json, to_json},
};

/// A request that is to be carried out once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// Who asks.
    pub user: UserName,
    /// The method and the path.
    pub route: String,
    /// The key that they gave it.
    pub key: String,
    /// The SHA-256 of all that matters of it.
    pub request: [u8; 32],
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers that matter.
    pub headers: BTreeMap<String, String>,
    /// The body; none where it held a secret.
    pub body: Option<Vec<u8>>,
}

/// What there is of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// It is the first, and under way from now on.
    New,
    /// The first is under way.
    UnderWay,
    /// The key was given to another request.
    Different,
    /// It was answered.
    Answered(Answer),
}

impl Store {
    /// Takes note of a request, unless it is known.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn begin_once(&self, id: &RequestId) -> Result<Once, StoreError> {
        let (id, now) = (id.clone(), Timestamp::now());
        self.writer
            .write(move |connection| {
                let query = "SELECT request = :request AS same, status, headers, body FROM idempotency
                    WHERE user = :user AND route = :route AND key = :key";
                let mut statement = connection.prepare_cached(query)?;
                let values = named_params! {
                    ":user": id.user.as_str(), ":route": id.route, ":key": id.key, ":request": id.request,
                };
                let found = statement.query_row(values, |row| {
                    let headers = optional_json(row, "headers");
                    Ok((row.get("same")?, row.get("status")?, headers, row.get("body")?))
                });
                match found.optional()? {
                    Some((false, ..)) => Ok(Once::Different),
                    Some((true, Some(status), headers, body)) => {
                        Ok(Once::Answered(Answer { status, headers: headers?.unwrap_or_default(), body }))
                    }
                    Some((true, None, ..)) => Ok(Once::UnderWay),
                    None => {
                        let query =
                            "INSERT INTO idempotency (user, route, key, request, at) VALUES (?1, ?2, ?3, ?4, ?5)";
                        let values = params![id.user.as_str(), id.route, id.key, id.request, micros(now)];
                        connection.prepare_cached(query)?.execute(values)?;
                        Ok(Once::New)
                    }
                }
            })
            .await
    }

    /// Keeps what a request was answered, or forgets it, so that it can be asked again.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn end_once(&self, id: &RequestId, answer: Option<Answer>) -> Result<(), StoreError> {
        let id = id.clone();
        self.writer
            .write(move |connection| {
                let Some(answer) = answer else {
                    let query = "DELETE FROM idempotency WHERE user = ?1 AND route = ?2 AND key = ?3";
                    connection.prepare_cached(query)?.execute(params![id.user.as_str(), id.route, id.key])?;
                    return Ok(());
                };
                let query = "UPDATE idempotency SET status = ?4, headers = ?5, body = ?6
                    WHERE user = ?1 AND route = ?2 AND key = ?3";
                let headers = to_json(&answer.headers);
                let values = params![id.user.as_str(), id.route, id.key, answer.status, headers, answer.body];
                connection.prepare_cached(query)?.execute(values)?;
                Ok(())
            })
            .await
    }

    /// Forgets what was asked before `end`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn forget_once(&self, end: Timestamp) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                connection.prepare_cached("DELETE FROM idempotency WHERE at < ?1")?.execute([micros(end)])?;
                Ok(())
            })
            .await
    }

    /// Forgets what was under way when the server stopped: nobody will answer it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn forget_interrupted(&self) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                connection.prepare_cached("DELETE FROM idempotency WHERE status IS NULL")?.execute([])?;
                Ok(())
            })
            .await
    }
}
