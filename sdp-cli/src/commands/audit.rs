//! `sdp audit`.

use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use sdp_core::{
    AuditSubject, UserName,
    api::audit::{AuditAction, AuditEntry, AuditFilter},
};

use super::show::maybe;
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Table, Tone},
};

/// The most that is asked for at once.
const PAGE: usize = 500;

/// Lists who did what, when and from where, the newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp audit --user bob
  sdp audit --subject sandboxes/pay --action route-takeover --limit 5")]
pub(crate) struct Audit {
    /// Only what this user did.
    #[arg(long, short)]
    user: Option<UserName>,
    /// Only this action, such as deploy, route-set, sandbox-delete.
    #[arg(long)]
    action: Option<AuditAction>,
    /// Only what was done to this and what is in it: sandboxes/pay, repos/eredar, agents/micro-92; or a deployment's id.
    #[arg(long)]
    subject: Option<AuditSubject>,
    /// At most so many.
    #[arg(long, short = 'n', default_value_t = 50)]
    limit: usize,
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let filter = AuditFilter {
            user: self.user,
            action: self.action,
            subject: self.subject,
            before: None,
            limit: Some(self.limit.clamp(1, PAGE) as u32),
        };
        let entries = context.client()?.all_audit(filter).take(self.limit);
        let entries: Vec<_> = entries.try_collect().await?;
        context.out.list(&entries, "nothing was done", table)
    }
}

fn table(entries: &[AuditEntry]) -> Table {
    let mut table = Table::new(["when", "who", "what", "to", "from", ""]);
    for it in entries {
        table.row([
            Cell::new(Tone::Dim, it.at.strftime("%Y-%m-%d %H:%M:%SZ")),
            it.user.as_ref().map_or(Cell::new(Tone::Dim, "the platform"), Into::into),
            it.action.into(),
            (&it.subject).into(),
            maybe(it.address.as_ref()),
            Cell::new(Tone::Dim, it.detail.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
