//! People and their tokens, as the database has them. In memory as well, because every request asks: one server owns
//! the database, and changes both together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use sdp_core::{ApiToken, ErrorCode, Problem, Role, Scope, TokenId, User, UserName, api::people::CreateToken};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{API_TOKEN, token};
use crate::{
    config::AuthConfig,
    store::{Store, StoreError, UserRecord},
};

/// How exactly the use of a token is recorded: a script that asks often is not to write as often.
const USES: Duration = Duration::from_secs(60);

/// How long a token lives unless its maker says otherwise, and at most.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(90 * 86_400), Duration::from_secs(366 * 86_400));

/// How many tokens a person may have.
const MAX_TOKENS: usize = 100;

/// Why a change of people or tokens was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// It breaks a rule.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Everybody who ever signed in, and every token.
#[derive(Debug)]
pub struct People {
    store: Store,
    config: AuthConfig,
    known: Mutex<Known>,
    /// One change at a time, so that memory and database agree on which was last.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    users: BTreeMap<UserName, UserRecord>,
    tokens: HashMap<[u8; 32], Kept>,
}

#[derive(Debug)]
struct Kept {
    token: ApiToken,
    ended: CancellationToken,
    _end: DropGuard,
}

impl Kept {
    fn new(token: ApiToken) -> Self {
        let ended = CancellationToken::new();
        Self { token, _end: ended.clone().drop_guard(), ended }
    }
}

impl People {
    /// Reads them from the database.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn load(store: Store, config: AuthConfig) -> Result<Self, StoreError> {
        let mut known = Known::default();
        for user in store.users().await? {
            known.keep(user);
        }
        known.tokens = store.tokens().await?.into_iter().map(|(hash, token)| (hash, Kept::new(token))).collect();
        Ok(Self { store, config, known: Mutex::new(known), changing: tokio::sync::Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What somebody may do; none when they are locked out.
    pub fn role(&self, user: &UserName) -> Option<Role> {
        let known = self.known();
        if self.is_admin(user) {
            return Some(Role::Admin);
        }
        match known.find(user) {
            Some(UserRecord { disabled: true, .. }) => None,
            found => Some(found.and_then(|user| user.role).unwrap_or(self.config.default_role)),
        }
    }

    /// Whether the configuration makes somebody an admin.
    fn is_admin(&self, user: &UserName) -> bool {
        self.config.admins.contains(user) || self.config.admins.iter().any(|admin| admin.is(user))
    }

    /// Whether somebody ever signed in.
    pub fn is_known(&self, user: &UserName) -> bool {
        self.known().find(user).is_some()
    }

    /// Everybody who ever signed in, by name.
    pub fn users(&self) -> Vec<User> {
        self.known().users.values().map(|user| self.shown(user)).collect()
    }

    /// Somebody who signed in.
    pub fn user(&self, name: &UserName) -> Option<User> {
        self.known().find(name).map(|user| self.shown(user))
    }

    fn shown(&self, user: &UserRecord) -> User {
        let is_admin = self.is_admin(&user.name);
        let role = if is_admin { Role::Admin } else { user.role.unwrap_or(self.config.default_role) };
        let UserRecord { name, first_seen, last_seen, .. } = user.clone();
        User { name, role, disabled: user.disabled && !is_admin, first_seen, last_seen }
    }

    /// Takes note that somebody signed in. Gives their name as it was spelled the first time, under which they are known.
    pub(crate) async fn signed_in(&self, name: &UserName) -> Result<UserName, StoreError> {
        let _turn = self.changing.lock().await;
        let now = crate::store::now();
        let new = UserRecord { name: name.clone(), role: None, disabled: false, first_seen: now, last_seen: now };
        let before = self.known().find(name).cloned();
        let user = UserRecord { last_seen: now, ..before.unwrap_or(new) };
        self.store.save_user(&user).await?;
        let name = user.name.clone();
        self.known().keep(user);
        Ok(name)
    }

    /// Changes what somebody may do; what is absent stays. None when they never signed in.
    pub(crate) async fn change(
        &self,
        name: &UserName,
        role: Option<Role>,
        disabled: Option<bool>,
    ) -> Result<Option<User>, ChangeError> {
        let _turn = self.changing.lock().await;
        let Some(before) = self.known().find(name).cloned() else { return Ok(None) };
        if self.is_admin(name) {
            let sentence = format!(
                "{name} is an admin by `auth.admins` in the server's configuration, which alone can change that"
            );
            return Err(Problem::new(ErrorCode::Conflict, sentence).into());
        }
        let disabled = disabled.unwrap_or(before.disabled);
        let user = UserRecord { role: role.or(before.role), disabled, ..before };
        self.store.save_user(&user).await?;
        let mut known = self.known();
        known.keep(user.clone());
        if user.disabled {
            // Streams that were opened with them end.
            known.tokens.values().filter(|kept| kept.token.user == user.name).for_each(|kept| kept.ended.cancel());
        }
        Ok(Some(self.shown(&user)))
    }

    /// The token of this secret, which counts as used now; and what is cancelled when it ends.
    pub(crate) fn find_token(&self, secret: &str) -> Option<(ApiToken, CancellationToken)> {
        let (hash, now) = (token::hash(secret), Timestamp::now());
        let mut known = self.known();
        let kept = known.tokens.get_mut(&hash).filter(|kept| now < kept.token.expires_at)?;
        if kept.ended.is_cancelled() {
            // Its user was locked out, and perhaps is no more.
            *kept = Kept::new(kept.token.clone());
        }
        if kept.token.last_used.is_none_or(|last| now.duration_since(last).unsigned_abs() >= USES) {
            kept.token.last_used = Some(now);
            let (store, id) = (self.store.clone(), kept.token.id);
            tokio::spawn(async move {
                if let Err(error) = store.token_used(id, now).await {
                    tracing::warn!(token = %id, %error, "when a token was last used could not be kept");
                }
            });
        }
        Some((kept.token.clone(), kept.ended.clone()))
    }

    /// Somebody's tokens, the newest first.
    pub fn tokens(&self, user: &UserName) -> Vec<ApiToken> {
        let known = self.known();
        let mut tokens: Vec<_> =
            known.tokens.values().map(|kept| &kept.token).filter(|token| token.user == *user).cloned().collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.id));
        tokens
    }

    /// Makes a token for somebody of this role. Its secret is not to be had again.
    pub(crate) async fn create_token(
        &self,
        user: &UserName,
        role: Role,
        wanted: CreateToken,
    ) -> Result<(SecretString, ApiToken), ChangeError> {
        let refused =
            |sentence: String, field| Err(Problem::new(ErrorCode::InvalidInput, sentence).field(field).into());
        if wanted.scopes.is_empty() {
            let scopes: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
            return refused(format!("name at least one scope: {}", scopes.join(", ")), "scopes");
        }
        if let Some(scope) = wanted.scopes.iter().find(|scope| scope.role() > role) {
            let sentence = format!("the scope {scope} needs the role {}, and {user} has {role}", scope.role());
            return Err(Problem::new(ErrorCode::NotAllowed, sentence).field("scopes").into());
        }
        let (default, longest) = LIFETIME;
        let lifetime = wanted.expires_in.unwrap_or(default);
        if lifetime.is_zero() || lifetime > longest {
            return refused("expires_in must be some time, at most \"366d\"".into(), "expires_in");
        }
        let _turn = self.changing.lock().await;
        if self.known().tokens.values().filter(|kept| kept.token.user == *user).count() >= MAX_TOKENS {
            let sentence = format!("{user} has {MAX_TOKENS} tokens; revoke one that is not needed any more");
            return Err(Problem::new(ErrorCode::Conflict, sentence).into());
        }
        let now = crate::store::now();
        let token = ApiToken {
            id: TokenId::new(),
            user: user.clone(),
            name: wanted.name,
            scopes: wanted.scopes,
            created_at: now,
            expires_at: now.saturating_add(lifetime).unwrap_or(Timestamp::MAX),
            last_used: None,
        };
        let secret = token::new_token(API_TOKEN);
        let hash = token::hash(secret.expose_secret());
        self.store.insert_token(&token, hash).await?;
        self.known().tokens.insert(hash, Kept::new(token.clone()));
        Ok((secret, token))
    }

    /// The token with this id.
    pub fn token(&self, id: TokenId) -> Option<ApiToken> {
        self.known().tokens.values().map(|kept| &kept.token).find(|token| token.id == id).cloned()
    }

    /// Ends a token. False when there is none.
    pub(crate) async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        let _turn = self.changing.lock().await;
        let deleted = self.store.delete_token(id).await?;
        self.known().tokens.retain(|_, kept| kept.token.id != id);
        Ok(deleted)
    }

    /// Forgets the tokens that have expired.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let expired: Vec<_> = {
            let known = self.known();
            known.tokens.values().map(|kept| &kept.token).filter(|it| it.expires_at <= now).map(|it| it.id).collect()
        };
        for id in expired {
            self.revoke_token(id).await?;
        }
        Ok(())
    }
}

impl Known {
    /// Somebody, however their name is spelled.
    fn find(&self, name: &UserName) -> Option<&UserRecord> {
        self.users.get(name).or_else(|| self.users.values().find(|user| user.name.is(name)))
    }

    fn keep(&mut self, user: UserRecord) {
        self.users.insert(user.name.clone(), user);
    }
}
