//! The client against a server that follows a script, byte for byte: what is sent again, what is not, and what is made
//! of answers that are none.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sdp_core::{
    DeploymentId, ErrorCode, ExecCommand, Problem,
    api::{ChangeSandbox, CreateDeployment, CreateSandbox},
    client::{Client, ClientError, ClientOptions, CompletedCommand, ServerAddress},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What becomes of one request.
#[derive(Clone)]
enum Act {
    /// Its connection is closed without an answer.
    Lose,
    /// It is answered.
    Answer(String),
    /// Never.
    Hold,
}

fn answer(status: &str, headers: &str, body: &str) -> Act {
    Act::Answer(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

fn json(status: &str, body: &str) -> Act {
    answer(status, "content-type: application/json\r\n", body)
}

fn problem(status: u16, code: &str, more: &str) -> Act {
    let body = format!(
        r#"{{"type":"urn:sdp:problem:{code}","title":"t","status":{status},"code":"{code}","detail":"a sentence"{more}}}"#
    );
    answer(&format!("{status} No"), "content-type: application/problem+json\r\n", &body)
}

/// A server that does with its requests, in their order, what the script says; with more, what it says last.
struct Scripted {
    client: Client,
    requests: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Scripted {
    async fn new(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), Arc::clone(&seen)));
            }
        });
        let mut options = ClientOptions::default();
        options.first_pause = Duration::from_millis(1);
        options.request_timeout = Duration::from_secs(20);
        let client = Client::new(address.to_string().parse().unwrap(), options).unwrap();
        Self { client: client.with_token("sdp_test".into()).unwrap(), requests, serving }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The values of a header, by request.
    fn headers(&self, name: &str) -> Vec<Option<String>> {
        let find = |request: String| {
            let lines = request.lines().find_map(|line| line.split_once(": ").filter(|(it, _)| *it == name));
            lines.map(|(_, value)| value.to_owned())
        };
        self.requests().into_iter().map(find).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Vec<Act>, seen: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        match script.get(number).or(script.last()) {
            Some(Act::Answer(text)) => stream.write_all(text.as_bytes()).await.unwrap(),
            Some(Act::Hold) => std::future::pending().await,
            Some(Act::Lose) | None => return,
        }
    }
}

/// A whole request, its head in lower case.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        let len = stream.read(&mut bytes).await.ok().filter(|len| *len > 0)?;
        text.push_str(&String::from_utf8_lossy(&bytes[..len]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Some(format!("{head}\r\n\r\n{body}"));
        }
    }
}

const SANDBOX: &str = r#"{"name":"pay","environment":"default","owner":"ada","created_at":"2026-01-02T03:04:05Z","expires_at":"2026-01-09T03:04:05Z"}"#;
const ME: &str = r#"{"user":"ada","role":"developer","expires_at":"2026-01-02T03:04:05Z"}"#;

fn pay() -> CreateSandbox {
    CreateSandbox::new("pay".parse().unwrap())
}

#[tokio::test]
async fn what_creates_is_sent_again_with_the_same_key() {
    let server = Scripted::new(vec![Act::Lose, problem(502, "git-failed", ""), json("201 Created", SANDBOX)]).await;
    // A refusal that is final is not repeated, though the request could be.
    let error = server.client.create_sandbox(&pay()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::GitFailed));
    assert_eq!(server.client.create_sandbox(&pay()).await.unwrap().owner.as_str(), "ada");
    let keys = server.headers("idempotency-key");
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[0], keys[1]);
    assert!(keys[0].is_some() && keys[2].is_some() && keys[1] != keys[2], "{keys:?}");
    assert_eq!(server.requests()[0], server.requests()[1]);
}

#[tokio::test]
async fn what_was_refused_is_not_created_again_and_what_is_under_way_is_waited_for() {
    let server = Scripted::new(vec![problem(503, "agent-away", r#","retryable":true"#)]).await;
    let error = server.client.create_sandbox(&pay()).await.unwrap_err();
    assert_eq!((error.code(), server.requests().len()), (Some(ErrorCode::AgentAway), 1));

    let busy = problem(409, "conflict", r#","retryable":true,"retry_after":0"#);
    let mut script = vec![busy; 5];
    script.push(json("201 Created", SANDBOX));
    let server = Scripted::new(script).await;
    assert_eq!(server.client.create_sandbox(&pay()).await.unwrap().owner.as_str(), "ada");
    let keys = server.headers("idempotency-key");
    assert!(keys.len() == 6 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test]
async fn what_changes_something_by_steps_is_sent_once() {
    let server = Scripted::new(vec![Act::Lose]).await;
    let (name, change) = ("pay".parse().unwrap(), ChangeSandbox::default());
    let error = server.client.change_sandbox(&name, &change, None).await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
    assert!(error.to_string().contains("PATCH /api/sandboxes/pay"), "{error}");
    server.client.put_sandbox_to_sleep(&name).await.unwrap_err();
    server.client.sign_in("ada".parse().unwrap(), "secret".into()).await.unwrap_err();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_command_is_sent_once_and_its_answer_has_an_end() {
    let run = async |act| {
        let server = Scripted::new(vec![act]).await;
        let (id, command) = (DeploymentId::new(), ExecCommand::new(["ls", "-l"]).unwrap());
        let told = match server.client.exec(id, command).await {
            Ok(running) => running.complete().await,
            Err(error) => Err(error),
        };
        let requests = server.requests();
        assert_eq!(requests.len(), 1, "it is not sent again");
        assert!(requests[0].starts_with(&format!("post /api/deployments/{id}/exec ")), "{requests:?}");
        assert!(requests[0].ends_with(r#"{"command":["ls","-l"]}"#), "{requests:?}");
        told
    };
    let lines = "\n{\"stream\":\"stdout\",\"line\":\"a\"}\n\n{\"stream\":\"stderr\",\"line\":\"b\"}\n";
    let whole = answer("200 OK", "", &format!("{lines}{{\"end\":\"exited\",\"code\":3}}\n"));
    let completed = CompletedCommand { stdout: "a\n".into(), stderr: "b\n".into(), code: 3 };
    assert_eq!(run(whole).await.unwrap(), completed);
    for cut in [lines, "", "{\"stream\":\"std"] {
        let told = run(answer("200 OK", "", cut)).await;
        assert!(matches!(told, Err(ClientError::Broken { .. })), "{told:?}");
    }
    let told = run(answer("200 OK", "", "<html>\n")).await;
    assert!(matches!(told, Err(ClientError::Unreadable { .. })), "{told:?}");
    let broken = serde_json::json!({ "end": "broken", "problem": Problem::new(ErrorCode::AgentAway, "it left") });
    let told = run(answer("200 OK", "", &format!("{lines}{broken}\n"))).await;
    assert_eq!(told.unwrap_err().code(), Some(ErrorCode::AgentAway));
    assert_eq!(run(problem(503, "agent-away", "")).await.unwrap_err().code(), Some(ErrorCode::AgentAway));
    assert!(matches!(run(Act::Lose).await, Err(ClientError::Broken { .. })));
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_a_deletion() {
    let gone = problem(404, "not-found", "");
    let server = Scripted::new(vec![Act::Lose, gone.clone(), gone]).await;
    let name = "pay".parse().unwrap();
    assert_eq!(server.client.delete_sandbox(&name, None).await.unwrap(), None);
    let error = server.client.delete_sandbox(&name, None).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound), "of the next, the answer came");
}

#[tokio::test]
async fn a_server_that_says_when_is_asked_again_then() {
    let busy = problem(429, "rate-limited", r#","retryable":true,"retry_after":0"#);
    let by_header = Act::Answer(match problem(503, "agent-away", r#","retryable":true"#) {
        Act::Answer(text) => text.replacen("\r\n", "\r\nretry-after: 0\r\n", 1),
        act => panic!("{}", matches!(act, Act::Lose)),
    });
    let server = Scripted::new(vec![busy, by_header, json("200 OK", ME)]).await;
    assert_eq!(server.client.me().await.unwrap().user.as_str(), "ada");
    assert_eq!(server.requests().len(), 3);

    let later = problem(429, "rate-limited", r#","retryable":true,"retry_after":3600"#);
    let server = Scripted::new(vec![later]).await;
    let error = server.client.me().await.unwrap_err();
    assert_eq!(error.problem().unwrap().retry_after, Some(3600));
    assert_eq!(server.requests().len(), 1, "nobody waits an hour");
}

#[tokio::test]
async fn attempts_end() {
    let server = Scripted::new(vec![problem(503, "agent-away", r#","retryable":true"#)]).await;
    let error = server.client.agents().await.unwrap_err();
    assert_eq!((error.code(), server.requests().len()), (Some(ErrorCode::AgentAway), 4));
}

#[tokio::test]
async fn a_problem_is_told_with_everything_the_server_said() {
    let more = r#","field":"host_port","holder":"pay/eredar","retryable":false"#;
    let server = Scripted::new(vec![problem(409, "port-taken", more)]).await;
    let wanted = CreateDeployment::new("eredar".parse().unwrap(), "main".parse().unwrap());
    let error = server.client.deploy(&wanted).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((problem.status, problem.code), (409, ErrorCode::PortTaken));
    assert_eq!((problem.field.as_deref(), problem.holder.as_deref()), (Some("host_port"), Some("pay/eredar")));
    assert_eq!((error.to_string().as_str(), error.code_str()), ("a sentence", "port-taken"));
}

#[tokio::test]
async fn answers_that_are_not_the_servers_are_told_apart() {
    let page = answer("200 OK", "content-type: text/html\r\n", "<h1>Welcome</h1>");
    let moved = answer("308 Moved", "location: https://sdp.example/api/me\r\n", "");
    let older = json("200 OK", r#"{"user":"ada"}"#);
    let server = Scripted::new(vec![page, moved, older]).await;
    let error = server.client.me().await.unwrap_err();
    assert!(matches!(error, ClientError::NotSdp { status: 200, .. }), "{error:?}");
    let error = server.client.me().await.unwrap_err();
    assert!(error.cure().unwrap().contains("https://sdp.example/api/me"), "{error:?}");
    let error = server.client.me().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreadable { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_there_and_no_tls_there_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    let client = Client::new(free.to_string().parse().unwrap(), options.clone()).unwrap();
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    let error = client.events(None).next().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");

    // What speaks plain HTTP answers a greeting of TLS with what is none.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: ServerAddress = format!("https://{}", plain.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        }
    });
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, certified.cert.pem()).unwrap();
    options.ca_file = Some(file.clone());
    let client = Client::new(address.clone(), options.clone()).unwrap();
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    let error = client.events(None).next().await.unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    serving.abort();

    std::fs::write(&file, "no certificate").unwrap();
    let error = Client::new(address, options).unwrap_err();
    assert!(matches!(error, ClientError::CaFile { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let server = Scripted::new(vec![Act::Hold]).await;
    let mut options = ClientOptions::default();
    options.request_timeout = Duration::from_millis(50);
    let client = Client::new(server.client.address().clone(), options).unwrap();
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn who_asks_is_proven_only_where_it_is_needed_and_never_shown() {
    let server = Scripted::new(vec![json("200 OK", r#"{"status":"ok","version":"1"}"#), json("200 OK", ME)]).await;
    server.client.health().await.unwrap();
    server.client.me().await.unwrap();
    assert_eq!(server.headers("authorization"), [None, Some("bearer sdp_test".into())]);
    assert!(!format!("{:?}", server.client).contains("sdp_test"));
    for text in ["", "a b", "a\nb", "é"] {
        assert!(matches!(server.client.with_token(text.into()), Err(ClientError::InvalidToken)), "{text:?}");
    }
}
