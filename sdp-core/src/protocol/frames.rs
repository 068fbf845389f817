//! The frames, as types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CredentialsFrame, EventBatch, TokenFrame};
use crate::{
    deployer::{LogLine, LogOptions},
    model::{
        agent::Inventory,
        command::ExecCommand,
        deployment::{DeployRequest, DeploymentState},
        explain::{Explanation, RouteQuestion},
        ids::{DeploymentId, InstanceKey},
        instance::{Instance, InstanceStats},
        machine::{Disk, Examination},
        names::{AgentName, RepoName, SandboxName},
        repo::Branch,
        route::{RouteChanges, RouteTable},
    },
    problem::Problem,
};

/// What an agent sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AgentFrame {
    /// The first frame.
    Hello(Box<Hello>),
    /// The answer to a request.
    Reply(Reply),
    /// Events; a binary message.
    #[serde(skip)]
    Events(EventBatch),
    /// The agent's inventory changed.
    Inventory(Box<Inventory>),
    /// A frame of the server's that the agent does not know.
    Unsupported {
        /// The type of that frame.
        frame: String,
    },
    /// A frame this version does not know.
    #[serde(other)]
    Unknown,
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ServerFrame {
    /// The hello was accepted.
    Welcome(Welcome),
    /// The hello was not accepted; the connection closes.
    #[serde(with = "refusal")]
    Refused(Problem),
    /// A request.
    Request(Request),
    /// Every event of the deployment up to `seq` is on the server's disk.
    Ack {
        /// The deployment.
        deployment: DeploymentId,
        /// The last event covered.
        seq: u64,
    },
    /// A frame of the agent's that the server does not know.
    Unsupported {
        /// The type of that frame.
        frame: String,
    },
    /// A frame this version does not know.
    #[serde(other)]
    Unknown,
}

/// A refusal's problem in a field of its own: the frame and the problem both have a `type`.
mod refusal {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::problem::Problem;

    #[derive(Serialize)]
    struct Written<'a> {
        problem: &'a Problem,
    }

    #[derive(Deserialize)]
    struct Read {
        problem: Problem,
    }

    pub(super) fn serialize<S: Serializer>(problem: &Problem, serializer: S) -> Result<S::Ok, S::Error> {
        Written { problem }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Problem, D::Error> {
        Read::deserialize(deserializer).map(|read| read.problem)
    }
}

/// An agent's first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest protocol version the agent speaks.
    pub protocol: u16,
    /// The oldest one.
    pub oldest_protocol: u16,
    /// Its name.
    pub agent: AgentName,
    /// Its enrolment token.
    pub token: TokenFrame,
    /// What it is and can do.
    pub inventory: Inventory,
    /// The deployments it works on or holds unacknowledged events of.
    #[serde(default)]
    pub held: Vec<HeldEvents>,
}

/// A deployment that an agent works on or holds events of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldEvents {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The first event it still holds.
    pub first: u64,
    /// The last event it has accepted.
    pub last: u64,
    /// The state it is in by the agent's account.
    pub state: DeploymentState,
}

/// The server's answer to an accepted hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// The protocol version both use from here on.
    pub protocol: u16,
    /// The server's version.
    pub server: String,
    /// For each held deployment, the last event on the server's disk; the agent goes on after it.
    #[serde(default)]
    pub acked: BTreeMap<String, u64>,
}

/// The answer to who opens a session over plain HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct SessionKey {
    /// The secret that the session's other requests carry.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    pub key: TokenFrame,
}

/// Something the server wants done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Names the request within this connection.
    pub id: u64,
    /// How long the server waits for the reply, in milliseconds from sending.
    pub deadline_ms: u64,
    /// What.
    pub body: RequestBody,
}

/// What a request asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RequestBody {
    /// Whether the git host accepts the credentials. Answered with `done`.
    Verify {
        /// The repo to ask with; the gateway's, or the first, when none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repo: Option<RepoName>,
        /// What to ask with.
        credentials: CredentialsFrame,
    },
    /// The branches of a repo. Answered with `branches`.
    Branches {
        /// The repo.
        repo: RepoName,
        /// Credentials; without, the agent's own configured ones, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<CredentialsFrame>,
        /// Only names that contain this, whatever their case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<String>,
        /// At most this many.
        limit: u32,
    },
    /// Start a deployment. Answered with `done` as soon as it is accepted; its events tell the
    /// rest. A deployment id that is known already is answered the same and changes nothing.
    Deploy {
        /// What to deploy.
        request: Box<DeployRequest>,
        /// Credentials for the git host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credentials: Option<CredentialsFrame>,
    },
    /// Cancel a deployment. Answered with `done`; its events tell when it has ended.
    Cancel {
        /// Which.
        deployment: DeploymentId,
    },
    /// Stop an instance and keep it. Answered with `done`.
    Stop {
        /// Which.
        key: InstanceKey,
    },
    /// Restart an instance. Answered with `done`.
    Restart {
        /// Which.
        key: InstanceKey,
    },
    /// Remove an instance and its checkout. Answered with `done`.
    Remove {
        /// Which.
        key: InstanceKey,
    },
    /// End what a deployment replaced and left serving: nobody is sent there any more. Answered with `done`, also
    /// when there is nothing to end.
    Retire {
        /// The deployment that replaced it.
        deployment: DeploymentId,
    },
    /// Everything of ours that runs there. Answered with `instances`.
    Instances,
    /// What an instance uses now. Answered with `stats`, which takes a second or two.
    Stats {
        /// Which.
        key: InstanceKey,
    },
    /// What an instance prints, or a command that is run where it runs. Answered with `output` as soon as there is
    /// something, and after some seconds also without: whoever reads asks again for what comes next.
    Output {
        /// Which.
        key: InstanceKey,
        /// Names the reader, who chose it at random. One who does not ask for twenty minutes is forgotten.
        reader: u64,
        /// What the reader wants.
        step: OutputStep,
    },
    /// The room on its disks. Answered with `disks`.
    Disks,
    /// What works on its machine and what does not, as `sdp-agent doctor` says. Answered with `examined`.
    Examine,
    /// The checkouts of sandboxes on its disk. Answered with `checkouts`.
    Checkouts,
    /// The gateway's route table now. Answered with `routes`.
    Routes {
        /// The sandbox whose own gateway is meant; none for the shared one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<SandboxName>,
    },
    /// Change the gateway's overrides. Answered with `routes`, read back.
    ApplyRoutes {
        /// What to change.
        changes: RouteChanges,
        /// The sandbox whose own gateway is meant; none for the shared one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<SandboxName>,
    },
    /// Why a request reaches what it reaches. Answered with `explanation`.
    Explain {
        /// The request.
        question: RouteQuestion,
        /// The sandbox whose own gateway is meant; none for the shared one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sandbox: Option<SandboxName>,
    },
    /// A request this version does not know.
    #[serde(other)]
    Unknown,
}

impl RequestBody {
    /// Whether asking once more, after the connection was lost before the reply, does no more than
    /// asking once.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Verify { .. }
            | Self::Branches { .. }
            | Self::Deploy { .. }
            | Self::Cancel { .. }
            | Self::Stop { .. }
            | Self::Remove { .. }
            | Self::Retire { .. }
            | Self::Instances
            | Self::Stats { .. }
            | Self::Disks
            | Self::Examine
            | Self::Checkouts
            | Self::Routes { .. }
            | Self::Explain { .. }
            | Self::ApplyRoutes { .. } => true,
            // What was answered once is not answered again, and a command not run twice.
            Self::Output { .. } | Self::Restart { .. } | Self::Unknown => false,
        }
    }
}

/// What a reader of an instance's output wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStep {
    /// Begin to read. What is there is answered at once.
    Begin(LogOptions),
    /// Run a command, and begin to read what it prints. An agent that says nothing of `exec` in its inventory does not
    /// know this step.
    Exec(ExecCommand),
    /// What comes after what was answered before.
    Next,
    /// Nothing any more: a command that still runs is ended. Answered with `output` that has ended, also when there is no such reader.
    End,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Ok(ReplyBody),
    /// It was not.
    Problem(Problem),
}

/// What a reply carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReplyBody {
    /// Nothing but success.
    Done,
    /// A repo's branches.
    Branches {
        /// By name.
        branches: Vec<Branch>,
    },
    /// What runs.
    Instances {
        /// By key.
        instances: Vec<Instance>,
    },
    /// An instance and what it uses.
    Stats {
        /// As the deployer's records have it.
        instance: Box<Instance>,
        /// Measured now.
        stats: InstanceStats,
    },
    /// What an instance printed.
    Output {
        /// The next lines; perhaps none yet.
        lines: Vec<LogLine>,
        /// Whether that was the last of it.
        ended: bool,
        /// How a command has exited, with the last of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
    },
    /// The disks that the agent uses.
    Disks {
        /// Each once.
        disks: Vec<Disk>,
    },
    /// What an examination found.
    Examined {
        /// In full.
        examination: Examination,
    },
    /// What is checked out for sandboxes.
    Checkouts {
        /// By key.
        keys: Vec<InstanceKey>,
    },
    /// The route table.
    Routes {
        /// As read now.
        table: RouteTable,
    },
    /// Why a request reaches what it reaches.
    Explanation {
        /// In full.
        explanation: Explanation,
    },
    /// A body this version does not know.
    #[serde(other)]
    Unknown,
}
