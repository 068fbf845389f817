//! `sdp sandbox …`.

mod apply;
mod change;
mod create;
mod delete;
mod deploy;
mod diff;
mod export;
mod file;
mod list;
mod open;
mod show;

use clap::Subcommand;

use crate::{context::Context, error::CliError};

/// Makes, shows, changes and deletes sandboxes.
#[derive(Debug, Subcommand)]
pub(crate) enum Sandbox {
    Create(create::Create),
    Clone(create::Clone),
    List(list::List),
    Show(show::Show),
    Deploy(deploy::Deploy),
    Extend(change::Extend),
    Share(change::Share),
    Sleep(change::Sleep),
    Wake(change::Wake),
    Apply(apply::Apply),
    Diff(diff::Diff),
    Export(export::Export),
    Open(open::Open),
    Delete(delete::Delete),
}

impl Sandbox {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create(it) => it.run(context).await,
            Self::Clone(it) => it.run(context).await,
            Self::List(it) => it.run(context).await,
            Self::Show(it) => it.run(context).await,
            Self::Deploy(it) => it.run(context).await,
            Self::Extend(it) => it.run(context).await,
            Self::Share(it) => it.run(context).await,
            Self::Sleep(it) => it.run(context).await,
            Self::Wake(it) => it.run(context).await,
            Self::Apply(it) => it.run(context).await,
            Self::Diff(it) => it.run(context).await,
            Self::Export(it) => it.run(context).await,
            Self::Open(it) => it.run(context).await,
            Self::Delete(it) => it.run(context).await,
        }
    }
}
