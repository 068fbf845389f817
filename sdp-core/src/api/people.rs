//! Who is signed in, people's roles, tokens for scripts, and the enrolment of agents.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{
        names::{AgentName, TokenName, UserName},
        units,
        user::{ApiToken, Role, Scope},
    },
    protocol::TokenFrame,
};

/// The answer to `GET /api/me`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Me {
    /// Who is signed in.
    pub user: UserName,
    /// What they may do with what they signed in with: a token may less than its user.
    pub role: Role,
    /// When that ends at the latest.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub expires_at: Timestamp,
    /// The token it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ApiToken>,
}

/// `POST /api/logout?…`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogoutQuery {
    /// End every session of this user, not only this one.
    #[serde(default)]
    pub everywhere: bool,
}

/// `POST /api/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What it is for.
    pub name: TokenName,
    /// What it may be used for: at least one, and none that needs another role than its user's.
    pub scopes: BTreeSet<Scope>,
    /// How long it lives: at most 366 days, 90 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
}

/// The answer to `POST /api/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct NewToken {
    /// For the header `Authorization: Bearer …`. It is shown this once.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub secret: TokenFrame,
    /// What is kept of it.
    #[serde(flatten)]
    pub token: ApiToken,
}

/// `PUT /api/users/{name}`: what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeUser {
    /// What they may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether they are locked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// `POST /api/agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrolAgent {
    /// Its name.
    pub name: AgentName,
}

/// The answer to `POST /api/agents` and `POST /api/agents/{name}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct EnrolledAgent {
    /// Its name.
    pub name: AgentName,
    /// For the agent's `token_file`. It is shown this once.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub token: TokenFrame,
}
