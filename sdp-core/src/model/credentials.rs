//! A person's git credentials while a request uses them.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::names::UserName;

/// A git user and password (or access token).
///
/// Deliberately neither printable nor serialisable: `Debug` shows the user name only, there is no
/// `Serialize`, and the memory of the password is overwritten when the last copy is dropped. The
/// one way over a wire is [`protocol::CredentialsFrame`](crate::protocol::CredentialsFrame).
///
/// ```compile_fail
/// fn printable<T: std::fmt::Display>() {}
/// printable::<sdp_core::Credentials>();
/// ```
/// ```compile_fail
/// fn serialisable<T: serde::Serialize>() {}
/// serialisable::<sdp_core::Credentials>();
/// ```
#[derive(Clone)]
pub struct Credentials {
    username: UserName,
    password: SecretString,
}

impl Credentials {
    /// Pairs a user with a password. An empty password is kept: some hosts take tokens as users.
    pub fn new(username: UserName, password: SecretString) -> Self {
        Self { username, password }
    }

    /// The user.
    pub fn username(&self) -> &UserName {
        &self.username
    }

    /// The password, for the one call that hands it to the git transport.
    pub fn expose_password(&self) -> &str {
        self.password.expose_secret()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_user_and_not_the_password() {
        let credentials = Credentials::new(UserName::new("ada").unwrap(), "hunter2".into());
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("ada") && !shown.contains("hunter2"));
    }
}
