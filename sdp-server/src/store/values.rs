//! Domain values to columns and back.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::Row;
use serde::{Serialize, de::DeserializeOwned};

use super::error::StoreError;

pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("stored values hold only strings, numbers and maps with text keys")
}

/// A column that holds the name of a unit-like value: what serde writes, without the quotes.
pub(super) fn to_name<T: Serialize>(value: &T) -> String {
    to_json(value).trim_matches('"').to_owned()
}

/// Now, no more exactly than it is kept: what is answered to who makes something is what others read later.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(micros(now)).unwrap_or(now)
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

fn unreadable(column: &'static str, error: impl ToString) -> StoreError {
    StoreError::Unreadable { column, reason: error.to_string() }
}

pub(super) fn text<T>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError>
where
    T: FromStr<Err: ToString>,
{
    optional_text(row, column)?.ok_or_else(|| unreadable(column, "it is empty"))
}

pub(super) fn optional_text<T>(row: &Row<'_>, column: &'static str) -> Result<Option<T>, StoreError>
where
    T: FromStr<Err: ToString>,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| unreadable(column, error))).transpose()
}

pub(super) fn name<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.get(column)?;
    serde_json::from_value(text.into()).map_err(|error| unreadable(column, error))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Result<T, StoreError> {
    optional_json(row, column)?.ok_or_else(|| unreadable(column, "it is empty"))
}

pub(super) fn optional_json<T: DeserializeOwned>(row: &Row<'_>, column: &'static str) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|error| unreadable(column, error))).transpose()
}

pub(super) fn time(row: &Row<'_>, column: &'static str) -> Result<Timestamp, StoreError> {
    optional_time(row, column)?.ok_or_else(|| unreadable(column, "it is empty"))
}

pub(super) fn optional_time(row: &Row<'_>, column: &'static str) -> Result<Option<Timestamp>, StoreError> {
    let micros: Option<i64> = row.get(column)?;
    micros.map(|at| Timestamp::from_microsecond(at).map_err(|error| unreadable(column, error))).transpose()
}
