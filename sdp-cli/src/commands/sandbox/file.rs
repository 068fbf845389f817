//! `sandbox.yaml`, as the commands that take one read it.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use clap::Args;
use sdp_core::{Manifest, SandboxName, client::Document};

use crate::error::CliError;

#[derive(Debug, Args)]
pub(super) struct File {
    /// The document, as `sdp sandbox export` writes it; - is standard input.
    #[arg(long, short, default_value = "sandbox.yaml", value_name = "PATH")]
    file: PathBuf,
}

impl File {
    /// The document, and the sandbox it is for: the one named, or the one that it names itself.
    pub(super) fn read(&self, named: Option<SandboxName>) -> Result<(SandboxName, Document), CliError> {
        let text = match self.file.to_str() {
            Some("-") => {
                let mut text = String::new();
                let read = io::stdin().lock().read_to_string(&mut text);
                read.map_err(|source| CliError::Prompt { what: "standard input", source })?;
                text
            }
            _ => fs::read_to_string(&self.file).map_err(CliError::file("read", &self.file))?,
        };
        let path = self.file.display();
        let manifest = Manifest::from_yaml(&text).map_err(|error| {
            let (line, column, reason) = (error.line, error.column, error.reason);
            CliError::usage(
                format!("{path}:{line}:{column}: {reason}"),
                "`sdp sandbox export` shows how one is written",
            )
        })?;
        let name = named.or(manifest.name).ok_or_else(|| {
            CliError::usage(format!("{path} does not name its sandbox"), "name it, or write `name: …` into the file")
        })?;
        Ok((name, Document::Yaml(text)))
    }
}
