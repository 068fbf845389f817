//! The trait [`RouteStore`]: where the gateway sends each service.

use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    model::{
        explain::{Explanation, RouteQuestion},
        names::{BranchName, ClaimReason, SandboxKey, SandboxName, ServiceName},
        route::{RouteChanges, RouteDefaults, RouteTable},
    },
    problem::{ErrorCode, Problem, chain},
};

/// The routes of one gateway.
///
/// # Contract
/// - The gateway's file after [`apply`](Self::apply) is the branch's committed bytes with exactly
///   the overridden values changed; with no overrides left, it is the committed bytes.
/// - A reader of the file, the gateway above all, sees the old table or the new one, never a part.
/// - Where the gateway routes per request, a request that carries a sandbox's key sees that sandbox's routes, and every
///   other request what it would see without that sandbox. The file then has each value that can be chosen per request
///   wrapped, with its own source inside. Switched off again, the file is as above.
/// - An override is its owner's claim: another sandbox is refused while it lasts, unless it takes the service over.
/// - On any `Err` the file is as it was.
/// - The overrides survive this process, and a fresh checkout of the gateway's repo.
/// - Calls may run side by side, in several processes; changes are put into one order.
#[async_trait]
pub trait RouteStore: std::fmt::Debug + Send + Sync {
    /// The table as the file says now, each route with its origin.
    ///
    /// # Errors
    /// [`RouteError::NoGateway`], [`RouteError::Invalid`], [`RouteError::Io`].
    async fn table(&self) -> Result<RouteTable, RouteError>;

    /// Records the defaults of the gateway's branch, from its committed file; called after every
    /// switch of the checkout.
    ///
    /// # Errors
    /// As [`table`](Self::table).
    async fn snapshot(&self, branch: &BranchName) -> Result<RouteDefaults, RouteError>;

    /// Applies `changes` to the recorded overrides in one write and one reload, and answers the
    /// table read back from the file. With no changes it writes the recorded overrides again,
    /// which is what a fresh checkout needs; those of services that the branch lacks are kept and
    /// reported as warnings.
    ///
    /// What the change took from other sandboxes is in the answer's `taken`.
    ///
    /// Idempotent: the same changes again give the same file.
    ///
    /// # Errors
    /// [`RouteError::UnknownService`], [`RouteError::Duplicate`], [`RouteError::Claimed`],
    /// [`RouteError::NotOwner`], [`RouteError::ForeignKey`], [`RouteError::PerRequestOff`] and
    /// [`RouteError::NotRoutable`] before anything is written; [`RouteError::Io`]; [`RouteError::Reload`], with the
    /// previous file and overrides put back.
    async fn apply(&self, changes: &RouteChanges) -> Result<RouteTable, RouteError>;

    /// Why a request reaches what it reaches: the key it carries and whether that is known, the route this comes to,
    /// and whether its target answers, where the store can ask it.
    ///
    /// # Errors
    /// As [`table`](Self::table).
    async fn explain(&self, question: &RouteQuestion) -> Result<Explanation, RouteError> {
        Ok(Explanation::of(&self.table().await?, question))
    }

    /// Has the gateway read its file again without dropping a request.
    ///
    /// # Errors
    /// [`RouteError::Reload`].
    async fn reload(&self) -> Result<(), RouteError>;
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a [`RouteStore`] could not do it, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The gateway's repo has no checkout, or its commit no such file.
    #[error("the gateway has no {}: deploy the gateway's repo first, or correct `gateway.config`", .path.display())]
    NoGateway {
        /// The file looked for.
        path: PathBuf,
    },
    /// The file cannot be understood.
    #[error("{} line {line}: {reason}; nothing was written", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file has no such key.
    #[error("the gateway's configuration has no key `{}_url`; it has: {known}", .service)]
    UnknownService {
        /// The service.
        service: ServiceName,
        /// The services it has, comma-separated.
        known: String,
    },
    /// The file has the key more than once, so that no one can say which counts.
    #[error("the key `{}_url` is written more than once in {} (lines {}); keep one", .service, .path.display(), .lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))]
    Duplicate {
        /// The service.
        service: ServiceName,
        /// The file.
        path: PathBuf,
        /// The lines, from 1.
        lines: Vec<usize>,
    },
    /// Another sandbox owns the route.
    #[error(
        "the route of `{service}` belongs to sandbox `{holder}`{}{}; ask its owner, or take it over explicitly",
        .expires_at.map(|end| format!(" until {end}")).unwrap_or_default(),
        .reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    Claimed {
        /// The service.
        service: ServiceName,
        /// The sandbox that owns it.
        holder: SandboxName,
        /// Why it does.
        reason: Option<ClaimReason>,
        /// Until when, where that is known.
        expires_at: Option<Timestamp>,
    },
    /// Somebody else's routes per request, or everything of another sandbox, would change.
    #[error("what sandbox `{sandbox}` has is its own; ask in its name, or take it over explicitly")]
    NotOwner {
        /// The sandbox.
        sandbox: SandboxName,
    },
    /// The key names another sandbox than the one it is for.
    #[error("the key `{key}` is not one of sandbox `{sandbox}`; use the key that was made for it")]
    ForeignKey {
        /// The sandbox.
        sandbox: SandboxName,
        /// The key.
        key: SandboxKey,
    },
    /// The gateway does not route per request.
    #[error(
        "this gateway does not route per request; set `per_request = true` under [gateway] in its agent's configuration"
    )]
    PerRequestOff,
    /// This agent keeps no routes for gateways that sandboxes bring.
    #[error("sandbox `{sandbox}` cannot have a gateway of its own here; deploy it on the agent that has [gateway]")]
    NoOwnGateways {
        /// The sandbox.
        sandbox: SandboxName,
    },
    /// The service is written in a way that cannot be chosen per request.
    #[error("`{service}` cannot be routed per request: {reason}; or override it for every request")]
    NotRoutable {
        /// The service.
        service: ServiceName,
        /// What stands in the way, and the cure.
        reason: String,
    },
    /// The file could not be read or written.
    #[error("failed to {action} {}", .path.display())]
    Io {
        /// `read`, `write`, `lock`, and the cure where one is known.
        action: String,
        /// The file.
        path: PathBuf,
        /// What went wrong below.
        #[source]
        source: Source,
    },
    /// The gateway was not reloaded, or does not use what was written.
    #[error("the gateway did not take the new routes over: {reason}; the previous ones were put back")]
    Reload {
        /// What happened.
        reason: String,
        /// What went wrong below.
        #[source]
        source: Option<Source>,
    },
}

impl RouteError {
    /// The code under which it is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoGateway { .. } => ErrorCode::NotFound,
            Self::Invalid { .. } | Self::Duplicate { .. } => ErrorCode::GatewayConfigInvalid,
            Self::UnknownService { .. } => ErrorCode::UnknownService,
            Self::Claimed { .. } | Self::NotOwner { .. } => ErrorCode::RouteClaimed,
            Self::ForeignKey { .. } => ErrorCode::InvalidInput,
            Self::NoOwnGateways { .. } => ErrorCode::Unsupported,
            Self::PerRequestOff | Self::NotRoutable { .. } => ErrorCode::Conflict,
            Self::Io { .. } => ErrorCode::GatewayWriteFailed,
            Self::Reload { .. } => ErrorCode::GatewayReloadFailed,
        }
    }
}

impl From<&RouteError> for Problem {
    fn from(error: &RouteError) -> Self {
        let problem = Problem::new(error.code(), chain(error));
        match error {
            RouteError::Claimed { holder, .. } => problem.field("service").holder(holder.as_str()),
            RouteError::NotOwner { sandbox } => problem.holder(sandbox.as_str()),
            RouteError::ForeignKey { .. } => problem.field("key"),
            RouteError::UnknownService { .. } | RouteError::Duplicate { .. } | RouteError::NotRoutable { .. } => {
                problem.field("service")
            }
            _ => problem,
        }
    }
}
