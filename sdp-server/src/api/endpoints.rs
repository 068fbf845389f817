//! Every endpoint: who may use it, what answers it, and what it says of itself. This list makes the router and the
//! description of the API.

use sdp_core::{
    Agent, ApiToken, Branch, Deployment, Disk, Environment, ErrorCode as E, Examination, Explanation, LogLine,
    Manifest, RouteTable, Sandbox, Template, User,
    api::{
        DeployedSandbox, ListedSandbox, LoginResponse, Page, Repo, SandboxDetail,
        audit::AuditEntry,
        declared::{AppliedSandbox, SandboxChanges},
        exec::ExecEnd,
        health::Health,
        people::{EnrolledAgent, Me, NewToken},
        vitals::{RunningStats, ServiceStats},
    },
    protocol::{self, SessionKey, Welcome},
};
use serde_json::{Map, Value, json};

use super::{
    agent_link, agents, audit, deployments,
    endpoint::{Served, delete, get, patch, post, put},
    environments, exec, explain, health,
    idempotency::Holds,
    lifecycle, live, logs, manifest, metrics, openapi, output, repos, rollback, routes, sandboxes, session, stats,
    stream, templates, tokens, users, webhooks,
};
use crate::{auth::Rule, bitbucket::Taken};

/// All of them.
pub(super) fn served() -> Vec<Served> {
    [platform(), people(), vms(), shapes(), of_sandboxes(), of_deployments(), links()].into_iter().flatten().collect()
}

fn platform() -> Vec<Served> {
    vec![
        get("/healthz", Rule::Anyone, health::alive).says("Whether the server lives").json::<Health>(200),
        get("/readyz", Rule::Anyone, health::ready)
            .says("Whether the server can do its work: its database answers")
            .json::<Health>(200)
            .fails(&[E::EventsUnavailable]),
        get("/metrics", Rule::Anyone, metrics::metrics)
            .says("Counters, histograms and gauges for Prometheus, in the text format of OpenMetrics")
            .text(&[crate::metrics::CONTENT_TYPE]),
        get("/api/openapi.json", Rule::Anyone, openapi::json)
            .says("This description, OpenAPI 3.1")
            .json::<Map<String, Value>>(200),
        get("/api/docs", Rule::Anyone, openapi::page).says("This description as a page").text(&["text/html"]),
        get("/api/docs/page.js", Rule::Anyone, openapi::script).says("That page's script").text(&["text/javascript"]),
        get("/api/docs/page.css", Rule::Anyone, openapi::style).says("That page's style").text(&["text/css"]),
        post("/api/webhooks/bitbucket/{name}", Rule::Anyone, webhooks::bitbucket)
            .up_to(webhooks::MAX_BODY_BYTES)
            .says("Webhooks of a Bitbucket that the configuration names, which signs them")
            .json::<Taken>(202)
            .fails(&[E::NotFound, E::NotAllowed]),
        get("/api/audit", Rule::Viewer, audit::list)
            .says("Who did what, when and from where; the newest first")
            .json::<Page<AuditEntry>>(200),
        get("/ws/events", Rule::Viewer, live::follow).says("What changes on the platform, from an event on, then live"),
    ]
}

fn people() -> Vec<Served> {
    vec![
        post("/api/login", Rule::Anyone, session::login)
            .says("Signs in with git user and password, which an agent checks with the git host")
            .example(json!({ "username": "ada", "password": "correct-horse-battery" }))
            .json::<LoginResponse>(200)
            .asks_agent()
            .fails(&[E::InvalidCredentials, E::NotAllowed, E::RateLimited]),
        post("/api/logout", Rule::Session, session::logout).says("Ends this session, or all of this user").nothing(204),
        get("/api/me", Rule::Viewer, session::me).says("Who is signed in").json::<Me>(200),
        get("/api/tokens", Rule::Session, tokens::list)
            .says("The tokens of who asks, the newest first")
            .json::<Vec<ApiToken>>(200),
        post("/api/tokens", Rule::Session, tokens::create)
            .once(Holds::Secret)
            .says("Makes a token for scripts, which is shown this once")
            .example(json!({ "name": "nightly build", "scopes": ["deploy"], "expires_in": "30d" }))
            .json::<NewToken>(201),
        delete("/api/tokens/{id}", Rule::Session, tokens::revoke)
            .says("Revokes a token; an admin revokes anybody's")
            .nothing(204),
        get("/api/users", Rule::Admin, users::list).says("Everybody who has signed in").json::<Vec<User>>(200),
        get("/api/users/{name}", Rule::Admin, users::one).says("Somebody who has signed in").json::<User>(200),
        put("/api/users/{name}", Rule::Admin, users::change)
            .says("Gives a role, locks out, or lets in again")
            .example(json!({ "role": "viewer" }))
            .json::<User>(200)
            .fails(&[E::Conflict]),
    ]
}

fn vms() -> Vec<Served> {
    vec![
        get("/api/agents", Rule::Viewer, agents::list).says("Every enrolled agent").json::<Vec<Agent>>(200),
        post("/api/agents", Rule::Admin, agents::enrol)
            .once(Holds::Secret)
            .says("Enrols an agent; its token is shown this once")
            .example(json!({ "name": "micro-92" }))
            .json::<EnrolledAgent>(201),
        get("/api/agents/{name}", Rule::Viewer, agents::one).says("An agent").json::<Agent>(200),
        get("/api/agents/{name}/disks", Rule::Viewer, agents::disks)
            .says("The room on the disks that an agent uses")
            .json::<Vec<Disk>>(200)
            .asks_agent(),
        get("/api/agents/{name}/doctor", Rule::Developer, agents::doctor)
            .says("What works on an agent's machine and what does not, as `sdp-agent doctor` says there")
            .json::<Examination>(200)
            .asks_agent(),
        post("/api/agents/{name}/rotate", Rule::Admin, agents::rotate)
            .once(Holds::Secret)
            .says("Gives an agent another token, shown this once, and ends its connection")
            .json::<EnrolledAgent>(200),
        delete("/api/agents/{name}", Rule::Admin, agents::revoke)
            .says("Revokes an agent's token and ends its connection")
            .nothing(204),
        get("/api/repos", Rule::Viewer, repos::list).says("What can be deployed").json::<Vec<Repo>>(200),
        get("/api/repos/{repo}/branches", Rule::Viewer, repos::branches)
            .says("A repo's branches as the remote has them now")
            .json::<Vec<Branch>>(200)
            .asks_agent(),
    ]
}

fn shapes() -> Vec<Served> {
    let environment = || json!({ "name": "qa", "agents": [], "env": { "LOG_LEVEL": "debug" }, "idle_after": "12h" });
    let template = || json!({ "name": "checkout", "services": [{ "repo": "eredar", "branch": "main" }] });
    let unnamed = |mut body: Value| {
        if let Some(fields) = body.as_object_mut() {
            fields.remove("name");
        }
        body
    };
    vec![
        get("/api/environments", Rule::Viewer, environments::list)
            .says("Where sandboxes live")
            .json::<Vec<Environment>>(200),
        post("/api/environments", Rule::Admin, environments::create)
            .once(Holds::Plain)
            .says("Makes an environment")
            .example(environment())
            .tagged::<Environment>(201),
        get("/api/environments/{name}", Rule::Viewer, environments::one)
            .says("An environment")
            .tagged::<Environment>(200),
        put("/api/environments/{name}", Rule::Admin, environments::replace)
            .says("Sets everything of an environment anew")
            .example(unnamed(environment()))
            .tagged::<Environment>(200),
        delete("/api/environments/{name}", Rule::Admin, environments::delete)
            .says("Deletes an environment that no sandbox lives in")
            .nothing(204)
            .fails(&[E::Conflict]),
        get("/api/templates", Rule::Viewer, templates::list)
            .says("Saved shapes to make sandboxes from")
            .json::<Vec<Template>>(200),
        post("/api/templates", Rule::Developer, templates::create)
            .once(Holds::Plain)
            .says("Saves a template, by hand or from a sandbox")
            .example(template())
            .tagged::<Template>(201)
            .fails(&[E::NotFound]),
        get("/api/templates/{name}", Rule::Viewer, templates::one).says("A template").tagged::<Template>(200),
        put("/api/templates/{name}", Rule::Template, templates::replace)
            .says("Sets everything of a template anew")
            .example(unnamed(template()))
            .tagged::<Template>(200),
        delete("/api/templates/{name}", Rule::Template, templates::delete).says("Deletes a template").nothing(204),
    ]
}

fn of_sandboxes() -> Vec<Served> {
    let deployment = || json!({ "repo": "eredar", "branch": "feature/greeting" });
    vec![
        get("/api/sandboxes", Rule::Viewer, sandboxes::list).says("Sandboxes by name").json::<Page<ListedSandbox>>(200),
        post("/api/sandboxes", Rule::Developer, sandboxes::create)
            .once(Holds::Plain)
            .says("Makes a sandbox: plain, from a template, or cloned")
            .example(json!({ "name": "checkout-fix", "template": "checkout", "expires_in": "3d" }))
            .json::<Sandbox>(201)
            .fails(&[E::NotFound]),
        get("/api/sandboxes/{name}", Rule::Viewer, sandboxes::one)
            .says("A sandbox with the newest deployment of each of its repos")
            .tagged::<SandboxDetail>(200)
            .fails(&[E::Conflict]),
        patch("/api/sandboxes/{name}", Rule::Sandbox, sandboxes::change)
            .says("Moves a sandbox's end, or changes whom it is shared with")
            .example(json!({ "expires_in": "7d", "shared_with": ["bob"] }))
            .tagged::<SandboxDetail>(200)
            .fails(&[E::Conflict]),
        delete("/api/sandboxes/{name}", Rule::Sandbox, sandboxes::delete)
            .says("Tears a sandbox down: 204 when nothing of it is left, 202 while some is")
            .nothing(204)
            .json::<SandboxDetail>(202)
            .fails(&[E::Conflict]),
        put("/api/sandboxes/{name}", Rule::NewSandbox, manifest::apply)
            .says("Makes or changes a sandbox as a document says, which is JSON or YAML (application/yaml): 201 when it was made, 202 when something has begun")
            .example(json!({ "services": [{ "repo": "eredar", "branch": "feature/greeting" }], "expires_in": "7d" }))
            .json::<AppliedSandbox>(200)
            .json::<AppliedSandbox>(201)
            .json::<AppliedSandbox>(202)
            .fails(&[E::NotFound, E::Conflict]),
        post("/api/sandboxes/{name}/diff", Rule::Viewer, manifest::diff)
            .says("What applying the document would change")
            .example(json!({ "services": [{ "repo": "eredar", "branch": "feature/greeting" }] }))
            .json::<SandboxChanges>(200)
            .fails(&[E::NotFound, E::Conflict]),
        get("/api/sandboxes/{name}/export", Rule::Viewer, manifest::export)
            .says("The document that, applied, gives the same sandbox: YAML, unless JSON is asked for")
            .text(&["application/yaml"])
            .json::<Manifest>(200),
        post("/api/sandboxes/{name}/deploy", Rule::Sandbox, lifecycle::deploy)
            .once(Holds::Plain)
            .says("Deploys every service of a sandbox, then sets the routes it wants")
            .example(json!({}))
            .json::<DeployedSandbox>(202)
            .asks_agent(),
        post("/api/sandboxes/{name}/sleep", Rule::Sandbox, lifecycle::sleep)
            .says("Stops what runs in a sandbox, and keeps it")
            .json::<SandboxDetail>(200)
            .asks_agent(),
        post("/api/sandboxes/{name}/wake", Rule::Sandbox, lifecycle::wake)
            .says("Starts what its sleep had stopped")
            .json::<SandboxDetail>(200)
            .asks_agent(),
        post("/api/sandboxes/{name}/deployments", Rule::Sandbox, deployments::create_in_sandbox)
            .once(Holds::Plain)
            .says("Deploys a branch into a sandbox")
            .example(deployment())
            .json::<Deployment>(202)
            .asks_agent(),
        get("/api/sandboxes/{name}/stats", Rule::Viewer, stats::of_sandbox)
            .says("CPU and memory of each service that runs in a sandbox, measured now")
            .json::<Vec<ServiceStats>>(200),
        get("/api/sandboxes/{name}/routes", Rule::Viewer, routes::table)
            .says("The gateway's live table")
            .json::<RouteTable>(200)
            .asks_agent(),
        put("/api/sandboxes/{name}/routes", Rule::Sandbox, routes::set_many)
            .says("Sets many routes, in one write and one reload")
            .example(json!({ "routes": { "eredar": "sandbox", "illidan": "ocp" } }))
            .json::<RouteTable>(200)
            .asks_agent(),
        put("/api/sandboxes/{name}/routes/{service}", Rule::Sandbox, routes::set_one)
            .says("Sets a route")
            .example(json!({ "target": "sandbox", "reason": "load test of SHOP-12", "expires_in": "2h" }))
            .json::<RouteTable>(200)
            .asks_agent(),
        get("/api/sandboxes/{name}/routes/{service}/explain", Rule::Viewer, explain::of_sandbox)
            .says("Why a request of this sandbox reaches what it reaches")
            .json::<Explanation>(200)
            .asks_agent(),
        get("/api/explain", Rule::Viewer, explain::request)
            .says("Why a request to the shared gateway reaches what it reaches")
            .json::<Explanation>(200)
            .asks_agent(),
    ]
}

fn of_deployments() -> Vec<Served> {
    vec![
        get("/api/deployments", Rule::Viewer, deployments::list)
            .says("History, the newest first")
            .json::<Page<Deployment>>(200),
        post("/api/deployments", Rule::Developer, deployments::create)
            .once(Holds::Plain)
            .says("Deploys a branch outside any sandbox")
            .example(json!({ "repo": "eredar", "branch": "feature/greeting", "env": { "LOG_LEVEL": "debug" } }))
            .json::<Deployment>(202)
            .asks_agent(),
        get("/api/deployments/{id}", Rule::Viewer, deployments::one).says("A deployment").json::<Deployment>(200),
        get("/api/deployments/{id}/stats", Rule::Viewer, stats::of_deployment)
            .says("CPU and memory of what a deployment runs, measured now")
            .json::<RunningStats>(200)
            .asks_agent(),
        post("/api/deployments/{id}/cancel", Rule::Deployment, deployments::cancel)
            .says("Cancels a deployment that has not ended")
            .json::<Deployment>(202)
            .asks_agent(),
        post("/api/deployments/{id}/stop", Rule::Deployment, deployments::stop)
            .says("Stops what a deployment runs")
            .json::<Deployment>(200)
            .asks_agent(),
        post("/api/deployments/{id}/restart", Rule::Deployment, deployments::restart)
            .says("Starts it again")
            .json::<Deployment>(200)
            .asks_agent(),
        post("/api/deployments/{id}/exec", Rule::Deployment, exec::exec)
            .says("Runs a command where a deployment's program runs, if its agent's operator allows it: what it prints, a line of JSON for each, and last how it has exited")
            .example(json!({ "command": ["php", "artisan", "migrate", "--force"] }))
            .lines::<LogLine, ExecEnd>()
            .asks_agent(),
        post("/api/deployments/{id}/retry", Rule::Deployment, deployments::retry)
            .once(Holds::Plain)
            .says("Deploys the same once more, for whoever asks")
            .example(json!({}))
            .json::<Deployment>(202)
            .asks_agent(),
        post("/api/deployments/{id}/rollback", Rule::Deployment, rollback::rollback)
            .once(Holds::Plain)
            .says("Deploys exactly what an earlier deployment was")
            .example(json!({}))
            .json::<Deployment>(202)
            .asks_agent(),
        get("/api/deployments/{id}/log", Rule::Viewer, logs::log)
            .says("A deployment's log so far")
            .text(&["text/plain", "application/x-ndjson"])
            .fails(&[E::EventsUnavailable]),
        get("/ws/deployments/{id}", Rule::Viewer, stream::follow)
            .says("A deployment's log from a line on, live, then its end")
            .fails(&[E::EventsUnavailable]),
        get("/api/deployments/{id}/output", Rule::Viewer, output::output)
            .says("What a deployment's program has printed so far")
            .text(&["text/plain", "application/x-ndjson"])
            .asks_agent(),
        get("/ws/deployments/{id}/output", Rule::Viewer, output::follow)
            .says("What a deployment's program prints, live, until it ends")
            .asks_agent(),
    ]
}

/// What agents use: nothing of it is for people.
fn links() -> Vec<Served> {
    vec![
        get("/ws/agent", Rule::Agent, agent_link::socket).says("An agent's connection"),
        post("/ws/agent/check", Rule::Agent, agent_link::check)
            .up_to(protocol::MAX_BODY_BYTES)
            .says("What an agent with this hello would be told")
            .json::<Welcome>(200)
            .fails(&[E::Unsupported, E::TooLarge]),
        post("/ws/agent/session", Rule::Agent, agent_link::open)
            .says("Opens a session over plain HTTP, where WebSockets do not get through")
            .json::<SessionKey>(201),
        get("/ws/agent/session/frames", Rule::Agent, agent_link::fetch)
            .says("Waits for frames to the agent")
            .bytes()
            .nothing(204)
            .fails(&[E::NotFound, E::Conflict, E::AgentAway]),
        post("/ws/agent/session/frames", Rule::Agent, agent_link::bring)
            .up_to(protocol::MAX_BODY_BYTES)
            .says("Brings frames of the agent")
            .nothing(204)
            .fails(&[E::NotFound, E::Conflict, E::AgentAway]),
        post("/ws/agent/session/end", Rule::Agent, agent_link::end)
            .says("Ends such a session")
            .nothing(204)
            .fails(&[E::NotFound]),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn document() -> Value {
        serde_json::from_slice(&openapi::document(&served())).unwrap()
    }

    #[test]
    fn every_endpoint_is_described_with_its_answers_and_refusals() {
        let document = document();
        let mut ids = BTreeSet::new();
        for Served { endpoint, .. } in served() {
            let method = endpoint.method.as_str().to_lowercase();
            let operation = &document["paths"][endpoint.path][&method];
            let place = format!("{method} {}", endpoint.path);
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{place} says nothing");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
            let answers: Vec<_> = operation["responses"].as_object().unwrap().keys().collect();
            assert!(answers.iter().any(|status| status.as_str() < "300"), "{place} answers nothing: {answers:?}");
            let refuses = ["401", "403"].iter().all(|status| operation["responses"].get(status).is_some());
            assert!(refuses || endpoint.rule == Rule::Anyone, "{place} refuses nobody");
            let named: BTreeSet<_> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|it| it["in"] == "path")
                .map(|it| it["name"].as_str().unwrap())
                .collect();
            let wanted: BTreeSet<_> =
                endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(named, wanted, "{place}");
        }
        let described =
            document["paths"].as_object().unwrap().values().map(|methods| methods.as_object().unwrap().len());
        assert_eq!(described.sum::<usize>(), served().len());
    }

    #[test]
    fn examples_are_what_they_are_examples_of() {
        for Served { endpoint, doc, .. } in served() {
            if let Err(error) = doc.check_example() {
                panic!("{} {}: {error}", endpoint.method, endpoint.path);
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{found:?}");
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}
