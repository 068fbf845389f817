//! `sdp route explain`.

use clap::Args;
use sdp_core::{Explanation, SandboxName, ServiceName, TargetAnswer, api::routing::ExplainQuery};

use crate::{
    context::Context,
    error::CliError,
    output::{Look, Tone, clean},
};

/// Says why a request reaches what it reaches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp route explain eredar --sandbox pay
  sdp route explain eredar --key pay-7f3k9q2m
  sdp route explain eredar --cookie 'sdp-sandbox=pay-7f3k9q2m'")]
pub(crate) struct Explain {
    /// The service.
    service: ServiceName,
    /// Of a request of this sandbox: with its key, or to its own gateway.
    #[arg(long, short, conflicts_with_all = ["key", "cookie", "baggage"])]
    sandbox: Option<SandboxName>,
    /// Of a request with this key, as its header X-SDP-Sandbox has it.
    #[arg(long)]
    key: Option<String>,
    /// Of a request with this Cookie header.
    #[arg(long)]
    cookie: Option<String>,
    /// Of a request with this baggage header.
    #[arg(long)]
    baggage: Option<String>,
}

impl Explain {
    pub(super) async fn run(self, context: &Context) -> Result<(), CliError> {
        let Self { service, sandbox, key, cookie, baggage } = self;
        let client = context.client()?;
        let explanation = match sandbox {
            Some(sandbox) => client.explain_in(&sandbox, &service).await?,
            None => client.explain(&ExplainQuery { service, key, header: None, cookie, baggage }).await?,
        };
        context.out.answer(&explanation, shown)
    }
}

fn shown(explanation: &Explanation, look: Look) -> String {
    let Explanation { service, target, answer, because, .. } = explanation;
    let target = target.as_deref().unwrap_or("nothing");
    let answers = match answer {
        Some(TargetAnswer::Status(status)) => format!(", which answers {status}"),
        Some(TargetAnswer::Connected) => ", which accepts connections".into(),
        Some(TargetAnswer::Silent(why)) => format!(", which does not answer: {why}"),
        None => String::new(),
    };
    let mut text = format!("{} -> {}\n", look.paint(Tone::Strong, service), clean(&format!("{target}{answers}")));
    because.iter().for_each(|reason| text.push_str(&format!("  {}\n", clean(reason))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_ends_with_what_tells_most() {
        let explanation = serde_json::from_value(serde_json::json!({
            "service": "eredar", "served_by": "override", "target": "http://10.0.0.92:20001",
            "answer": { "status": 200 }, "because": ["the request carries no key", "sandbox `pay` holds eredar"],
        }))
        .unwrap();
        assert_eq!(
            shown(&explanation, Look::default()),
            "eredar -> http://10.0.0.92:20001, which answers 200\n  the request carries no key\n  sandbox `pay` holds eredar\n"
        );
    }
}
