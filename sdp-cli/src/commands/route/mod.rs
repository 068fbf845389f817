//! `sdp route …`.

mod explain;
mod list;
mod reset;
mod set;

use clap::Subcommand;

use crate::{context::Context, error::CliError};

/// Shows and sets where the gateway sends each service.
#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    List(list::List),
    Set(set::Set),
    Reset(reset::Reset),
    Explain(explain::Explain),
}

impl Route {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::List(it) => it.run(context).await,
            Self::Set(it) => it.run(context).await,
            Self::Reset(it) => it.run(context).await,
            Self::Explain(it) => it.run(context).await,
        }
    }
}
