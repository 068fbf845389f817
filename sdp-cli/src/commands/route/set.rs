//! `sdp route set`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use sdp_core::{
    ClaimReason, RouteTarget, SandboxName, ServiceName,
    api::{SetRoute, SetRoutes},
    model::units::parse_duration,
};

use super::list::show;
use crate::{context::Context, error::CliError, values::target_of};

/// Sends services elsewhere, in one write and one reload of the gateway.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp route set pay eredar=sandbox
  sdp route set pay eredar=sandbox illidan=http://10.0.0.7:8080 --reason 'load-test' --expires-in 2h
  sdp route set pay eredar=sandbox --takeover")]
pub(crate) struct Set {
    /// The sandbox.
    sandbox: SandboxName,
    /// Services and where they go: `ocp`, the stable cluster; `sandbox`, its own deployment; or a URL.
    #[arg(required = true, value_name = "SERVICE=TARGET", value_parser = target_of)]
    routes: Vec<(ServiceName, RouteTarget)>,
    /// Takes them over from the sandboxes that own them.
    #[arg(long)]
    takeover: bool,
    /// Why, for those who would like them.
    #[arg(long)]
    reason: Option<ClaimReason>,
    /// How long it keeps others off: 2h, 1d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires_in: Option<Duration>,
}

impl Set {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let Self { sandbox, routes, takeover, reason, expires_in } = self;
        let client = context.client()?;
        let services: Vec<_> = routes.iter().map(|(service, _)| service.clone()).collect();
        let table = match <[_; 1]>::try_from(routes) {
            Ok([(service, target)]) => {
                client.set_route(&sandbox, &service, &SetRoute { target, takeover, reason, expires_in }).await?
            }
            Err(routes) => {
                let routes: BTreeMap<_, _> = routes.into_iter().collect();
                client.set_routes(&sandbox, &SetRoutes { routes, takeover, reason, expires_in }).await?
            }
        };
        show(context, &table, &services)
    }
}
