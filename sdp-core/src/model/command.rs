//! A command that is run in what a deployment runs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The most arguments a command has, its program among them.
pub const MAX_ARGUMENTS: usize = 256;

/// The longest command, all arguments together: the audit keeps each in full.
pub const MAX_COMMAND_BYTES: usize = 16 * 1024;

/// A program and its arguments, which no shell reads. Written as a list, and shown as one would type it.
///
/// ```
/// use sdp_core::ExecCommand;
/// let command = ExecCommand::new(["php", "artisan", "make:user", "Ada L."])?;
/// assert_eq!(command.program(), "php");
/// assert_eq!(command.to_string(), "php artisan make:user 'Ada L.'");
/// assert!(ExecCommand::new(Vec::<String>::new()).is_err());
/// # Ok::<(), sdp_core::InvalidCommand>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct ExecCommand(Vec<String>);

/// Why a list of texts is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCommand {
    /// Nothing is to be run.
    #[error("a command begins with the program that is to run; none is named")]
    NoProgram,
    /// Too many arguments.
    #[error("the command has {0} arguments, and {MAX_ARGUMENTS} are allowed; put them into a file or a script")]
    TooMany(usize),
    /// Too long.
    #[error("the command is {0} bytes long, and {MAX_COMMAND_BYTES} are allowed; put it into a file or a script")]
    TooLong(usize),
    /// A NUL, which ends an argument.
    #[error("argument {0} has a NUL in it, which no argument can have")]
    Nul(usize),
}

impl ExecCommand {
    /// Checks a program and its arguments.
    ///
    /// # Errors
    /// [`InvalidCommand`] says what is wrong with it.
    pub fn new<T: Into<String>>(arguments: impl IntoIterator<Item = T>) -> Result<Self, InvalidCommand> {
        Self::try_from(arguments.into_iter().map(Into::into).collect::<Vec<_>>())
    }

    /// The program.
    pub fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The program and its arguments.
    pub fn arguments(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for ExecCommand {
    type Error = InvalidCommand;
    fn try_from(arguments: Vec<String>) -> Result<Self, InvalidCommand> {
        if arguments.first().is_none_or(String::is_empty) {
            return Err(InvalidCommand::NoProgram);
        }
        if arguments.len() > MAX_ARGUMENTS {
            return Err(InvalidCommand::TooMany(arguments.len()));
        }
        let bytes = arguments.iter().map(String::len).sum();
        if bytes > MAX_COMMAND_BYTES {
            return Err(InvalidCommand::TooLong(bytes));
        }
        match arguments.iter().position(|argument| argument.contains('\0')) {
            Some(at) => Err(InvalidCommand::Nul(at)),
            None => Ok(Self(arguments)),
        }
    }
}

impl From<ExecCommand> for Vec<String> {
    fn from(command: ExecCommand) -> Self {
        command.0
    }
}

/// As a shell would read it.
impl fmt::Display for ExecCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only a NUL cannot be quoted, and there is none.
        f.write_str(&shlex::try_join(self.0.iter().map(String::as_str)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_command_is_refused_with_the_reason() {
        let refused = |arguments: Vec<String>| ExecCommand::new(arguments).unwrap_err();
        assert_eq!(refused(vec![]), InvalidCommand::NoProgram);
        assert_eq!(refused(vec![String::new(), "x".into()]), InvalidCommand::NoProgram);
        assert_eq!(refused(vec!["x".into(); MAX_ARGUMENTS + 1]), InvalidCommand::TooMany(MAX_ARGUMENTS + 1));
        assert_eq!(refused(vec!["x".repeat(MAX_COMMAND_BYTES + 1)]), InvalidCommand::TooLong(MAX_COMMAND_BYTES + 1));
        assert_eq!(refused(vec!["x".into(), "a\0b".into()]), InvalidCommand::Nul(1));
        assert!(ExecCommand::new(vec!["x"; MAX_ARGUMENTS]).is_ok());
        assert!(serde_json::from_str::<ExecCommand>("[]").unwrap_err().to_string().contains("none is named"));
    }

    proptest! {
        #[test]
        fn it_is_shown_as_it_would_be_typed(arguments in prop::collection::vec("[^\0]{1,8}", 1..5)) {
            let command = ExecCommand::new(arguments.clone()).unwrap();
            prop_assert_eq!(shlex::split(&command.to_string()), Some(arguments));
            let json = serde_json::to_string(&command).unwrap();
            prop_assert_eq!(serde_json::from_str::<ExecCommand>(&json).unwrap(), command);
        }
    }
}
