//! Why a command did not do what it was asked to, and the exit code that says so.

use std::{io, path::PathBuf};

use sdp_core::{
    DeploymentId, DeploymentState, ErrorCode, Problem,
    client::{ClientError, InvalidAddress},
    config::ConfigError,
    problem::chain,
};
use serde::Serialize;

/// The exit codes, which scripts rely on.
pub(crate) mod exit {
    /// It was done, and came out well.
    pub(crate) const OK: u8 = 0;
    /// It was done and did not come out well, or something went wrong that has no code of its own.
    pub(crate) const FAILED: u8 = 1;
    /// The command was not given what it needs, or something that cannot be.
    pub(crate) const USAGE: u8 = 2;
    /// Nobody is signed in, or who is may not do that.
    pub(crate) const NOT_ALLOWED: u8 = 3;
    /// There is no such thing.
    pub(crate) const NOT_FOUND: u8 = 4;
    /// Something else is in the way: a name, a port or a route that is taken, a state that does not allow it.
    pub(crate) const CONFLICT: u8 = 5;
    /// The server cannot be reached, or is not SDP's.
    pub(crate) const UNREACHABLE: u8 = 6;
    /// Not now: an agent or a host behind the server is away, it took too long, or it was asked too often.
    pub(crate) const LATER: u8 = 7;
    /// Ctrl-C.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// Who read the output went away.
    pub(crate) const OUTPUT_CLOSED: u8 = 141;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The server, or the way to it.
    #[error("{}", chain(.0))]
    Client(#[from] ClientError),
    /// Something is missing or cannot be.
    #[error("{what}")]
    Usage { what: String, cure: String },
    /// There is nothing of what was named.
    #[error("{what}")]
    Nothing { what: String, cure: String },
    /// No server is known.
    #[error("no server is named")]
    NoServer,
    /// The server's address is none.
    #[error("{0}")]
    Address(#[from] InvalidAddress),
    /// Nobody is signed in.
    #[error("you are not signed in to {server}")]
    NotSignedIn { server: String },
    /// A deployment ended otherwise than wished.
    #[error("deployment {id} {state}{}", because(.reason.as_deref()))]
    Deployment { id: DeploymentId, state: DeploymentState, reason: Option<String>, was_cut: bool },
    /// Some services of a sandbox could not be deployed.
    #[error("{refused} service(s) could not be deployed")]
    Refused { refused: usize },
    /// A command that was run exited with something else than 0, and has said itself why.
    #[error("the command exited with {0}")]
    Exited(u8),
    /// A check found something broken.
    #[error("something is broken")]
    Broken,
    /// The configuration cannot be used.
    #[error("{}", chain(.0))]
    Config(#[from] ConfigError),
    /// A file of the command's own cannot be read or written.
    #[error("{} cannot be {verb}: {source}", path.display())]
    File { path: PathBuf, verb: &'static str, source: io::Error },
    /// The credentials are not kept as they should be.
    #[error("{} can be read by others", path.display())]
    Open { path: PathBuf },
    /// There is no place for the files.
    #[error("there is no home directory")]
    NoHome,
    /// Something was asked, and nobody answered.
    #[error("{what} cannot be asked: {source}")]
    Prompt { what: &'static str, source: io::Error },
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    /// Ctrl-C, with what can be done now.
    #[error("{0}")]
    Interrupted(String),
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// An error as a program reads it, with `--json`.
#[derive(Debug, Serialize)]
struct Told<'a> {
    code: &'a str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Problem>,
}

impl CliError {
    /// What is missing or cannot be, and what to do.
    pub(crate) fn usage(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), cure: cure.into() }
    }

    /// That there is no such thing, and what to do.
    pub(crate) fn nothing(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Nothing { what: what.into(), cure: cure.into() }
    }

    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, verb, source }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Client(error) => of_client(error),
            Self::Usage { .. } | Self::NoServer | Self::Address(_) | Self::Config(_) => exit::USAGE,
            Self::NotSignedIn { .. } => exit::NOT_ALLOWED,
            Self::Nothing { .. } => exit::NOT_FOUND,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OUTPUT_CLOSED,
            Self::Interrupted(_) => exit::INTERRUPTED,
            Self::Exited(code) => *code,
            _ => exit::FAILED,
        }
    }

    /// Whether nothing is said: it was said already, or who read the output has seen enough.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Exited(_)) || self.exit() == exit::OUTPUT_CLOSED
    }

    /// What to do about it.
    pub(crate) fn cure(&self) -> Option<String> {
        Some(match self {
            Self::Client(ClientError::Refused(problem)) => return of_problem(problem).map(Into::into),
            Self::Client(error) => return error.cure(),
            Self::Usage { cure, .. } | Self::Nothing { cure, .. } => cure.clone(),
            Self::NoServer => "name it: `sdp config set server URL`, SDP_SERVER or --server".into(),
            Self::Address(_) => "such as https://sdp.example or http://127.0.0.1:3452".into(),
            Self::NotSignedIn { .. } => "sign in with `sdp login`, or set SDP_TOKEN".into(),
            Self::Deployment { id, was_cut: true, .. } => format!("read all of its log with `sdp logs {id}`"),
            Self::Refused { .. } => "see above; repeat it when that is mended".into(),
            Self::Open { path } => format!("chmod 600 {}", path.display()),
            Self::NoHome => "set HOME or XDG_CONFIG_HOME".into(),
            Self::Prompt { .. } => "give it on standard input: --password-stdin or --token-stdin".into(),
            _ => return None,
        })
    }

    /// The machine-readable cause.
    fn code(&self) -> &'static str {
        match self {
            Self::Client(error) => error.code_str(),
            Self::Usage { .. } | Self::NoServer | Self::Address(_) => "usage",
            Self::NotSignedIn { .. } => ErrorCode::NotSignedIn.as_str(),
            Self::Nothing { .. } => ErrorCode::NotFound.as_str(),
            Self::Deployment { .. } => "deployment-ended",
            Self::Refused { .. } => "services-refused",
            Self::Exited(_) => "command-exited",
            Self::Broken => "broken",
            Self::Config(_) => "configuration",
            Self::File { .. } | Self::Open { .. } | Self::NoHome | Self::Prompt { .. } | Self::Output(_) => "local",
            Self::Interrupted(_) => "interrupted",
        }
    }

    /// As a line of JSON.
    pub(crate) fn json(&self) -> String {
        let problem = match self {
            Self::Client(error) => error.problem(),
            _ => None,
        };
        let told = Told { code: self.code(), detail: self.to_string(), cure: self.cure(), exit: self.exit(), problem };
        serde_json::json!({ "error": told }).to_string()
    }
}

fn of_client(error: &ClientError) -> u8 {
    use ErrorCode as E;
    match error {
        ClientError::Refused(problem) => match (problem.code, problem.status) {
            (E::InvalidInput | E::BadRequest, _) => exit::USAGE,
            (_, 401 | 403) => exit::NOT_ALLOWED,
            (_, 404) => exit::NOT_FOUND,
            (_, 409 | 412) => exit::CONFLICT,
            (_, 429 | 502..=504 | 507) => exit::LATER,
            _ => exit::FAILED,
        },
        ClientError::TimedOut { .. } => exit::LATER,
        ClientError::InvalidToken | ClientError::CaFile { .. } => exit::USAGE,
        _ => exit::UNREACHABLE,
    }
}

/// What the command line has to say to a refusal, whose sentence speaks of the API.
fn of_problem(problem: &Problem) -> Option<&'static str> {
    Some(match problem.code {
        ErrorCode::NotSignedIn => "sign in with `sdp login`",
        ErrorCode::UnknownRepo => "`sdp repo list` shows what there is",
        ErrorCode::UnknownBranch => "`sdp repo branches REPO` shows what there is; push the branch first",
        ErrorCode::PortTaken => "leave --port out to have one picked, or name another",
        ErrorCode::RouteClaimed => "ask its owner, or take it over with --takeover",
        ErrorCode::AgentAway => "`sdp agents list` shows who is connected",
        ErrorCode::Changed => "somebody else changed it meanwhile: look again, then repeat it",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_server_has_an_exit_code_that_fits_its_status() {
        for code in ErrorCode::ALL {
            let error = CliError::from(ClientError::Refused(Problem::new(*code, "no")));
            assert!((exit::FAILED..=exit::LATER).contains(&error.exit()), "{code}");
            assert_ne!(error.exit(), exit::UNREACHABLE, "{code}: the server was reached");
        }
        let exit = |code| CliError::from(ClientError::Refused(Problem::new(code, "no"))).exit();
        assert_eq!(exit(ErrorCode::NotSignedIn), exit::NOT_ALLOWED);
        assert_eq!(exit(ErrorCode::RouteClaimed), exit::CONFLICT);
        assert_eq!(exit(ErrorCode::UnknownBranch), exit::NOT_FOUND);
        assert_eq!(exit(ErrorCode::InvalidInput), exit::USAGE);
        assert_eq!(exit(ErrorCode::AgentAway), exit::LATER);
    }

    #[test]
    fn a_program_reads_what_a_person_does_and_more() {
        let problem = Problem::new(ErrorCode::RouteClaimed, "pay owns eredar").holder("pay");
        let json: serde_json::Value =
            serde_json::from_str(&CliError::from(ClientError::Refused(problem)).json()).unwrap();
        let error = &json["error"];
        assert_eq!((&error["code"], &error["exit"]), (&"route-claimed".into(), &5.into()));
        assert_eq!((&error["problem"]["holder"], &error["detail"]), (&"pay".into(), &"pay owns eredar".into()));
        assert!(error["cure"].as_str().unwrap().contains("--takeover"));
    }

    #[test]
    fn who_has_read_enough_is_told_nothing() {
        assert!(CliError::Output(io::ErrorKind::BrokenPipe.into()).is_silent());
        assert!(!CliError::Output(io::ErrorKind::StorageFull.into()).is_silent());
        let exited = CliError::Exited(3);
        assert!(exited.is_silent() && exited.exit() == 3);
    }
}
