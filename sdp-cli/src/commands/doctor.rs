//! `sdp doctor`: what works between here and the platform, with the evidence and the cure.

use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use sdp_core::{
    Agent, Examination, Finding, Verdict,
    api::{health::Health, people::Me},
    client::{Client, ClientError, Live, ServerAddress},
    problem::chain,
};
use tokio::time::timeout;

use crate::{
    context::{Context, TOKEN},
    error::CliError,
    output::{Look, Tone, ago, clean, left},
};

/// How long one check may take.
const LIMIT: Duration = Duration::from_secs(15);

/// A session that ends within this many seconds ends soon.
const SOON: i64 = 1_800;

/// Checks the way to the server and what is behind it: what works, what does not, and the cure.
///
/// Nothing is changed. Exits with 0 when nothing is broken, with 1 when something is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sdp doctor
  sdp doctor --json | jq '.findings[]'")]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CliError> {
        let report = Examination { findings: examine(context).await };
        context.out.answer(&report, shown)?;
        match report.worst() {
            Verdict::Broken => Err(CliError::Broken),
            _ => Ok(()),
        }
    }
}

fn shown(report: &Examination, look: Look) -> String {
    let paint = |line: &str| {
        let tone = match line.split(' ').next() {
            Some("ok") => Tone::Good,
            Some("warning") => Tone::Warn,
            Some("broken") => Tone::Bad,
            _ => return format!("{line}\n"),
        };
        let (verdict, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
        format!("{}{rest}\n", look.paint(tone, verdict))
    };
    clean(&report.to_string()).lines().map(paint).collect()
}

async fn examine(context: &Context) -> Vec<Finding> {
    let (mut findings, server) = match (context.config(), context.server()) {
        (Err(error), _) | (_, Err(error)) => {
            let cure = error.cure().unwrap_or_else(|| "correct the file, or remove it".into());
            return vec![Finding::broken("config", error.to_string(), cure)];
        }
        (Ok(_), Ok((server, _))) => (vec![Finding::ok("config", format!("the server is {server}"))], server),
    };
    let anonymous = match context.anonymous() {
        Ok(client) => client,
        Err(error) => {
            findings.push(failed("tls", &error));
            return findings;
        }
    };
    let began = Instant::now();
    let health = within(anonymous.health()).await;
    let reached = health.is_ok();
    findings.push(judge_server(&server, &health, began.elapsed()));
    if !reached {
        return findings;
    }
    findings.push(judge_tls(&server));
    findings.extend(health.ok().map(|health| judge_version(&health, env!("CARGO_PKG_VERSION"))));
    let client = match context.client() {
        Ok(client) => client,
        Err(error) => {
            findings.push(failed("token", &error));
            return findings;
        }
    };
    let me = within(client.me()).await;
    let signed_in = me.is_ok();
    findings.push(judge_token(&me, context.has_token_of_environment(), Timestamp::now()));
    if !signed_in {
        return findings;
    }
    let (websocket, agents) = tokio::join!(within(first(&client)), within(client.agents()));
    findings.push(judge_websocket(&websocket));
    findings.push(judge_agents(&agents, Timestamp::now()));
    findings
}

async fn first(client: &Client) -> Result<Live, ClientError> {
    client.events(None).next().await
}

/// Why a check came to nothing.
#[derive(Debug)]
struct Trouble {
    what: String,
    cure: Option<String>,
}

impl Trouble {
    fn finding(&self, check: &'static str, cure: &str) -> Finding {
        Finding::broken(check, &self.what, self.cure.as_deref().unwrap_or(cure))
    }
}

async fn within<T>(check: impl Future<Output = Result<T, ClientError>>) -> Result<T, Trouble> {
    let slow = || Trouble {
        what: format!("nothing came within {LIMIT:?}"),
        cure: Some("a firewall may drop the packets, or the server be busy: ask who runs them".into()),
    };
    let checked = timeout(LIMIT, check).await.map_err(|_| slow())?;
    checked.map_err(|error| Trouble { what: chain(&error), cure: error.cure() })
}

fn failed(check: &'static str, error: &CliError) -> Finding {
    Finding::broken(check, error.to_string(), error.cure().unwrap_or_else(|| "see above".into()))
}

fn judge_server(server: &ServerAddress, health: &Result<Health, Trouble>, took: Duration) -> Finding {
    match health {
        Ok(_) => Finding::ok("server", format!("{server} answers /healthz in {took:.0?}")),
        Err(trouble) => trouble.finding("server", "correct the address, and look at proxies on the way"),
    }
}

fn judge_tls(server: &ServerAddress) -> Finding {
    match (server.is_tls(), server.is_loopback()) {
        (true, _) => Finding::ok("tls", "the server's certificate is trusted"),
        (false, true) => Finding::ok("tls", "none, and none is needed on this machine"),
        (false, false) => Finding::warning(
            "tls",
            "there is none: passwords and tokens can be read by everybody on the way",
            "have the server speak TLS, or a proxy before it, and use its https address",
        ),
    }
}

fn judge_version(health: &Health, own: &str) -> Finding {
    let evidence = format!("the server is {}, sdp is {own}", health.version);
    match health.version == own {
        true => Finding::ok("version", evidence),
        false => Finding::warning("version", evidence, "bring both to the same version"),
    }
}

fn judge_token(me: &Result<Me, Trouble>, of_environment: bool, now: Timestamp) -> Finding {
    let source = if of_environment { TOKEN } else { "the session" };
    match me {
        Ok(me) => {
            let evidence = format!("{} ({}), with {source}, which ends {}", me.user, me.role, left(me.expires_at, now));
            match me.expires_at.duration_since(now).as_secs() < SOON {
                true => Finding::warning("token", evidence, renewal(of_environment)),
                false => Finding::ok("token", evidence),
            }
        }
        Err(trouble) => {
            let cure = renewal(of_environment);
            Finding::broken("token", format!("{source} is refused: {}", trouble.what), cure)
        }
    }
}

fn renewal(of_environment: bool) -> &'static str {
    match of_environment {
        true => "make another with `sdp token create`",
        false => "sign in again with `sdp login`",
    }
}

fn judge_websocket(first: &Result<Live, Trouble>) -> Finding {
    match first {
        Ok(_) => Finding::ok("websocket", "the upgrade passes, and what changes is told"),
        Err(Trouble { what, cure }) => {
            let cure = cure.as_deref().unwrap_or("let the proxy on the way pass WebSockets to paths below /ws/");
            // Logs are then asked for instead.
            Finding::warning("websocket", format!("{what}; logs are asked for again and again instead"), cure)
        }
    }
}

fn judge_agents(agents: &Result<Vec<Agent>, Trouble>, now: Timestamp) -> Finding {
    let check = "agents";
    let agents = match agents {
        Ok(agents) => agents,
        Err(trouble) => return trouble.finding(check, "see above"),
    };
    let away: Vec<_> = agents.iter().filter(|agent| !agent.connected).collect();
    let names = |agents: &[&Agent]| {
        let seen = |agent: &&Agent| match agent.last_seen {
            Some(at) => format!("{} (last {})", agent.name, ago(at, now)),
            None => format!("{} (never was here)", agent.name),
        };
        agents.iter().map(seen).collect::<Vec<_>>().join(", ")
    };
    let cure = "run `sdp-agent doctor` on the machine of the one that is away";
    match (agents.len(), away.len()) {
        (0, _) => Finding::broken(check, "none is enrolled", "an admin enrols one: `sdp agents enrol NAME`"),
        (all, 0) => Finding::ok(check, format!("all {all} are connected")),
        (all, gone) if gone == all => Finding::broken(check, format!("none is connected: {}", names(&away)), cure),
        (all, gone) => {
            Finding::warning(check, format!("{} of {all} are connected; away: {}", all - gone, names(&away)), cure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn agents(connected: &[bool]) -> Result<Vec<Agent>, Trouble> {
        let agent = |(n, connected): (usize, &bool)| {
            let last_seen = "2026-01-02T03:01:05Z".parse().ok();
            let name = format!("micro-{n}").parse().unwrap();
            Agent { name, connected: *connected, transport: None, last_seen, inventory: None, active_deployments: 0 }
        };
        Ok(connected.iter().enumerate().map(agent).collect())
    }

    #[test]
    fn agents_that_are_away_are_named() {
        let judge = |connected: &[bool]| judge_agents(&agents(connected), NOW.parse().unwrap());
        assert_eq!(judge(&[true, true]).verdict, Verdict::Ok);
        let some = judge(&[true, false]);
        assert_eq!(
            (some.verdict, some.evidence.as_str()),
            (Verdict::Warning, "1 of 2 are connected; away: micro-1 (last 3m ago)")
        );
        assert_eq!((judge(&[false]).verdict, judge(&[]).verdict), (Verdict::Broken, Verdict::Broken));
    }

    #[test]
    fn a_session_that_ends_soon_or_has_ended_is_told() {
        let now: Timestamp = NOW.parse().unwrap();
        let me = |end: &str| {
            Ok(Me {
                user: "ada".parse().unwrap(),
                role: sdp_core::Role::Developer,
                expires_at: end.parse().unwrap(),
                token: None,
            })
        };
        assert_eq!(judge_token(&me("2026-01-02T12:00:00Z"), false, now).verdict, Verdict::Ok);
        assert_eq!(judge_token(&me("2026-01-02T03:10:00Z"), false, now).verdict, Verdict::Warning);
        let refused = judge_token(&Err(Trouble { what: "unknown".into(), cure: None }), true, now);
        assert!(refused.evidence.starts_with(TOKEN) && refused.verdict == Verdict::Broken, "{refused:?}");
    }

    #[test]
    fn passwords_over_plain_http_are_worth_a_warning_except_on_this_machine() {
        let verdict = |address: &str| judge_tls(&address.parse().unwrap()).verdict;
        assert_eq!(verdict("http://127.0.0.1:3452"), Verdict::Ok);
        assert_eq!(verdict("https://sdp.example"), Verdict::Ok);
        assert_eq!(verdict("http://sdp.example"), Verdict::Warning);
    }

    #[test]
    fn verdicts_have_their_colours() {
        let report =
            Examination { findings: vec![Finding::ok("server", "fine"), Finding::broken("token", "gone", "sign in")] };
        assert_eq!(
            shown(&report, Look { has_colour: true, width: None }),
            "\x1b[32mok\x1b[0m       server      fine\n\x1b[31mbroken\x1b[0m   token       gone\n                     -> sign in\n"
        );
    }
}
