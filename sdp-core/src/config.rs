//! Layered configuration: a TOML file, over it environment variables, over those flags.
//!
//! A pure function: text and pairs in, a typed value or an error that names file, line and key out.
//! Reading the file and the environment is the caller's, so that tests set neither.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong below.
        #[source]
        source: std::io::Error,
    },
    /// The file is not valid.
    #[error("{}:{line}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, with the key.
        reason: String,
    },
    /// An environment variable or flag is not valid, or a key is missing everywhere.
    #[error("the configuration is not valid: {0}")]
    Overridden(String),
    /// A value that only makes sense together with others is wrong.
    #[error("`{key}` {reason}")]
    Invalid {
        /// The key, dotted.
        key: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
}

/// The layers of one configuration.
#[derive(Debug, Default)]
pub struct Layers {
    file: Option<(PathBuf, String)>,
    overrides: Vec<(String, Vec<String>, String)>,
}

impl Layers {
    /// No layers: every key has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the file's text; `path` is for messages.
    pub fn file(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.file = Some((path.into(), text.into()));
        self
    }

    /// Adds the variables that start with `prefix`: `SDP_SERVER__LISTEN__PORT=1` for the prefix
    /// `SDP_SERVER` sets `listen.port`.
    pub fn env(mut self, prefix: &str, vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let prefix = format!("{prefix}__");
        let mut found: Vec<_> = vars
            .into_iter()
            .filter_map(|(name, value)| {
                let keys = name.strip_prefix(&prefix)?.split("__").map(str::to_ascii_lowercase).collect();
                Some((name, keys, value))
            })
            .collect();
        found.sort();
        self.overrides.extend(found);
        self
    }

    /// Adds one value for a dotted key, as `--set KEY=VALUE` gives it on a command line.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let keys = key.split('.').map(str::to_owned).collect();
        self.overrides.push((format!("--set {key}"), keys, value.into()));
        self
    }

    /// The typed configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and line, or the variable or flag, and the key at fault.
    pub fn load<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        let (path, text) = self.file.unwrap_or_default();
        let at = |error: &toml::de::Error| {
            let offset = error.span().map_or(0, |span| span.start.min(text.len()));
            text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
        };
        let mut table: Table = toml::from_str(&text).map_err(|error| ConfigError::File {
            path: path.clone(),
            line: at(&error),
            reason: error.message().into(),
        })?;
        if self.overrides.is_empty() {
            return toml::from_str(&text).map_err(|error| match error.span() {
                Some(span) if !text.is_empty() && span.start < text.len() && span != (0..text.len()) => {
                    ConfigError::File { path: path.clone(), line: at(&error), reason: error.message().into() }
                }
                _ => ConfigError::Overridden(error.message().into()),
            });
        }
        for (name, keys, value) in &self.overrides {
            set(&mut table, keys, parse_value(value)).map_err(|key| {
                ConfigError::Overridden(format!("{name} sets a key below `{key}`, which is not a table"))
            })?;
        }
        let names: Vec<_> = self.overrides.iter().map(|(name, ..)| name.as_str()).collect();
        Value::Table(table).try_into().map_err(|error: toml::de::Error| {
            // The file alone tells the line when the fault is the file's.
            match toml::from_str::<T>(&text) {
                Err(alone)
                    if alone.message() == error.message() && alone.span().is_some_and(|span| !span.is_empty()) =>
                {
                    ConfigError::File { path: path.clone(), line: at(&alone), reason: alone.message().into() }
                }
                _ => {
                    ConfigError::Overridden(format!("{} (set besides the file: {})", error.message(), names.join(", ")))
                }
            }
        })
    }
}

/// The secret that the file at `path` holds, without its line end. `key` is what names the file.
///
/// # Errors
/// [`ConfigError::Invalid`] when the file cannot be read, or is empty.
pub fn read_secret(key: &str, path: &Path) -> Result<SecretString, ConfigError> {
    let invalid = |reason: String| ConfigError::Invalid { key: key.into(), reason };
    let whole = match std::fs::read_to_string(path) {
        Ok(text) => SecretString::from(text),
        Err(error) => return Err(invalid(format!("names {}, which cannot be read: {error}", path.display()))),
    };
    let secret: SecretString = whole.expose_secret().trim_end_matches(['\r', '\n']).into();
    if secret.expose_secret().is_empty() {
        return Err(invalid(format!("names {}, which is empty", path.display())));
    }
    Ok(secret)
}

/// A value given as text: what TOML reads as a number, boolean, list or table is one; the rest is
/// a string.
fn parse_value(text: &str) -> Value {
    match toml::from_str::<Table>(&format!("v = {text}")) {
        Ok(mut table) if table.len() == 1 => table.remove("v").unwrap_or_else(|| Value::String(text.into())),
        _ => Value::String(text.into()),
    }
}

fn set<'a>(table: &mut Table, keys: &'a [String], value: Value) -> Result<(), &'a str> {
    let Some((first, rest)) = keys.split_first() else { return Ok(()) };
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return Ok(());
    }
    match table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, value),
        _ => Err(first),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: String,
        #[serde(default)]
        listen: Listen,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Listen {
        #[serde(default)]
        port: u16,
        #[serde(default)]
        host: String,
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn variables_win_over_the_file_and_flags_over_both() {
        let config: Config = Layers::new()
            .file("x.toml", "name = 'a'\n[listen]\nport = 1\nhost = 'f'\n")
            .env("SDP_X", env(&[("SDP_X__LISTEN__PORT", "2"), ("SDP_X__LISTEN__HOST", "e"), ("OTHER", "z")]))
            .set("listen.host", "flag")
            .load()
            .unwrap();
        assert_eq!(config, Config { name: "a".into(), listen: Listen { port: 2, host: "flag".into() } });
    }

    #[test]
    fn a_fault_in_the_file_is_told_with_its_line_and_key() {
        for overrides in [vec![], env(&[("SDP_X__LISTEN__HOST", "e")])] {
            let layers = Layers::new().file("x.toml", "name = 'a'\n[listen]\nprot = 1\n").env("SDP_X", overrides);
            let error = layers.load::<Config>().unwrap_err();
            assert!(error.to_string().starts_with("x.toml:3: unknown field `prot`"), "{error}");
        }
        let error = Layers::new().file("x.toml", "name = 'a'\nlisten = [\n").load::<Config>().unwrap_err();
        assert!(matches!(error, ConfigError::File { .. }), "{error}");
    }

    #[test]
    fn a_missing_key_and_a_bad_variable_are_named() {
        let error = Layers::new().load::<Config>().unwrap_err();
        assert_eq!(error.to_string(), "the configuration is not valid: missing field `name`");
        let layers = Layers::new().file("x.toml", "name = 'a'").env("SDP_X", env(&[("SDP_X__LISTEN__PORT", "many")]));
        let error = layers.load::<Config>().unwrap_err();
        assert!(error.to_string().contains("SDP_X__LISTEN__PORT"), "{error}");
    }
}
