//! `sdp route reset`.

use clap::Args;
use sdp_core::{RouteTarget, SandboxName, ServiceName, api::SetRoutes};

use super::list::show;
use crate::{context::Context, error::CliError};

/// Gives services back to the stable cluster.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp route reset pay                     # every service that it holds
  sdp route reset pay eredar")]
pub(crate) struct Reset {
    /// The sandbox.
    sandbox: SandboxName,
    /// The services; all that the sandbox holds when left out.
    services: Vec<ServiceName>,
}

impl Reset {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        let mut services = self.services;
        if services.is_empty() {
            let table = client.routes(&self.sandbox).await?;
            let held = table.routes.into_iter().filter(|route| route.owner.as_ref() == Some(&self.sandbox));
            services = held.map(|route| route.service).collect();
        }
        if services.is_empty() {
            context.out.note(format!("sandbox {} holds no route", self.sandbox));
            return Ok(());
        }
        let routes = services.iter().map(|service| (service.clone(), RouteTarget::Ocp)).collect();
        let body = SetRoutes { routes, takeover: false, reason: None, expires_in: None };
        show(context, &client.set_routes(&self.sandbox, &body).await?, &services)
    }
}
