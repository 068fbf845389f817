//! The way to the server: plain HTTP, the WebSocket upgrade, the clock.

use std::{io, time::Duration};

use jiff::Timestamp;
use sdp_core::{
    ErrorCode, Inventory,
    problem::chain,
    protocol::{Hello, OLDEST_VERSION, TokenFrame, VERSION, Welcome},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use url::Url;

use super::{Finding, LIMIT};
use crate::{
    AgentConfig,
    link::{TransportChoice, TransportError, check as check_hello, tls},
};

/// An answer's first bytes hold its head.
const HEAD_BYTES: usize = 16 * 1024;

/// Clocks that differ by more make log times confusing.
const CLOCK_WARNING: u64 = 5;
/// Clocks that differ by more make TLS and expiries fail.
const CLOCK_BROKEN: u64 = 60;

/// The head of an HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: u16,
    date: Option<String>,
    took: Duration,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the name {0} cannot be resolved")]
    Name(String),
    #[error("{0} refuses the connection")]
    Refused(String),
    #[error("{0} does not answer within {LIMIT:?}")]
    Slow(String),
    #[error("TLS with {0} failed: {1}")]
    Tls(String, String),
    #[error("the connection was reset after the request was sent")]
    Reset,
    #[error("the answer is not HTTP")]
    NotHttp,
    #[error("the connection to {0} failed: {1}")]
    Other(String, String),
}

pub(super) async fn check(config: &AgentConfig) -> Vec<Finding> {
    let url = &config.server;
    let host = url.host_str().unwrap_or_default();
    let plain = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // The key is the example of RFC 6455, section 1.3.
    let upgrade = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        url.path()
    );
    let (http, websocket, admitted) = tokio::join!(ask(url, &plain), ask(url, &upgrade), admission(config));
    let stands_in = config.transport != TransportChoice::WebSocket && matches!(admitted, Ok(Some(_)));
    let mut findings = vec![judge_http(url, &http), judge_upgrade(&http, &websocket, stands_in)];
    if http.is_ok() {
        findings.extend(judge_admission(config, &admitted));
    }
    findings.extend(http.ok().and_then(|answer| judge_clock(answer.date.as_deref()?, Timestamp::now())));
    findings
}

/// What the server says to this agent's token; nothing where there is none to be shown.
async fn admission(config: &AgentConfig) -> Result<Option<Welcome>, TransportError> {
    let Ok(token) = config.read_token() else { return Ok(None) };
    let inventory = Inventory {
        version: env!("CARGO_PKG_VERSION").into(),
        advertise: config.advertise.clone(),
        deployer: String::new(),
        repos: Vec::new(),
        port_range: None,
        gateway: None,
        exact_commits: true,
        serves_beside: true,
        exec: None,
    };
    let (protocol, oldest_protocol) = (VERSION, OLDEST_VERSION);
    let (agent, token) = (config.name.clone(), TokenFrame(token));
    let hello = Hello { protocol, oldest_protocol, agent, token, inventory, held: Vec::new() };
    check_hello(&config.server, hello).await.map(Some)
}

async fn ask(url: &Url, request: &str) -> Result<Answer, Fault> {
    let began = std::time::Instant::now();
    let asking = async {
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
        let place = format!("{host}:{port}");
        let addresses = tokio::net::lookup_host(place.as_str()).await.map_err(|_| Fault::Name(host.into()))?;
        let connected = TcpStream::connect(&*addresses.collect::<Vec<_>>()).await;
        let stream = connected.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Fault::Refused(place.clone()),
            _ => Fault::Other(place.clone(), error.to_string()),
        })?;
        if url.scheme() != "wss" {
            return exchange(stream, request).await;
        }
        let failed = |error: String| Fault::Tls(place.clone(), error);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
        let config = tls().map_err(|error| failed(chain(&error)))?;
        let stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
        exchange(stream.map_err(|error| failed(error.to_string()))?, request).await
    };
    let (status, date) = tokio::time::timeout(LIMIT, asking).await.map_err(|_| Fault::Slow(url.to_string()))??;
    Ok(Answer { status, date, took: began.elapsed() })
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> Result<(u16, Option<String>), Fault> {
    stream.write_all(request.as_bytes()).await.map_err(|_| Fault::Reset)?;
    let mut head = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let date = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("date"));
                let date = date.map(|header| String::from_utf8_lossy(header.value).into_owned());
                return Ok((answer.code.unwrap_or_default(), date));
            }
            Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES => {}
            _ => return Err(Fault::NotHttp),
        }
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return Err(Fault::Reset),
            Ok(_) => {}
        }
    }
}

fn judge_http(url: &Url, http: &Result<Answer, Fault>) -> Finding {
    let check = "http";
    match http {
        Ok(Answer { status: 200, took, .. }) => Finding::ok(check, format!("{url} answers /healthz in {took:.0?}")),
        Ok(Answer { status, .. }) => Finding::broken(
            check,
            format!("{url} answers /healthz with {status}"),
            "check that `server` names SDP's server, and what stands before it",
        ),
        Err(fault) => Finding::broken(
            check,
            fault.to_string(),
            match fault {
                Fault::Name(_) => "check the host in `server`, and this machine's DNS or /etc/hosts",
                Fault::Refused(_) => {
                    "start sdp-server there, or correct the port in `server`; it listens on 127.0.0.1 unless `listen` says otherwise"
                }
                Fault::Slow(_) => "a firewall drops the packets, or the host is down: ask for the way to be opened",
                Fault::Tls(..) => {
                    "check the server's certificate and this machine's CA certificates (package ca-certificates, SSL_CERT_FILE)"
                }
                Fault::Reset | Fault::NotHttp | Fault::Other(..) => {
                    "check that `server` names SDP's server, and that it speaks TLS if and only if `server` begins with wss"
                }
            },
        ),
    }
}

fn judge_upgrade(http: &Result<Answer, Fault>, websocket: &Result<Answer, Fault>, stands_in: bool) -> Finding {
    let finding = upgrade(http, websocket);
    match (&finding.cure, stands_in) {
        (Some(cure), true) => {
            let evidence = format!("{}; the agent uses plain HTTP meanwhile", finding.evidence);
            Finding::warning(finding.check, evidence, cure.clone())
        }
        _ => finding,
    }
}

fn judge_admission(config: &AgentConfig, admitted: &Result<Option<Welcome>, TransportError>) -> Option<Finding> {
    let check = "enrolment";
    let name = &config.name;
    match admitted {
        Ok(None) => None,
        Ok(Some(welcome)) => {
            let Welcome { server, protocol, .. } = welcome;
            Some(Finding::ok(
                check,
                format!("the server, version {server}, accepts {name} and its token (protocol {protocol})"),
            ))
        }
        Err(TransportError::Refused(problem)) if problem.code == ErrorCode::NotFound => {
            let cure = "update the server; it is older than this agent";
            Some(Finding::warning(check, "the server cannot tell whether it accepts the token", cure))
        }
        Err(TransportError::Refused(problem)) => {
            let cure = match problem.code {
                ErrorCode::NotAllowed => "write what `sdp-server agent add` printed for this name into `token_file`",
                _ => "bring agent and server to the same version",
            };
            Some(Finding::broken(check, problem.detail.clone(), cure))
        }
        Err(error) => {
            let cure = "check that `server` names SDP's server, and what stands before it";
            Some(Finding::broken(check, chain(error), cure))
        }
    }
}

fn upgrade(http: &Result<Answer, Fault>, websocket: &Result<Answer, Fault>) -> Finding {
    let check = "websocket";
    match (websocket, http) {
        (Ok(Answer { status: 101, took, .. }), _) => {
            Finding::ok(check, format!("the upgrade is answered 101 in {took:.0?}"))
        }
        (Ok(Answer { status, .. }), _) => Finding::broken(
            check,
            format!("the upgrade is answered {status}: the server, or a proxy before it, rejects it"),
            "check the path in `server` (/ws/agent), and let proxies pass the headers Upgrade and Connection on",
        ),
        (Err(Fault::Reset), Ok(_)) => Finding::broken(
            check,
            "plain HTTP passes, and a request with an Upgrade header is reset: something in between matches that header",
            "run `sdp-agent doctor` on the server's host against 127.0.0.1: if it is fine there, have the firewall or proxy in between let WebSockets pass, or use wss, which it cannot look into",
        ),
        (Err(fault), Ok(_)) => {
            Finding::broken(check, fault.to_string(), "plain HTTP passes: look at proxies in between")
        }
        (Err(fault), Err(_)) => Finding::broken(check, fault.to_string(), "plain HTTP does not pass either: see above"),
    }
}

fn judge_clock(date: &str, now: Timestamp) -> Option<Finding> {
    let check = "clock";
    let server = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    let seconds = now.duration_since(server).as_secs().unsigned_abs();
    let evidence = format!("this clock and the server's differ by {seconds} s");
    let cure = "run a time service on both machines, such as systemd-timesyncd or chrony";
    Some(if seconds <= CLOCK_WARNING {
        Finding::ok(check, evidence)
    } else if seconds <= CLOCK_BROKEN {
        Finding::warning(check, evidence, cure)
    } else {
        Finding::broken(check, evidence, cure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdp_core::Verdict;

    fn answer(status: u16) -> Result<Answer, Fault> {
        Ok(Answer { status, date: None, took: Duration::from_millis(2) })
    }

    #[test]
    fn the_outcomes_of_an_upgrade_are_told_apart() {
        let fine = judge_upgrade(&answer(200), &answer(101), true);
        assert_eq!((fine.verdict, fine.cure), (Verdict::Ok, None));
        let rejected = judge_upgrade(&answer(200), &answer(403), false);
        assert!(rejected.evidence.contains("403") && rejected.evidence.contains("rejects"), "{rejected:?}");
        let reset = judge_upgrade(&answer(200), &Err(Fault::Reset), false);
        assert!(reset.evidence.contains("Upgrade header"), "{reset:?}");
        let nobody = judge_upgrade(&Err(Fault::Refused("x:1".into())), &Err(Fault::Refused("x:1".into())), false);
        assert!(nobody.evidence.contains("refuses"), "{nobody:?}");
        let helped = judge_upgrade(&answer(200), &Err(Fault::Reset), true);
        assert!(helped.verdict == Verdict::Warning && helped.evidence.contains("plain HTTP meanwhile"), "{helped:?}");
        for finding in [rejected, reset, nobody] {
            assert_eq!(finding.verdict, Verdict::Broken);
            assert!(finding.cure.is_some());
        }
    }

    #[test]
    fn clocks_are_compared() {
        let now: Timestamp = "2026-01-02T03:05:05Z".parse().unwrap();
        let verdict = |date: &str| judge_clock(date, now).map(|finding| finding.verdict);
        assert_eq!(verdict("Fri, 02 Jan 2026 03:05:03 GMT"), Some(Verdict::Ok));
        assert_eq!(verdict("Fri, 02 Jan 2026 03:04:35 GMT"), Some(Verdict::Warning));
        assert_eq!(verdict("Fri, 02 Jan 2026 03:09:05 GMT"), Some(Verdict::Broken));
        assert_eq!(verdict("soon"), None);
    }
}
