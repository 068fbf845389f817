//! People: what each may do, and the tokens with which their scripts do it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ids::TokenId,
    names::{TokenName, UserName},
};

/// Defines an ordered set of names once: variant and name on the wire.
macro_rules! ranks {
    ($(#[$doc:meta])* $name:ident, $error:ident, $kind:literal { $($(#[$each:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$each])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// All of them, the least first.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the wire, in the database and to people.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        #[doc = concat!("A text that is not a ", $kind, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("{0:?} is not a {kind}", kind = $kind)]
        pub struct $error(pub String);

        impl std::str::FromStr for $name {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::ALL.iter().copied().find(|it| it.as_str() == text).ok_or_else(|| $error(text.into()))
            }
        }
    };
}

ranks! {
    /// What a person may do; each may also do what those before it may.
    Role, UnknownRole, "role" {
        /// Looks at everything and changes nothing.
        Viewer = "viewer",
        /// Deploys: quick deploys, and into sandboxes of their own or shared with them.
        Developer = "developer",
        /// Does everything.
        Admin = "admin",
    }
}

ranks! {
    /// What a token may be used for; each also allows what those before it do, and none more than its user may.
    Scope, UnknownScope, "scope" {
        /// What a viewer may.
        Read = "read",
        /// What a developer may.
        Deploy = "deploy",
        /// What an admin may.
        Admin = "admin",
    }
}

impl Scope {
    /// The role that a token of this scope stands for, if its user has it.
    pub fn role(self) -> Role {
        match self {
            Self::Read => Role::Viewer,
            Self::Deploy => Role::Developer,
            Self::Admin => Role::Admin,
        }
    }
}

/// A person who has signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct User {
    /// The git user name.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// Whether they are locked out: their sessions have ended, their tokens are refused.
    #[serde(default)]
    pub disabled: bool,
    /// When they first signed in.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub first_seen: Timestamp,
    /// When they last signed in.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub last_seen: Timestamp,
}

/// A token for scripts, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserName,
    /// What it is for.
    pub name: TokenName,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub created_at: Timestamp,
    /// When it ends.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub expires_at: Timestamp,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Time>"))]
    pub last_used: Option<Timestamp>,
}

impl ApiToken {
    /// The role that its scopes stand for, if its user has it.
    pub fn role(&self) -> Role {
        self.scopes.last().map_or(Role::Viewer, |scope| scope.role())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_stands_for_one_role_in_the_same_order() {
        let roles: Vec<_> = Scope::ALL.iter().map(|scope| scope.role()).collect();
        assert_eq!(roles, Role::ALL);
        assert!(roles.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
            assert_eq!(serde_json::to_string(role).unwrap(), format!("\"{role}\""));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
