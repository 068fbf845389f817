//! `sdp user …`.

use clap::Subcommand;
use jiff::Timestamp;
use sdp_core::{Role, User as Record, UserName, api::people::ChangeUser};

use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Table, Tone, ago},
};

/// For admins: shows who has signed in, gives roles, locks out.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Lists everybody who has signed in.
    #[command(after_help = "Example:
  sdp user list")]
    List,
    /// Shows somebody.
    #[command(after_help = "Example:
  sdp user show bob")]
    Show {
        /// Who.
        name: UserName,
    },
    /// Gives a role.
    #[command(after_help = "Example:
  sdp user role bob viewer")]
    Role {
        /// Who.
        name: UserName,
        /// The role: viewer, developer, admin.
        role: Role,
    },
    /// Locks somebody out: their sessions end, their tokens are refused.
    #[command(after_help = "Example:
  sdp user lock bob")]
    Lock {
        /// Who.
        name: UserName,
    },
    /// Lets somebody in again.
    #[command(after_help = "Example:
  sdp user unlock bob")]
    Unlock {
        /// Who.
        name: UserName,
    },
}

impl User {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let change = |role, disabled| ChangeUser { role, disabled };
        let user = match self {
            Self::List => {
                let users = client.users().await?;
                return context.out.list(&users, "nobody has signed in", |items| table(items, Timestamp::now()));
            }
            Self::Show { name } => client.user(&name).await?,
            Self::Role { name, role } => client.change_user(&name, &change(Some(role), None)).await?,
            Self::Lock { name } => client.change_user(&name, &change(None, Some(true))).await?,
            Self::Unlock { name } => client.change_user(&name, &change(None, Some(false))).await?,
        };
        context.out.answer(&user, |it, look| table(std::slice::from_ref(it), Timestamp::now()).render(look))
    }
}

fn table(users: &[Record], now: Timestamp) -> Table {
    let mut table = Table::new(["user", "role", "", "last sign-in"]);
    for user in users {
        let locked = if user.disabled { "locked out" } else { "" };
        table.row([
            Cell::new(Tone::Strong, &user.name),
            user.role.into(),
            Cell::new(Tone::Bad, locked),
            ago(user.last_seen, now).into(),
        ]);
    }
    table
}
