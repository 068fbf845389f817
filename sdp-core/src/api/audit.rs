//! `GET /api/audit`: who did what, when and from where.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    ids::DeploymentId,
    names::{AuditSubject, UserName},
};

/// Defines the actions once: variant and name.
macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What was done. Names are stable; new ones may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum AuditAction {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl AuditAction {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the wire and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

actions! {
    /// Somebody signed in.
    SignIn = "sign-in";
    /// Somebody could not sign in: the git host refused the password.
    SignInFailed = "sign-in-failed";
    /// Somebody signed out.
    SignOut = "sign-out";
    /// A deployment was begun.
    Deploy = "deploy";
    /// A deployment was cancelled.
    Cancel = "cancel";
    /// What a deployment runs was stopped.
    Stop = "stop";
    /// What a deployment runs was started again.
    Restart = "restart";
    /// A command was run where a deployment runs; the detail has it as it was typed.
    Exec = "exec";
    /// A deployment was begun once more.
    Retry = "retry";
    /// A deployment went back to an earlier one's commit.
    Rollback = "rollback";
    /// A sandbox was made.
    SandboxCreate = "sandbox-create";
    /// A sandbox was made or changed by its document.
    SandboxApply = "sandbox-apply";
    /// A sandbox was deleted.
    SandboxDelete = "sandbox-delete";
    /// The end of a sandbox was moved.
    SandboxExtend = "sandbox-extend";
    /// Whom a sandbox is shared with was changed.
    SandboxShare = "sandbox-share";
    /// A sandbox was put to sleep.
    SandboxSleep = "sandbox-sleep";
    /// A sandbox was woken.
    SandboxWake = "sandbox-wake";
    /// The time of a sandbox was over, and the platform began to delete it.
    SandboxExpire = "sandbox-expire";
    /// An environment was made.
    EnvironmentCreate = "environment-create";
    /// An environment was set anew.
    EnvironmentReplace = "environment-replace";
    /// An environment was deleted.
    EnvironmentDelete = "environment-delete";
    /// A template was made.
    TemplateCreate = "template-create";
    /// A template was set anew.
    TemplateReplace = "template-replace";
    /// A template was deleted.
    TemplateDelete = "template-delete";
    /// A token was made.
    TokenCreate = "token-create";
    /// A token was revoked.
    TokenRevoke = "token-revoke";
    /// What a user may do was changed.
    UserChange = "user-change";
    /// An agent was enrolled.
    AgentEnrol = "agent-enrol";
    /// An agent got another token.
    AgentRotate = "agent-rotate";
    /// An agent's token was revoked.
    AgentRevoke = "agent-revoke";
    /// A route was set, or given back to the stable cluster.
    RouteSet = "route-set";
    /// A route was taken from the sandbox that held it.
    RouteTakeover = "route-takeover";
    /// The platform gave a route back to the stable cluster: its claim had ended, or what it led to.
    RouteReleased = "route-released";
}

impl std::fmt::Display for AuditAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an action of the audit")]
pub struct UnknownAction(pub String);

impl std::str::FromStr for AuditAction {
    type Err = UnknownAction;
    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text).ok_or_else(|| UnknownAction(text.into()))
    }
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct AuditEntry {
    /// Its place: later entries have larger ones.
    pub id: u64,
    /// When.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub at: Timestamp,
    /// Who; none when the platform did it of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Address>"))]
    pub address: Option<IpAddr>,
    /// What.
    pub action: AuditAction,
    /// To what: `sandboxes/pay`, `sandboxes/pay/routes/eredar`, `sandboxes/pay/repos/eredar`, `repos/eredar`,
    /// `users/ada`, `agents/micro-92`.
    pub subject: AuditSubject,
    /// The deployment that it was done to, or that it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// More of it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `GET /api/audit?…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AuditFilter {
    /// Only what this user did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Only this action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<AuditAction>,
    /// Only what was done to this and to what is in it: `sandboxes/pay` has its routes and repos. Or a deployment's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<AuditSubject>,
    /// Only what came before this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// At most this many: 1 to 500, default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_read_back_from_their_names() {
        for action in AuditAction::ALL {
            assert_eq!(action.as_str().parse(), Ok(*action));
            assert_eq!(serde_json::to_string(action).unwrap(), format!("\"{action}\""));
        }
        assert!("think".parse::<AuditAction>().is_err());
    }
}
