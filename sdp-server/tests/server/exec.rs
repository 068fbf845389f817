//! Commands that are run where a deployment runs, as its agent tells of them.

use http::Method;
use reqwest::Response;
use sdp_core::{
    DeploymentState, ErrorCode, ExecCommand, Inventory,
    protocol::{Outcome, OutputStep, ReplyBody, RequestBody},
};
use serde_json::{Value, json};

use crate::{
    output::{Script, piece, running},
    support::{Agent, Api, Plane, done, inventory, left, patiently, refused, until},
};

fn exited(code: i64) -> Outcome {
    Outcome::Ok(ReplyBody::Output { lines: vec![], ended: true, exit_code: Some(code) })
}

fn command() -> Value {
    json!({ "command": ["php", "artisan", "make:user", "Ada L."] })
}

async fn ask(api: &Api, id: &str) -> Response {
    let bearer = format!("Bearer {}", api.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    api.raw(Method::POST, &format!("/api/deployments/{id}/exec"), &headers, command().to_string()).await
}

/// The lines of an answer.
async fn told(answer: Response) -> Vec<Value> {
    let text = patiently(answer.text()).await.unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn audited(api: &Api) -> Vec<Value> {
    api.get("/api/audit?action=exec").await.1["items"].as_array().unwrap().clone()
}

/// An answer of which the first line has come.
async fn begun(agent: &mut Agent, api: &Api, id: &str) -> Response {
    let begin = async {
        let begin = agent.request().await;
        agent.reply(begin.id, piece(&["one"], false)).await;
    };
    let mut answer = tokio::join!(ask(api, id), begin).0;
    assert_eq!(patiently(answer.chunk()).await.unwrap().unwrap(), "{\"stream\":\"stderr\",\"line\":\"one\"}\n");
    answer
}

#[tokio::test]
async fn a_command_tells_what_it_prints_and_how_it_exits_and_is_written_down() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let mut script =
        Script::new([piece(&["one"], false), piece(&[], false), piece(&["two", "three"], false), exited(3)]);
    let answered = async {
        let answer = ask(&api, &id).await;
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    };
    let (status, kind, text) = agent.during(answered, |body| script.answer(body)).await;
    assert_eq!((status, kind.as_str()), (200, "application/x-ndjson"));
    let lines = ["one", "two", "three"].map(|line| format!("{{\"stream\":\"stderr\",\"line\":\"{line}\"}}\n"));
    assert_eq!(text, lines.concat() + "{\"end\":\"exited\",\"code\":3}\n");
    let (reader, begin) = script.asked.remove(0);
    let wanted = ExecCommand::new(["php", "artisan", "make:user", "Ada L."]).unwrap();
    assert_eq!(begin, OutputStep::Exec(wanted));
    assert_eq!(script.asked, vec![(reader, OutputStep::Next); 3], "it is run once and then read");

    let audit = audited(&api).await;
    assert_eq!(audit.len(), 1, "{audit:?}");
    let entry = ["user", "subject", "deployment", "detail"].map(|field| audit[0][field].as_str().unwrap());
    assert_eq!(entry, ["ada", "sandboxes/pay/repos/eredar", &id, "php artisan make:user 'Ada L.'"]);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn who_waits_for_a_command_is_told_why_its_end_is_not_known() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let mut script = Script::new([piece(&["one"], false), refused(ErrorCode::Timeout, "the command was ended")]);
    let answered = async { told(ask(&api, &id).await).await };
    let lines = agent.during(answered, |body| script.answer(body)).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[1]["end"], &lines[1]["problem"]["code"]), (&json!("broken"), &json!("timeout")));

    // Its reader signs out.
    let bob = Api::sign_in(plane.address(), &mut agent, "bob").await;
    assert_eq!(api.patch("/api/sandboxes/pay", json!({ "shared_with": ["bob"] })).await.0, 200);
    let answer = begun(&mut agent, &bob, &id).await;
    assert_eq!(bob.post("/api/logout", json!({})).await.0, 204);
    let lines = told(answer).await;
    assert_eq!(lines.last().unwrap()["problem"]["code"], "not-signed-in", "{lines:?}");
    until_ended(&mut agent).await;

    let answer = begun(&mut agent, &api, &id).await;
    drop(agent);
    let lines = told(answer).await;
    assert_eq!(lines.last().unwrap()["problem"]["code"], "agent-away", "{lines:?}");
    let before = audited(&api).await.len();
    assert_eq!(ask(&api, &id).await.status(), 503);
    assert_eq!(audited(&api).await.len(), before, "what was not asked for is not written down");
    plane.server.shutdown().await;
}

/// Answers what was asked for already, until the agent is told to end the command.
async fn until_ended(agent: &mut Agent) {
    loop {
        let request = agent.request().await;
        let RequestBody::Output { step, .. } = request.body else { panic!("{request:?}") };
        let ended = step == OutputStep::End;
        agent.reply(request.id, piece(&[], ended)).await;
        if ended {
            break;
        }
    }
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_is_ended_whenever_they_leave() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    drop(begun(&mut agent, &api, &id).await);
    until_ended(&mut agent).await;

    // Before its agent has answered that it runs.
    let begin = {
        let asked = ask(&api, &id);
        tokio::select! {
            begin = agent.request() => begin,
            answer = asked => panic!("answered too early: {answer:?}"),
        }
    };
    assert!(matches!(begin.body, RequestBody::Output { step: OutputStep::Exec(_), .. }), "{begin:?}");
    agent.reply(begin.id, piece(&["one"], false)).await;
    until_ended(&mut agent).await;
    plane.server.shutdown().await;
}

#[tokio::test]
async fn where_no_command_may_run_it_is_said_why_and_nobody_is_asked() {
    for (exec, status, says) in
        [(Some(false), 403, "agent micro lets nobody run commands"), (None, 501, "too old to run commands")]
    {
        let plane = Plane::new().await;
        let told = Inventory { exec, ..inventory(&["eredar"]) };
        let (mut agent, api, _) = plane.ready(told).await;
        let id = agent.runs(&api, "/api/deployments").await.id.to_string();
        let nobody = |body: &RequestBody| panic!("{body:?}");
        let path = format!("/api/deployments/{id}/exec");
        let (found, problem) = agent.during(api.post(&path, command()), nobody).await;
        assert_eq!((found, &problem["holder"]), (status, &json!("micro")), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        assert_eq!(audited(&api).await, Vec::<Value>::new());
        plane.server.shutdown().await;
    }
}

#[tokio::test]
async fn what_does_not_run_and_what_is_no_command_is_refused() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let path = format!("/api/deployments/{id}/exec");
    for wrong in [json!([]), json!([""]), json!(vec!["x"; 300]), json!(["a\0b"]), json!("ls")] {
        let (status, problem) = api.post(&path, json!({ "command": wrong })).await;
        assert_eq!((status, &problem["field"]), (422, &json!("command")), "{problem}");
    }
    assert_eq!(agent.during(api.post(&format!("/api/deployments/{id}/stop"), json!({})), done).await.0, 200);
    let (status, problem) = api.post(&path, command()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("restart it first"), "{problem}");

    let headers = [("authorization", format!("Bearer {}", api.token)), ("content-type", "application/json".into())];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let headers = [&headers[..], &[("idempotency-key", "k1")]].concat();
    let answer = api.raw(Method::POST, &path, &headers, command().to_string()).await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status == 422 && text.contains("Idempotency-Key"), "{status} {text}");

    let failed = left(sdp_core::DeploymentId::new(), "pay", DeploymentState::Failed);
    plane.server.state().store().insert_deployment(&failed).await.unwrap();
    let (status, problem) = api.post(&format!("/api/deployments/{}/exec", failed.id), command()).await;
    assert_eq!((status, &problem["code"]), (409, &json!("conflict")), "{problem}");
    plane.server.shutdown().await;
}

#[tokio::test]
async fn no_command_runs_in_what_is_about_to_take_a_deployments_place() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let (path, nobody) = (format!("/api/deployments/{id}/exec"), |body: &RequestBody| panic!("{body:?}"));
    let coming = left(sdp_core::DeploymentId::new(), "pay", DeploymentState::Health);
    plane.server.state().store().insert_deployment(&coming).await.unwrap();
    let (status, problem) = agent.during(api.post(&path, command()), nobody).await;
    assert_eq!(
        (status, &problem["holder"], &problem["retryable"]),
        (409, &json!(coming.id), &json!(true)),
        "{problem}"
    );
    assert_eq!(audited(&api).await, Vec::<Value>::new());
    plane.server.shutdown().await;
}

#[tokio::test]
async fn an_agent_that_is_away_may_come_back_with_another_mind() {
    let plane = Plane::new().await;
    let told = Inventory { exec: Some(false), ..inventory(&["eredar"]) };
    let (mut agent, api, _) = plane.ready(told).await;
    let id = agent.runs(&api, "/api/deployments").await.id.to_string();
    drop(agent);
    until(|| api.get("/api/agents"), |(_, agents)| agents[0]["connected"] == false).await;
    assert_eq!(ask(&api, &id).await.status(), 503);
    plane.server.shutdown().await;
}

#[tokio::test]
async fn a_command_whose_next_lines_do_not_come_in_time_is_ended() {
    let plane = Plane::new().await;
    let (mut agent, api, id) = running(&plane).await;
    let answer = begun(&mut agent, &api, &id).await;
    let next = agent.request().await;
    // Not an answer to that.
    agent.reply(next.id, Outcome::Ok(ReplyBody::Done)).await;
    until_ended(&mut agent).await;
    assert_eq!(told(answer).await.last().unwrap()["end"], "broken");
    plane.server.shutdown().await;
}
