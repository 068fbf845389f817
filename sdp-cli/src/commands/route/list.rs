//! `sdp route list`.

use clap::Args;
use jiff::Timestamp;
use sdp_core::{Route, RouteOrigin, RouteTable, SandboxName, ServiceName};

use super::super::show::maybe;
use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Table, Tone, left},
};

/// Shows the live table of a sandbox's gateway.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sdp route list pay")]
pub(crate) struct List {
    /// The sandbox whose gateway it is.
    sandbox: SandboxName,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        show(context, &context.client()?.routes(&self.sandbox).await?, &[])
    }
}

/// Shows a table, or these services of it.
pub(super) fn show(context: &Context, table: &RouteTable, only: &[ServiceName]) -> Result<(), CliError> {
    let shown: Vec<_> =
        table.routes.iter().filter(|route| only.is_empty() || only.contains(&route.service)).cloned().collect();
    context.out.answer(table, |_, look| rows(&shown, Timestamp::now()).render(look))?;
    for taken in &table.taken {
        context.out.warn(format!("{} was taken from sandbox {}", taken.service, taken.was.owner));
    }
    table.warnings.iter().for_each(|warning| context.out.warn(warning));
    Ok(())
}

fn rows(routes: &[Route], now: Timestamp) -> Table {
    let mut table = Table::new(["service", "origin", "owner", "for", "reason", "goes to"]);
    for route in routes {
        let (origin, tone) = match route.origin {
            RouteOrigin::Ocp => ("ocp", Tone::Plain),
            RouteOrigin::Sandbox => ("sandbox", Tone::Good),
            RouteOrigin::Custom => ("custom", Tone::Busy),
            RouteOrigin::Drifted => ("drifted", Tone::Warn),
        };
        table.row([
            (&route.service).into(),
            Cell::new(tone, origin),
            maybe(route.owner.as_ref()),
            route.expires_at.map(|end| left(end, now)).unwrap_or_default().trim_start_matches("in ").into(),
            maybe(route.reason.as_ref()),
            // What it comes to, where the value is code.
            route.effective.as_ref().unwrap_or(&route.value).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Look;

    #[test]
    fn each_route_is_told_with_who_holds_it_and_what_it_comes_to() {
        let routes: Vec<Route> = serde_json::from_value(serde_json::json!([
            {
                "service": "eredar", "value": "http://10.0.0.92:20001", "origin": "sandbox",
                "default": "http://stable:1", "owner": "pay", "reason": "load test of SHOP-12",
                "expires_at": "2026-01-02T05:04:06Z",
            },
            {
                "service": "illidan", "value": "getenv('X') ?: \"http://stable:2\"", "expression": true,
                "origin": "ocp", "default": "getenv('X') ?: \"http://stable:2\"", "effective": "http://stable:2",
            },
        ]))
        .unwrap();
        let text = rows(&routes, "2026-01-02T03:04:05Z".parse().unwrap()).render(Look::default());
        assert_eq!(
            text,
            "SERVICE  ORIGIN   OWNER  FOR  REASON                GOES TO\n\
             eredar   sandbox  pay    2h   load test of SHOP-12  http://10.0.0.92:20001\n\
             illidan  ocp                                        http://stable:2\n"
        );
    }
}
