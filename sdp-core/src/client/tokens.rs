//! Tokens for scripts. Only a session makes, lists and revokes them.

use secrecy::SecretString;

use super::{
    Client, ClientError,
    call::{Call, segment},
};
use crate::{
    api::people::{CreateToken, NewToken},
    model::{ids::TokenId, user::ApiToken},
};

/// A token that was just made.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// For [`Client::with_token`]. It is shown this once.
    pub secret: SecretString,
    /// What is kept of it.
    pub token: ApiToken,
}

impl Client {
    /// The tokens of who asks, the newest first.
    ///
    /// # Errors
    /// As every request.
    pub async fn tokens(&self) -> Result<Vec<ApiToken>, ClientError> {
        self.json(Call::get("/api/tokens")).await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::ErrorCode::NotAllowed) for a scope beyond the user's role.
    pub async fn create_token(&self, body: &CreateToken) -> Result<IssuedToken, ClientError> {
        let NewToken { secret, token } = self.json(Call::create("/api/tokens").json(body)).await?;
        Ok(IssuedToken { secret: secret.0, token })
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound), also for somebody else's unless an admin asks.
    pub async fn revoke_token(&self, id: TokenId) -> Result<(), ClientError> {
        self.nothing(Call::delete(format!("/api/tokens/{}", segment(id.to_string())))).await
    }
}
