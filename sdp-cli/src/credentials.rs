//! Whom one is signed in as, by server: `credentials.toml`, which only its owner can read.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sdp_core::{UserName, client::ServerAddress, protocol::TokenFrame};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};

use crate::{config::replace, error::CliError};

/// A sign-in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Credential {
    /// Who.
    pub(crate) user: UserName,
    token: TokenFrame,
    /// When it ends at the latest.
    pub(crate) expires_at: Timestamp,
}

impl Credential {
    pub(crate) fn new(user: UserName, token: SecretString, expires_at: Timestamp) -> Self {
        Self { user, token: TokenFrame(token), expires_at }
    }

    pub(crate) fn token(&self) -> &SecretString {
        &self.token.0
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Credentials {
    path: PathBuf,
    servers: BTreeMap<String, Credential>,
}

impl Credentials {
    /// Reads it; what is not there holds nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let empty = || Self { path: path.to_owned(), servers: BTreeMap::new() };
        let mode = match fs::metadata(path) {
            Ok(metadata) => metadata.permissions().mode(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty()),
            Err(error) => return Err(CliError::file("read", path)(error)),
        };
        if mode & 0o077 != 0 {
            return Err(CliError::Open { path: path.to_owned() });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(CliError::file("read", path))?);
        let servers = toml::from_str(&text).map_err(|_| {
            // The reader's own message would quote the line, with the token.
            let reason = io::Error::other("it is not as `sdp login` wrote it; remove it and sign in again");
            CliError::file("read", path)(reason)
        })?;
        Ok(Self { servers, ..empty() })
    }

    /// The sign-in to a server.
    pub(crate) fn get(&self, server: &ServerAddress) -> Option<&Credential> {
        self.servers.get(server.as_str())
    }

    /// Keeps a sign-in, in the place of the one before.
    pub(crate) fn set(&mut self, server: &ServerAddress, credential: Credential) -> Result<(), CliError> {
        self.servers.insert(server.to_string(), credential);
        self.write()
    }

    /// Forgets a sign-in. False when there was none.
    pub(crate) fn remove(&mut self, server: &ServerAddress) -> Result<bool, CliError> {
        let was_there = self.servers.remove(server.as_str()).is_some();
        if was_there {
            self.write()?;
        }
        Ok(was_there)
    }

    fn write(&self) -> Result<(), CliError> {
        let text = toml::to_string(&self.servers).map(Zeroizing::new);
        let text = text.map_err(|error| CliError::file("written", &self.path)(io::Error::other(error)))?;
        replace(&self.path, &text)
    }
}

/// What was typed or piped, without its line end.
pub(crate) fn secret(text: String) -> SecretString {
    let text = Zeroizing::new(text);
    SecretString::from(text.trim_end_matches(['\r', '\n']))
}

/// Whether there is anything to it.
pub(crate) fn is_empty(secret: &SecretString) -> bool {
    secret.expose_secret().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sdp/credentials.toml");
        (dir, path)
    }

    #[test]
    fn sign_ins_are_kept_by_server_for_their_owner_only() {
        let (_dir, path) = file();
        let (one, other): (ServerAddress, ServerAddress) = ("sdp.example".parse().unwrap(), "b:1".parse().unwrap());
        let mut credentials = Credentials::read(&path).unwrap();
        let credential = Credential::new("ada".parse().unwrap(), "s3cret".into(), Timestamp::UNIX_EPOCH);
        credentials.set(&one, credential).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut credentials = Credentials::read(&path).unwrap();
        assert!(credentials.get(&other).is_none());
        let read = credentials.get(&one).unwrap();
        assert_eq!((read.user.as_str(), read.token().expose_secret()), ("ada", "s3cret"));
        assert!(!format!("{credentials:?}").contains("s3cret"));
        assert!(credentials.remove(&one).unwrap() && !credentials.remove(&one).unwrap());
        assert!(!fs::read_to_string(&path).unwrap().contains("s3cret"));
    }

    #[test]
    fn a_file_that_others_can_read_is_not_used_and_a_broken_one_is_not_quoted() {
        let (_dir, path) = file();
        replace(&path, "[x]\ntoken = 's3cret\n").unwrap();
        let error = Credentials::read(&path).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Credentials::read(&path).unwrap_err();
        assert!(error.cure().unwrap().starts_with("chmod 600"), "{error}");
    }

    #[test]
    fn a_line_end_is_no_part_of_a_secret_and_a_space_is() {
        assert_eq!(secret(" a \r\n".into()).expose_secret(), " a ");
        assert!(is_empty(&secret("\n".into())));
    }
}
