//! Who may use an endpoint. Every one is declared with its rule; the [guard](super::guard) holds requests to it.

use sdp_core::Role;

/// Who may use an endpoint. An admin may use every one that people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Everybody, without signing in.
    Anyone,
    /// Agents, by their own tokens, which the hub checks.
    Agent,
    /// Whoever is signed in with a password: what is about their sessions and tokens, which no token may touch.
    Session,
    /// Viewers and up.
    Viewer,
    /// Developers and up.
    Developer,
    /// Developers who own the sandbox that the path names, or with whom it is shared.
    Sandbox,
    /// Developers, where there is no sandbox of the path's name yet; else as [`Sandbox`](Self::Sandbox).
    NewSandbox,
    /// Developers who own the sandbox of the deployment that the path names, or with whom it is shared; of a quick
    /// deploy, and of one whose sandbox is gone, who asked for it.
    Deployment,
    /// Developers who made the template that the path names.
    Template,
    /// Admins.
    Admin,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 10] = [
        Self::Anyone,
        Self::Agent,
        Self::Session,
        Self::Viewer,
        Self::Developer,
        Self::Sandbox,
        Self::NewSandbox,
        Self::Deployment,
        Self::Template,
        Self::Admin,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Agent => "agent",
            Self::Session => "session",
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Sandbox => "sandbox",
            Self::NewSandbox => "new-sandbox",
            Self::Deployment => "deployment",
            Self::Template => "template",
            Self::Admin => "admin",
        }
    }

    /// Who may use such an endpoint, for its description.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Anyone => "For everybody, without signing in.",
            Self::Agent => "For agents, which prove who they are by their token.",
            Self::Session => "For whoever is signed in with a password; no token may do it.",
            Self::Viewer => "For viewers and up; scope `read`.",
            Self::Developer => "For developers and up; scope `deploy`.",
            Self::Sandbox => "For the sandbox's owner, those it is shared with, and admins; scope `deploy`.",
            Self::NewSandbox => {
                "For developers and up, of a new sandbox; else for its owner, those it is shared with, and admins; scope `deploy`."
            }
            Self::Deployment => {
                "For the owner of the deployment's sandbox, those it is shared with, and admins, or of a quick deploy who asked for it; scope `deploy`."
            }
            Self::Template => "For who made the template, and admins; scope `deploy`.",
            Self::Admin => "For admins; scope `admin`.",
        }
    }

    /// The least role that it asks for; none where nobody need be signed in.
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Anyone | Self::Agent => None,
            Self::Session | Self::Viewer => Some(Role::Viewer),
            Self::Developer | Self::Sandbox | Self::NewSandbox | Self::Deployment | Self::Template => {
                Some(Role::Developer)
            }
            Self::Admin => Some(Role::Admin),
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
