//! What a person sets once: `config.toml`.

use std::{fs, io, path::Path};

use sdp_core::{client::ServerAddress, config::Layers};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// The file. Every key may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// A file of CA certificates to trust besides the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<String>,
}

/// A key of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Key {
    /// The server's address.
    Server,
    /// A file of CA certificates to trust besides the machine's.
    CaFile,
}

impl Config {
    /// Reads the file; what is not there sets nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Layers::new().file(path, text).load()?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(CliError::file("read", path)(error)),
        }
    }

    /// Sets a key, or takes it out.
    pub(crate) fn set(&mut self, key: Key, value: Option<String>) -> Result<(), CliError> {
        match key {
            Key::Server => {
                let address = value.map(|value| value.parse::<ServerAddress>()).transpose()?;
                self.server = address.map(|address| address.to_string());
            }
            Key::CaFile => self.ca_file = value,
        }
        Ok(())
    }

    /// Writes the file anew.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = toml::to_string(self).map_err(|error| CliError::file("written", path)(io::Error::other(error)))?;
        replace(path, &text)
    }
}

/// Puts a file of which only its owner can read anything into its place, whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let write = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        // The mode of a temporary file is 600.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(CliError::file("written", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_reads_back_and_what_is_unknown_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/config.toml");
        assert_eq!(Config::read(&path).unwrap(), Config::default());
        let mut config = Config::default();
        config.set(Key::Server, Some("sdp.example/".into())).unwrap();
        config.write(&path).unwrap();
        assert_eq!(Config::read(&path).unwrap().server.as_deref(), Some("http://sdp.example"));
        assert!(config.set(Key::Server, Some("ftp://x".into())).is_err());
        fs::write(&path, "server = 'http://a'\nsevrer = 'http://b'\n").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("config.toml:2") && error.contains("sevrer"), "{error}");
    }
}
