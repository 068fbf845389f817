//! The keys of a configuration, as the type that reads it knows them.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// No configuration has such a key.
const UNKNOWN: &str = "zzz";

/// Every key of a configuration, dotted, without those of tables with names of their own. It is asked for a key that it
/// does not have, in each of its tables, and names those that it has: its types deny unknown fields.
///
/// ```
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config { name: String, limits: Limits }
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Limits { cpus: f64 }
/// let keys = sdp_core::testing::config_keys::<Config>();
/// assert_eq!(keys.iter().collect::<Vec<_>>(), ["limits.cpus", "name"]);
/// ```
pub fn config_keys<T: DeserializeOwned>() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    // Each table as a path of keys, and whether there are many of it.
    let mut tables: Vec<Vec<(String, bool)>> = vec![Vec::new()];
    while let Some(table) = tables.pop() {
        for key in asked::<T>(&table).unwrap_or_default() {
            let below = |many| [table.clone(), vec![(key.clone(), many)]].concat();
            match [false, true].map(below).into_iter().find(|path| asked::<T>(path).is_some()) {
                Some(path) => tables.push(path),
                None => {
                    let path = table.iter().map(|(key, _)| key.as_str()).chain([key.as_str()]);
                    keys.insert(path.collect::<Vec<_>>().join("."));
                }
            }
        }
    }
    keys
}

/// The keys of a table; none when there is no table.
fn asked<T: DeserializeOwned>(table: &[(String, bool)]) -> Option<Vec<String>> {
    let innermost = Table::from_iter([(UNKNOWN.to_owned(), Value::Boolean(true))]);
    let value = table.iter().rev().fold(innermost, |inner, (key, many)| {
        let inner = Value::Table(inner);
        Table::from_iter([(key.clone(), if *many { Value::Array(vec![inner]) } else { inner })])
    });
    let error = Value::Table(value).try_into::<T>().err()?.message().to_owned();
    let (_, known) = error.split_once(&format!("unknown field `{UNKNOWN}`, expected "))?;
    Some(known.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}
