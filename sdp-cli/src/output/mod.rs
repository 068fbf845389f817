//! The one place that writes: for people or, with `--json`, for programs.

mod clean;
mod look;
pub(crate) mod stages;
mod table;
mod time;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use anstream::AutoStream;
use serde::Serialize;

pub(crate) use self::{
    clean::clean,
    look::{Look, Tone},
    table::{Cell, Table},
    time::{ago, left, short},
};
use crate::error::CliError;

/// When there is colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal that has it, unless NO_COLOR or CLICOLOR=0 says otherwise; CLICOLOR_FORCE=1 wants it everywhere.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where a command writes.
#[derive(Debug)]
pub(crate) struct Output {
    is_json: bool,
    is_terminal: bool,
    out: Look,
    err: Look,
}

impl Output {
    pub(crate) fn new(is_json: bool, colour: Colour) -> Self {
        let decided = |auto: anstream::ColorChoice| match colour {
            Colour::Auto => auto != anstream::ColorChoice::Never,
            Colour::Always => true,
            Colour::Never => false,
        };
        let (out, err) = (io::stdout(), io::stderr());
        let width = rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
        let is_terminal = out.is_terminal();
        Self {
            is_json,
            is_terminal,
            out: Look {
                has_colour: !is_json && decided(AutoStream::choice(&out)),
                width: width.filter(|width| is_terminal && *width > 0),
            },
            err: Look { has_colour: !is_json && decided(AutoStream::choice(&err)), width: None },
        }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether a person sees it as it is written, and lines can be written over.
    pub(crate) fn is_live(&self) -> bool {
        self.is_terminal && !self.is_json && self.out.width.is_some()
    }

    /// How things are shown on standard output.
    pub(crate) fn look(&self) -> Look {
        self.out
    }

    /// Writes text as it is.
    pub(crate) fn write(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
    }

    /// Writes bytes as they are.
    pub(crate) fn write_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Output)
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: impl Display) -> Result<(), CliError> {
        self.write(&format!("{text}\n"))
    }

    /// Writes a line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))?;
        self.line(text)
    }

    /// Writes a value: as JSON, or as `show` says.
    pub(crate) fn answer<T: Serialize>(
        &self,
        value: &T,
        show: impl FnOnce(&T, Look) -> String,
    ) -> Result<(), CliError> {
        if self.is_json { self.json(value) } else { self.write(&show(value, self.out)) }
    }

    /// Writes a list: as JSON, or as a table; or, when there is none, says so.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        none: &str,
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<(), CliError> {
        if self.is_json {
            return self.json(&items);
        }
        if items.is_empty() {
            self.note(none);
            return Ok(());
        }
        self.write(&table(items).render(self.out))
    }

    /// Writes a line to standard error.
    pub(crate) fn error_line(&self, text: impl Display) {
        self.tell(&format!("{text}\n"));
    }

    /// Says something beside the output.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.is_json {
            self.tell(&format!("{}\n", self.err.paint(Tone::Dim, clean(&text.to_string()))));
        }
    }

    /// Says that something should be known.
    pub(crate) fn warn(&self, text: impl Display) {
        if !self.is_json {
            self.tell(&format!("{} {}\n", self.err.paint(Tone::Warn, "warning:"), clean(&text.to_string())));
        }
    }

    /// Says why the command failed.
    pub(crate) fn error(&self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        if self.is_json {
            return self.tell(&format!("{}\n", error.json()));
        }
        let cure = error.cure().map(|cure| format!("  -> {}\n", clean(&cure))).unwrap_or_default();
        let name = self.err.paint(Tone::Bad, "sdp:");
        self.tell(&format!("{name} {}\n{cure}", clean(&error.to_string())));
    }

    /// Where nobody can be told that it could not be written, nobody is.
    fn tell(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}
