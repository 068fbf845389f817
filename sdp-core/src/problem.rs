//! The one error shape: RFC 9457 problem details with a stable code. Adapters' errors, an agent's
//! replies and the HTTP API's bodies are all told in it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Defines the codes once: variant, name on the wire, HTTP status, title.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal, $title:literal;)*) => {
        /// The machine-readable cause of an error. Names are stable; new ones may be added, and a
        /// program that does not know one treats it as [`ErrorCode::Internal`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
            /// A defect or an unforeseen condition; also any code this version does not know.
            #[serde(rename = "internal", other)]
            Internal,
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)* Self::Internal];

            /// Its name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* Self::Internal => "internal" }
            }

            /// The HTTP status that carries it.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* Self::Internal => 500 }
            }

            /// A short title for people, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* Self::Internal => "Something went wrong inside SDP" }
            }
        }
    };
}

codes! {
    /// Input that breaks a rule; `field` says which.
    InvalidInput = "invalid-input", 422, "The input is not valid";
    /// A request that could not be read at all.
    BadRequest = "bad-request", 400, "The request could not be read";
    /// Not signed in.
    NotSignedIn = "not-signed-in", 401, "Sign in first";
    /// The git host refused the user name and password.
    InvalidCredentials = "invalid-credentials", 401, "The git host refused the credentials";
    /// Signed in, and not allowed.
    NotAllowed = "not-allowed", 403, "That is not allowed";
    /// Nothing of that name or id.
    NotFound = "not-found", 404, "Not found";
    /// A repo that no agent declares.
    UnknownRepo = "unknown-repo", 404, "No such repo";
    /// A branch that the remote does not have.
    UnknownBranch = "unknown-branch", 404, "No such branch";
    /// A commit that is neither on the agent's machine nor on the remote's branch any more.
    UnknownCommit = "unknown-commit", 404, "No such commit";
    /// A service that the gateway's configuration does not have.
    UnknownService = "unknown-service", 404, "No such service";
    /// It exists already, or its state does not allow that now.
    Conflict = "conflict", 409, "That conflicts with the present state";
    /// The host port is taken; the detail names the holder.
    PortTaken = "port-taken", 409, "The host port is taken";
    /// Another sandbox owns the route; the detail names it.
    RouteClaimed = "route-claimed", 409, "Another sandbox owns the route";
    /// It is not any more as the caller last saw it.
    Changed = "changed", 412, "It has changed meanwhile";
    /// Too many attempts.
    RateLimited = "rate-limited", 429, "Too many attempts";
    /// Something is larger than the limit.
    TooLarge = "too-large", 413, "That is too large";
    /// The agent is not connected, or went away before it answered.
    AgentAway = "agent-away", 503, "The agent is away";
    /// It took longer than its deadline.
    Timeout = "timeout", 504, "That took too long";
    /// It was cancelled.
    Cancelled = "cancelled", 409, "Cancelled";
    /// The other side does not understand the request: one of the two is too old.
    Unsupported = "unsupported", 501, "Not supported by the other side";
    /// The git host could not be reached.
    HostUnreachable = "host-unreachable", 502, "The git host cannot be reached";
    /// The git host answered something else than git, or git failed.
    GitFailed = "git-failed", 502, "Git failed";
    /// The checkout could not be prepared.
    CheckoutFailed = "checkout-failed", 500, "The checkout could not be prepared";
    /// The build command failed.
    BuildFailed = "build-failed", 422, "The build failed";
    /// A tool that the build needs is not installed on the agent's machine.
    ToolMissing = "tool-missing", 500, "A build tool is missing";
    /// The container image is not on the machine.
    ImageMissing = "image-missing", 409, "The container image is missing";
    /// The instance could not be started.
    StartFailed = "start-failed", 500, "The instance could not be started";
    /// The instance did not become healthy.
    Unhealthy = "unhealthy", 500, "The instance did not become healthy";
    /// The container engine does not answer.
    EngineUnavailable = "engine-unavailable", 503, "The container engine does not answer";
    /// The agent's disk has too little room for another deployment.
    DiskFull = "disk-full", 507, "The disk is nearly full";
    /// The gateway's configuration is not valid PHP, or the key is written twice.
    GatewayConfigInvalid = "gateway-config-invalid", 409, "The gateway's configuration cannot be patched";
    /// The gateway's configuration could not be written.
    GatewayWriteFailed = "gateway-write-failed", 500, "The gateway's configuration could not be written";
    /// The gateway was not reloaded, or does not use what was written.
    GatewayReloadFailed = "gateway-reload-failed", 500, "The gateway did not take the change over";
    /// An event could not be kept.
    EventsUnavailable = "events-unavailable", 503, "Events cannot be stored";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// An error as it is told to another program or a person: RFC 9457 problem details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[error("{detail}")]
pub struct Problem {
    /// The stable type: `urn:sdp:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The title of the type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The machine-readable cause.
    pub code: ErrorCode,
    /// A sentence that names the cause and, where there is one, the cure.
    pub detail: String,
    /// The input field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The other party of a conflict: who holds the port or owns the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// After how many seconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of this code with this sentence.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:sdp:problem:{code}"),
            title: code.title().into(),
            status: code.status(),
            code,
            detail: detail.into(),
            field: None,
            holder: None,
            retryable: matches!(
                code,
                ErrorCode::AgentAway
                    | ErrorCode::Timeout
                    | ErrorCode::HostUnreachable
                    | ErrorCode::EngineUnavailable
                    | ErrorCode::EventsUnavailable
                    | ErrorCode::RateLimited
            ),
            retry_after: None,
        }
    }

    /// Names the input field at fault.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says after how long the same request may succeed, in whole seconds, rounded up.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after.as_secs() + u64::from(after.subsec_nanos() > 0));
        self
    }

    /// Names the other party.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }
}

/// An error and the errors it came from, as one sentence: `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

/// Reads the header `Retry-After`: seconds, or a date (RFC 9110). None when that is over, or it is neither.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(at.duration_since(now)).filter(|wait| wait.is_positive()).map(|wait| wait.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text| {
            let now = "2026-10-21T07:28:00Z".parse().unwrap();
            retry_after(text, now).map(|wait| wait.as_secs())
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Wed, 21 Oct 2026 07:29:30 GMT"), Some(90));
        for text in ["Wed, 21 Oct 2026 07:27:00 GMT", "soon", "-1", "", "1.5"] {
            assert_eq!(after(text), None, "{text}");
        }
    }

    #[test]
    fn codes_are_distinct_and_read_back_from_their_names() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
            assert!((400..600).contains(&code.status()));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn a_code_of_a_newer_version_reads_as_internal() {
        assert_eq!(serde_json::from_str::<ErrorCode>("\"flux-lost\"").unwrap(), ErrorCode::Internal);
    }

    #[test]
    fn a_problem_has_the_promised_shape() {
        let problem = Problem::new(ErrorCode::PortTaken, "port 9001 is taken").field("host_port").holder("pay/eredar");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:sdp:problem:port-taken","title":"The host port is taken","status":409,"code":"port-taken","detail":"port 9001 is taken","field":"host_port","holder":"pay/eredar","retryable":false}"#
        );
    }
}
