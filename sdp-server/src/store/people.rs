//! People who have signed in, and their tokens for scripts. Of a token only its SHA-256 is kept.

use jiff::Timestamp;
use rusqlite::{Row, params};
use sdp_core::{ApiToken, Role, TokenId, UserName};

use super::{
    Store, StoreError,
    values::{json, micros, optional_text, optional_time, text, time, to_json},
};

/// A person as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// The git user name.
    pub name: UserName,
    /// The role that an admin gave; none for the configured one.
    pub role: Option<Role>,
    /// Whether they are locked out.
    pub disabled: bool,
    /// When they first signed in.
    pub first_seen: Timestamp,
    /// When they last signed in.
    pub last_seen: Timestamp,
}

impl Store {
    /// Everybody who ever signed in, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM users ORDER BY name")?;
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(UserRecord {
                        name: text(row, "name")?,
                        role: optional_text(row, "role")?,
                        disabled: row.get("disabled")?,
                        first_seen: time(row, "first_seen")?,
                        last_seen: time(row, "last_seen")?,
                    });
                }
                Ok(found)
            })
            .await
    }

    /// Keeps a person, in the place of what was kept of them.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn save_user(&self, user: &UserRecord) -> Result<(), StoreError> {
        let user = user.clone();
        self.writer
            .write(move |connection| {
                let query =
                    "INSERT INTO users (name, role, disabled, first_seen, last_seen) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT (name) DO UPDATE SET role = ?2, disabled = ?3, first_seen = ?4, last_seen = ?5";
                let role = user.role.map(Role::as_str);
                let (first, last) = (micros(user.first_seen), micros(user.last_seen));
                connection.prepare_cached(query)?.execute(params![
                    user.name.as_str(),
                    role,
                    user.disabled,
                    first,
                    last
                ])?;
                Ok(())
            })
            .await
    }

    /// Every token with the SHA-256 of its secret, by id.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens(&self) -> Result<Vec<([u8; 32], ApiToken)>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM tokens ORDER BY id")?;
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push((row.get("hash")?, token(row)?));
                }
                Ok(found)
            })
            .await
    }

    /// Keeps a new token by the SHA-256 of its secret.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn insert_token(&self, token: &ApiToken, hash: [u8; 32]) -> Result<(), StoreError> {
        let token = token.clone();
        self.writer
            .write(move |connection| {
                let query = "INSERT INTO tokens (id, user, name, hash, scopes, created_at, expires_at)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
                connection.prepare_cached(query)?.execute(params![
                    token.id.to_string(),
                    token.user.as_str(),
                    token.name.as_str(),
                    hash,
                    to_json(&token.scopes),
                    micros(token.created_at),
                    micros(token.expires_at),
                ])?;
                Ok(())
            })
            .await
    }

    /// Keeps when a token was last used.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn token_used(&self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                let query = "UPDATE tokens SET last_used = ?2 WHERE id = ?1";
                connection.prepare_cached(query)?.execute(params![id.to_string(), micros(at)])?;
                Ok(())
            })
            .await
    }

    /// Forgets a token. False when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn delete_token(&self, id: TokenId) -> Result<bool, StoreError> {
        self.writer
            .write(move |connection| {
                let query = "DELETE FROM tokens WHERE id = ?1";
                Ok(connection.prepare_cached(query)?.execute([id.to_string()])? > 0)
            })
            .await
    }
}

fn token(row: &Row<'_>) -> Result<ApiToken, StoreError> {
    Ok(ApiToken {
        id: text(row, "id")?,
        user: text(row, "user")?,
        name: text(row, "name")?,
        scopes: json(row, "scopes")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        last_used: optional_time(row, "last_used")?,
    })
}
