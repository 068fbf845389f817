//! `sdp template …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sdp_core::{
    BranchName, RepoName, RouteTarget, SandboxName, ServiceName, ServiceSpec, Services, Template as Record,
    TemplateName,
    api::SaveTemplate,
    client::ClientError,
    model::units::{format_duration, parse_duration},
};

use crate::{
    context::Context,
    error::CliError,
    output::{Cell, Look, Table, Tone, ago},
    values::{branch_of, target_of},
};

/// Saves the shapes of sandboxes, to make others from.
#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// Lists templates.
    #[command(after_help = "Example:
  sdp template list")]
    List,
    /// Shows a template.
    #[command(after_help = "Example:
  sdp template show checkout")]
    Show {
        /// The template.
        name: TemplateName,
    },
    Save(Save),
    /// Deletes templates. Sandboxes that were made from them stay.
    #[command(after_help = "Example:
  sdp template delete checkout")]
    Delete {
        /// The templates.
        #[arg(required = true)]
        names: Vec<TemplateName>,
    },
}

/// Saves a template, new or in the place of the one of that name: a sandbox's shape, or what is listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp template save checkout --from-sandbox pay
  sdp template save checkout --service eredar=main --service illidan=main --route eredar=sandbox")]
pub(crate) struct Save {
    /// Its name: lower-case letters, digits and hyphens.
    name: TemplateName,
    /// The sandbox whose services and routes it takes, without host ports.
    #[arg(long, conflicts_with_all = ["services", "routes"], required_unless_present = "services")]
    from_sandbox: Option<SandboxName>,
    /// A repo and its branch. Repeatable.
    #[arg(long = "service", value_name = "REPO=BRANCH", value_parser = branch_of)]
    services: Vec<(RepoName, BranchName)>,
    /// Where a route goes. Repeatable.
    #[arg(long = "route", value_name = "SERVICE=TARGET", value_parser = target_of)]
    routes: Vec<(ServiceName, RouteTarget)>,
    /// How long sandboxes made from it live: 12h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    expires_in: Option<Duration>,
}

impl Template {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let client = context.client()?;
        match self {
            Self::List => {
                let templates = client.templates().await?;
                let none = "there are no templates; `sdp template save` makes one";
                context.out.list(&templates, none, |items| table(items, Timestamp::now()))
            }
            Self::Show { name } => {
                let template = client.template(&name).await?.value;
                context.out.answer(&template, |it, look| shown(it, look, Timestamp::now()))
            }
            Self::Save(save) => save.run(context).await,
            Self::Delete { names } => {
                for name in names {
                    client.delete_template(&name, None).await?;
                    let gone = serde_json::json!({ "name": name, "state": "deleted" });
                    context.out.answer(&gone, |_, _| format!("template {name} is deleted\n"))?;
                }
                Ok(())
            }
        }
    }
}

impl Save {
    async fn run(self, context: &Context) -> Result<(), CliError> {
        let mut services = Services::default();
        for (repo, branch) in self.services {
            services.set(ServiceSpec { repo, branch, host_port: None, env: Default::default() });
        }
        let body = SaveTemplate {
            name: None,
            from_sandbox: self.from_sandbox,
            services,
            routes: self.routes.into_iter().collect(),
            expires_in: self.expires_in,
        };
        let client = context.client()?;
        let saved = match client.template(&self.name).await {
            // What somebody else saves meanwhile is not written over.
            Ok(present) => client.replace_template(&self.name, &body, present.version.as_ref()).await?,
            Err(ClientError::Refused(problem)) if problem.status == 404 => {
                client.create_template(&SaveTemplate { name: Some(self.name), ..body }).await?
            }
            Err(error) => return Err(error.into()),
        };
        context.out.answer(&saved.value, |it, _| format!("template {} is saved\n", it.name))
    }
}

fn table(templates: &[Record], now: Timestamp) -> Table {
    let mut table = Table::new(["name", "owner", "saved", "services"]);
    for template in templates {
        let services: Vec<_> = template.shape.services.iter().map(|it| format!("{} {}", it.repo, it.branch)).collect();
        table.row([
            Cell::new(Tone::Strong, &template.name),
            (&template.owner).into(),
            ago(template.saved_at, now).into(),
            services.join(", ").into(),
        ]);
    }
    table
}

fn shown(template: &Record, look: Look, now: Timestamp) -> String {
    let lives = template.expires_in.map(|lives| format!("; its sandboxes live {}", format_duration(lives)));
    let mut text = format!(
        "{}, of {}, saved {}{}\n",
        look.paint(Tone::Strong, &template.name),
        template.owner,
        ago(template.saved_at, now),
        lives.unwrap_or_default()
    );
    let mut services = Table::new(["service", "branch", "env"]);
    for service in template.shape.services.iter() {
        let env: Vec<_> = service.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        services.row([(&service.repo).into(), (&service.branch).into(), env.join(" ").into()]);
    }
    text.push_str(&services.render(look));
    if !template.shape.routes.is_empty() {
        let mut routes = Table::new(["route", "to"]);
        template.shape.routes.iter().for_each(|(service, target)| routes.row([service.into(), target.into()]));
        text.push_str(&routes.render(look));
    }
    text
}
