//! Signing in and out.

use jiff::Timestamp;
use secrecy::SecretString;

use super::{Client, ClientError, call::Call};
use crate::{
    api::{
        LoginResponse,
        people::{LogoutQuery, Me},
    },
    model::{credentials::Credentials, names::UserName, user::Role},
    protocol::CredentialsFrame,
};

/// A session that has begun. The server keeps the git credentials in its memory for the session's deployments.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// A client with the session's token.
    pub client: Client,
    /// Who is signed in.
    pub user: UserName,
    /// What they may do.
    pub role: Role,
    /// When the session ends at the latest.
    pub expires_at: Timestamp,
}

impl Client {
    /// Signs in with git user and password, which an agent checks with the git host.
    ///
    /// # Errors
    /// [`InvalidCredentials`](crate::ErrorCode::InvalidCredentials), and
    /// [`RateLimited`](crate::ErrorCode::RateLimited) after too many of those.
    pub async fn sign_in(&self, username: UserName, password: SecretString) -> Result<SignedIn, ClientError> {
        let credentials = CredentialsFrame(Credentials::new(username, password));
        let answer: LoginResponse = self.json(Call::post("/api/login").unsigned().json(&credentials)).await?;
        let LoginResponse { user, role, token, expires_at } = answer;
        Ok(SignedIn { client: self.with_token(token.0)?, user, role, expires_at })
    }

    /// Ends the session, or every session of this user.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::ErrorCode::NotAllowed) with the token of a script, which is revoked instead.
    pub async fn sign_out(&self, everywhere: bool) -> Result<(), ClientError> {
        self.nothing(Call::post("/api/logout").query(&LogoutQuery { everywhere })).await
    }

    /// Who is signed in.
    ///
    /// # Errors
    /// [`NotSignedIn`](crate::ErrorCode::NotSignedIn).
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.json(Call::get("/api/me")).await
    }
}
