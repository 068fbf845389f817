//! People, for admins.

use super::{
    Client, ClientError,
    call::{Call, segment},
};
use crate::{
    api::people::ChangeUser,
    model::{names::UserName, user::User},
};

fn path(name: &UserName) -> String {
    format!("/api/users/{}", segment(name))
}

impl Client {
    /// Everybody who has signed in.
    ///
    /// # Errors
    /// [`NotAllowed`](crate::ErrorCode::NotAllowed) unless an admin asks; so do the others here.
    pub async fn users(&self) -> Result<Vec<User>, ClientError> {
        self.json(Call::get("/api/users")).await
    }

    /// Somebody who has signed in.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn user(&self, name: &UserName) -> Result<User, ClientError> {
        self.json(Call::get(path(name))).await
    }

    /// Gives a role, locks out, or lets in again.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when the configuration says otherwise, or the last admin would go.
    pub async fn change_user(&self, name: &UserName, body: &ChangeUser) -> Result<User, ClientError> {
        self.json(Call::put(path(name)).json(body)).await
    }
}
