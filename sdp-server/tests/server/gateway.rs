//! A gateway's agent that keeps its routes in memory, and answers of itself.

use std::{collections::BTreeMap, time::Duration};

use futures_util::FutureExt;
use sdp_core::protocol::{AgentFrame, Hello, Outcome, Reply, ReplyBody, Request, RequestBody, ServerFrame};
use sdp_core::{
    Clock, DeploymentId, ErrorCode, GatewayInfo, Inventory, Problem, RouteStore, RouteTable, SandboxName,
    testing::MemoryRoutes,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::support::{Agent, Api, Plane, batch, hello, inventory, until};

/// The services of every gateway here.
const SERVICES: [(&str, &str); 2] =
    [("eredar", "http://ocp.example/eredar"), ("illidan", "http://ocp.example/illidan")];

/// What the agent has, whether or not it is connected.
#[derive(Debug, Clone)]
pub(crate) struct Gateways {
    pub(crate) shared: MemoryRoutes,
    own: BTreeMap<SandboxName, MemoryRoutes>,
    per_request: bool,
}

impl Gateways {
    pub(crate) fn new(per_request: bool) -> Self {
        let gateways = Self { shared: MemoryRoutes::new("main", SERVICES), own: BTreeMap::new(), per_request };
        gateways.shared.route_per_request(per_request);
        let clock = gateways.shared.clock();
        clock.advance(Duration::try_from(jiff::Timestamp::now().duration_since(clock.now())).unwrap());
        gateways
    }

    /// Gives a sandbox a gateway of its own.
    pub(crate) fn own(mut self, sandbox: &str) -> Self {
        self.own.insert(sandbox.parse().unwrap(), MemoryRoutes::new("feature/x", SERVICES));
        self
    }

    fn inventory(&self) -> Inventory {
        let repo = "erangel-ocean".parse().unwrap();
        let info = GatewayInfo { repo, branch: None, per_request: self.per_request, own_gateways: true };
        let mut inventory = inventory(&["eredar", "erangel-ocean"]);
        inventory.repos[1].service = None;
        Inventory { gateway: Some(info), ..inventory }
    }

    fn routes(&self, sandbox: Option<&SandboxName>) -> Result<&MemoryRoutes, Problem> {
        let Some(sandbox) = sandbox else { return Ok(&self.shared) };
        self.own.get(sandbox).ok_or_else(|| Problem::new(ErrorCode::NotFound, "the gateway has no checkout"))
    }

    fn answer(&self, body: &RequestBody) -> Outcome {
        let told = match body {
            RequestBody::Routes { sandbox } => {
                let table = self.routes(sandbox.as_ref()).map(|routes| routes.table().now_or_never().unwrap());
                table.and_then(|table| table.map_err(|error| (&error).into())).map(|table| ReplyBody::Routes { table })
            }
            RequestBody::ApplyRoutes { changes, sandbox } => {
                let table = self.routes(sandbox.as_ref()).map(|routes| routes.apply(changes).now_or_never().unwrap());
                table.and_then(|table| table.map_err(|error| (&error).into())).map(|table| ReplyBody::Routes { table })
            }
            RequestBody::Explain { question, sandbox } => {
                let told = self.routes(sandbox.as_ref()).map(|routes| routes.explain(question).now_or_never().unwrap());
                let told = told.and_then(|told| told.map_err(|error| (&error).into()));
                told.map(|explanation| ReplyBody::Explanation { explanation })
            }
            RequestBody::Instances => Ok(ReplyBody::Instances { instances: Vec::new() }),
            _ => Ok(ReplyBody::Done),
        };
        told.map_or_else(Outcome::Problem, Outcome::Ok)
    }

    pub(crate) fn table(&self, sandbox: Option<&str>) -> RouteTable {
        let sandbox = sandbox.map(|name| name.parse().unwrap());
        self.routes(sandbox.as_ref()).unwrap().table().now_or_never().unwrap().unwrap()
    }

    /// Waits until a gateway's table is as wanted.
    pub(crate) async fn until(&self, sandbox: Option<&str>, wanted: impl Fn(&RouteTable) -> bool) -> RouteTable {
        until(async || self.table(sandbox), wanted).await
    }
}

/// The connected agent.
pub(crate) struct GatewayAgent {
    frames: mpsc::UnboundedSender<AgentFrame>,
    task: JoinHandle<()>,
    pub(crate) token: SecretString,
}

impl GatewayAgent {
    /// Connects it for the first time, and signs `ada` in.
    pub(crate) async fn start(plane: &Plane, gateways: &Gateways) -> (Self, Api) {
        let token = plane.enrol("gw").await;
        let agent = Self::connect(plane, gateways, token).await;
        let api = agent.sign_in(plane, "ada").await;
        (agent, api)
    }

    pub(crate) async fn connect(plane: &Plane, gateways: &Gateways, token: SecretString) -> Self {
        Self::connect_as("gw", plane, gateways, token).await
    }

    pub(crate) async fn connect_as(name: &str, plane: &Plane, gateways: &Gateways, token: SecretString) -> Self {
        let hello = Hello { inventory: gateways.inventory(), ..hello(name, &token) };
        let mut agent = Agent::greet(plane.address(), hello).await;
        let (frames, mut queued) = mpsc::unbounded_channel();
        let gateways = gateways.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    frame = agent.frame() => if let ServerFrame::Request(Request { id, body, .. }) = frame {
                        let outcome = gateways.answer(&body);
                        agent.send(AgentFrame::Reply(Reply { id, outcome })).await;
                    },
                    frame = queued.recv() => match frame {
                        Some(frame) => agent.send(frame).await,
                        None => return,
                    },
                }
            }
        });
        Self { frames, task, token }
    }

    /// Ends the connection, and gives the token for the next.
    pub(crate) async fn vanish(self, api: &Api) -> SecretString {
        self.task.abort();
        until(|| api.get("/api/agents/gw"), |(_, agent)| agent["connected"] == false).await;
        self.token
    }

    pub(crate) async fn sign_in(&self, plane: &Plane, user: &str) -> Api {
        let mut api = Api::new(plane.address());
        let body = json!({ "username": user, "password": crate::support::PASSWORD });
        let (status, answer) = api.post("/api/login", body).await;
        assert_eq!(status, 200, "{answer}");
        api.token = answer["token"].as_str().unwrap().into();
        api
    }

    /// Has a branch of a repo deployed until it runs at `url`.
    pub(crate) async fn runs(&self, api: &Api, sandbox: &str, repo: &str, url: &str) -> DeploymentId {
        let path = format!("/api/sandboxes/{sandbox}/deployments");
        let (status, deployment) = api.post(&path, json!({ "repo": repo, "branch": "feature/x" })).await;
        assert_eq!(status, 202, "{deployment}");
        let id = serde_json::from_value(deployment["id"].clone()).unwrap();
        let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
        let state = |state: &str| json!({ "type": "state", "state": state });
        let mut events: Vec<Value> = ["source", "build", "start", "health", "routes"].map(state).into();
        events.insert(3, json!({ "type": "endpoint", "host_port": port, "url": url, "instance": "c" }));
        events.push(json!({ "type": "stage", "stage": "routes", "status": "done" }));
        events.push(state("running"));
        self.frames.send(AgentFrame::Events(batch(id, 1, &events))).unwrap();
        until(|| api.state(id), |state| *state == "running").await;
        id
    }
}
