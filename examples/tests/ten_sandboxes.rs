//! Ten developers on one machine and one gateway, each with a branch of their own of both services, while a process
//! beside them asks the gateways all the time and knows what may answer.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![expect(clippy::print_stdout, reason = "a long story says how far it has come")]

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{join_all, try_join_all},
};
use reqwest::Method;
use sdp_core::{
    Deployment, DeploymentState, ErrorCode, EventKind, InstanceState, Problem, SandboxKey, SandboxName, Stage,
    StageStatus,
    api::{Page, SandboxDetail},
};
use sdp_examples::{
    Failed,
    api::Api,
    content::{FEATURE, GATEWAY, SERVICE, SERVICES, commit_service},
    load::{self, Load, Report, Stream},
    playground::{Options, Playground, Runner},
    story, traces,
    wait::{eventually, until},
};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_torture");
const SETTINGS: &str = "[sandboxes]\nupkeep = \"100ms\"\n[agents]\nreconcile = \"1s\"\n";
/// What was replaced is ended soon after nobody is sent there any more.
const DRAIN: &str = "drain = \"1s\"\n";
/// How long all of it may take on the slowest machine.
const LIMIT: Duration = Duration::from_secs(420);
/// The pause between two requests of a stream: usually, and while what it asks for is deployed anew.
const CALM: Duration = Duration::from_millis(250);
const BUSY: Duration = Duration::from_millis(5);
/// How many more right answers show that what has changed stays so.
const ENOUGH: u64 = 20;
/// The agent of the services, and the gateway's.
const ROLES: [&str; 2] = ["micro", "gateway"];

/// One developer's sandbox.
struct Member {
    name: SandboxName,
    branch: String,
    key: SandboxKey,
    /// What each of its services says.
    says: BTreeMap<&'static str, String>,
    /// Every deployment that there was.
    deployments: Vec<Deployment>,
}

impl Member {
    /// The deployment of a repo that came to run last.
    fn running(&self, repo: &str) -> &Deployment {
        let mut of_repo = self.deployments.iter().filter(|deployment| deployment.key.repo.as_str() == repo);
        of_repo.rfind(|deployment| deployment.state == DeploymentState::Running).unwrap()
    }

    fn keep(&mut self, deployments: impl IntoIterator<Item = Deployment>) {
        self.deployments.extend(deployments);
    }
}

/// Everybody.
struct Team {
    playground: Playground,
    api: Api,
    load: Load,
    client: reqwest::Client,
    /// What the stable cluster says.
    stable: BTreeMap<&'static str, String>,
    members: Vec<Member>,
    /// Who has the route of [`SERVICE`] that everybody sees.
    holder: Option<usize>,
}

/// Everybody's stream of requests for a service.
fn everybodys(repo: &str) -> String {
    format!("{repo} without a key")
}

fn by_key(member: &Member, repo: &str) -> String {
    format!("{repo} by the key of {}", member.name)
}

fn by_gateway(member: &Member, repo: &str) -> String {
    format!("{repo} by the gateway of {}", member.name)
}

impl Team {
    /// The shared gateway, and load on it.
    async fn start() -> Self {
        let available = Runner::available().await;
        assert_eq!(available, Runner::Docker, "no Docker engine with the test images; .ci/setup makes both");
        let options = Options {
            per_request: true,
            server_settings: SETTINGS.into(),
            deployer_settings: DRAIN,
            agent_program: Some(PathBuf::from(PROGRAM)),
            ..Options::new(Runner::Docker)
        };
        let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        let api = playground.sign_in().await.unwrap();
        story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
        let load = Load::start(Path::new(PROGRAM)).unwrap();
        let client = load::client().unwrap();
        let (stable, members) = (BTreeMap::new(), Vec::new());
        let mut team = Self { playground, api, load, client, stable, members, holder: None };
        for repo in SERVICES {
            let mut stream = team.stream(everybodys(repo), team.playground.gateway(), repo, None);
            let says = stream.ask(&team.client).await.unwrap();
            stream.right.insert(says.clone());
            stream.pause = CALM / 10;
            team.stable.insert(repo, says);
            team.load.send(stream).await.unwrap();
        }
        team
    }

    fn stream(&self, name: String, gateway: &str, repo: &str, key: Option<&SandboxKey>) -> Stream {
        let (url, key) = (format!("{}/{repo}/", gateway.trim_end_matches('/')), key.map(ToString::to_string));
        Stream { name, url, key, pause: CALM, right: BTreeSet::new() }
    }

    /// The streams of requests that a member's service answers.
    fn streams_of(&self, member: usize, repo: &str) -> Vec<String> {
        let of = &self.members[member];
        let held = (self.holder == Some(member) && repo == SERVICE).then(|| everybodys(repo));
        let names = [by_key(of, repo), by_gateway(of, repo)].into_iter().chain(held);
        names.filter(|name| self.load.streams().any(|stream| stream.name == *name)).collect()
    }

    /// From now on this answer is right too.
    async fn may_say(&mut self, streams: &[String], message: &str) {
        for name in streams {
            self.load.change(name, |stream| stream.right.extend([message.to_owned()])).await.unwrap();
        }
    }

    /// As soon as this is the answer, no other is right.
    async fn says(&mut self, streams: &[String], message: &str) {
        for name in streams {
            let stream = self.load.streams().find(|stream| stream.name == *name).unwrap().clone();
            let ask = async || stream.ask(&self.client).await;
            until(name, ask, |said| said.as_ref().is_ok_and(|said| said == message)).await.unwrap();
            self.load.change(name, |stream| stream.right = [message.to_owned()].into()).await.unwrap();
        }
    }

    async fn pace(&mut self, streams: &[String], pause: Duration) {
        for name in streams {
            self.load.change(name, |stream| stream.pause = pause).await.unwrap();
        }
    }

    /// Waits for more answers, all of them right.
    async fn goes_on(&mut self, streams: &[String]) {
        let before = self.all_is_right().await;
        loop {
            let now = self.all_is_right().await;
            if streams.iter().all(|name| now[name].right >= before[name].right + ENOUGH) {
                return;
            }
            tokio::time::sleep(CALM / 5).await;
        }
    }

    /// No request has failed and none was misrouted so far.
    async fn all_is_right(&mut self) -> Report {
        let report = self.load.report().await.unwrap();
        for (name, count) in &report {
            assert!(count.failed == 0 && count.misrouted == 0, "{name}: {count:#?}");
        }
        report
    }

    /// Lets a member's branch of a service say something new, in the git host only.
    async fn push(&mut self, member: usize, repo: &'static str, version: &str) -> String {
        let branch = &self.members[member].branch;
        let message = format!("{repo} of {branch}, {version}");
        commit_service(self.playground.git(), repo, branch, &message).await.unwrap();
        message
    }

    /// Ten sandboxes with a branch of their own, deployed at once.
    async fn ten_sandboxes(&mut self) {
        let services = SERVICES.map(|repo| json!({ "repo": repo, "branch": "main" }));
        let template = json!({ "name": "both", "services": services, "expires_in": "1h" });
        self.api.post::<_, Value>("/api/templates", &template).await.unwrap();
        for number in 1..=10 {
            let (name, branch) = (format!("team-{number}"), format!("work/{number}"));
            let branches = SERVICES.map(|repo| (repo, branch.as_str()));
            let body = json!({ "name": name, "template": "both", "branches": BTreeMap::from(branches) });
            self.api.post::<_, Value>("/api/sandboxes", &body).await.unwrap();
            let detail: SandboxDetail = self.api.get(&format!("/api/sandboxes/{name}")).await.unwrap();
            let key = detail.routing.request_key.unwrap().key;
            let name = detail.sandbox.name;
            self.members.push(Member { name, branch, key, says: BTreeMap::new(), deployments: Vec::new() });
            for repo in SERVICES {
                let message = self.push(number - 1, repo, "first").await;
                let member = &self.members[number - 1];
                let mut stream = self.stream(by_key(member, repo), self.playground.gateway(), repo, Some(&member.key));
                stream.right = [self.stable[repo].clone(), message.clone()].into();
                self.load.send(stream).await.unwrap();
                self.members[number - 1].says.insert(repo, message);
            }
        }
        let deployed = self.members.iter().map(|member| story::deploy_all(&self.api, member.name.as_str()));
        let deployed = try_join_all(deployed).await.unwrap();
        for (number, deployed) in deployed.into_iter().enumerate() {
            self.members[number].keep(deployed.into_values());
            for repo in SERVICES {
                let says = self.members[number].says[repo].clone();
                assert_eq!(self.directly(number, repo).await, says, "on its own port");
                self.says(&self.streams_of(number, repo), &says).await;
            }
        }
        let ports: BTreeSet<_> = self.members.iter().flat_map(|it| &it.deployments).map(|it| it.host_port).collect();
        assert_eq!(ports.len(), 20, "each has a port of its own");
    }

    /// What a member's service says on its own port.
    async fn directly(&self, member: usize, repo: &str) -> String {
        let url = self.members[member].running(repo).url.clone().unwrap();
        let stream = Stream { url, ..self.stream(String::new(), "", repo, None) };
        stream.ask(&self.client).await.unwrap()
    }

    async fn route(&self, member: usize, body: Value) -> Result<Value, Problem> {
        let path = format!("/api/sandboxes/{}/routes/{SERVICE}", self.members[member].name);
        self.api.attempt(Method::PUT, &path, Some(&body)).await.unwrap()
    }

    /// Two want to be what everybody sees, and one gets it.
    async fn fight(&mut self, first: usize, second: usize) {
        let everybody = [everybodys(SERVICE)];
        let (says, holder) = (self.members[first].says[SERVICE].clone(), self.members[first].name.to_string());
        self.may_say(&everybody, &says).await;
        self.route(first, json!({ "target": "sandbox", "reason": "a demo for sales" })).await.unwrap();
        self.holder = Some(first);
        self.says(&everybody, &says).await;
        let refused = self.route(second, json!({ "target": "sandbox" })).await.unwrap_err();
        assert_eq!((refused.status, refused.code), (409, ErrorCode::RouteClaimed), "{refused:?}");
        assert_eq!(refused.holder.as_deref(), Some(holder.as_str()), "{refused:?}");
        assert!(refused.detail.contains(&holder) && refused.detail.contains("a demo for sales"), "{refused:?}");
        self.goes_on(&everybody).await;
    }

    /// A member brings a branch of the gateway.
    async fn own_gateway(&mut self, member: usize) {
        let name = self.members[member].name.to_string();
        let deployed = story::deploy(&self.api, Some(&name), GATEWAY, FEATURE, &mut Vec::new()).await.unwrap();
        self.members[member].keep([deployed]);
        let detail: SandboxDetail = self.api.get(&format!("/api/sandboxes/{name}")).await.unwrap();
        let url = detail.routing.gateway.unwrap().url.unwrap();
        assert!(!self.playground.gateway().starts_with(&url), "it is another than the shared one");
        let answer = self.client.get(format!("{url}/healthz")).send().await.unwrap();
        assert_eq!(answer.headers()["x-gateway"], format!("{GATEWAY} {FEATURE}"), "its own branch of the gateway");
        for repo in SERVICES {
            let member = &self.members[member];
            let (name, says) = (by_gateway(member, repo), member.says[repo].clone());
            let mut stream = self.stream(name.clone(), &url, repo, None);
            stream.right = [self.stable[repo].clone(), says.clone()].into();
            self.load.send(stream).await.unwrap();
            self.says(&[name], &says).await;
        }
    }

    /// Deploys a member's service anew and goes back to the one before, both under load.
    async fn redeploy_and_roll_back(&mut self, member: usize) {
        let streams = self.streams_of(member, SERVICE);
        let before = self.members[member].says[SERVICE].clone();
        self.pace(&streams, BUSY).await;
        self.goes_on(&streams).await;

        let message = self.push(member, SERVICE, "second").await;
        self.may_say(&streams, &message).await;
        let of = &self.members[member];
        let deployed = story::deploy(&self.api, Some(of.name.as_str()), SERVICE, &of.branch, &mut Vec::new()).await;
        let deployed = deployed.unwrap();
        assert_ne!(deployed.host_port, of.running(SERVICE).host_port, "both serve for a while");
        self.says(&streams, &message).await;
        self.goes_on(&streams).await;

        self.may_say(&streams, &before).await;
        let path = format!("/api/deployments/{}/rollback", deployed.id);
        let begun: Deployment = self.api.post(&path, &json!({})).await.unwrap();
        let back = story::comes_up(&self.api, begun).await.unwrap();
        let build = back.stages.iter().find(|record| record.stage == Stage::Build).unwrap();
        assert_eq!(build.status, StageStatus::Skipped, "nothing is built for it");
        assert_eq!(back.commit, self.members[member].running(SERVICE).commit);
        self.members[member].keep([deployed, back]);
        self.says(&streams, &before).await;
        self.goes_on(&streams).await;
        self.pace(&streams, CALM).await;
    }

    /// Kills agents as soon as one of these members' deployments has come to `stage`. What the crash has interrupted
    /// says so, serves as before, and can be deployed again.
    async fn crash(&mut self, stage: DeploymentState, killed: &[&str], members: &[usize], version: &str) {
        let mut next = BTreeMap::new();
        for member in members {
            for repo in SERVICES {
                let message = self.push(*member, repo, version).await;
                self.may_say(&self.streams_of(*member, repo), &message).await;
                next.insert((*member, repo), message);
            }
        }
        let begun = next.keys().map(async |(member, repo)| {
            let Member { name, branch, .. } = &self.members[*member];
            self.api.deploy(Some(name.as_str()), &story::of_branch(repo, branch)?).await
        });
        let begun = try_join_all(begun).await.unwrap().into_iter();
        let (seen, mut wanted) = tokio::sync::mpsc::unbounded_channel();
        let followers = begun.map(|deployment| {
            let (api, seen) = (self.api.clone(), seen.clone());
            tokio::spawn(async move {
                let tell = |event: &EventKind| {
                    if matches!(event, EventKind::State { state, .. } if *state == stage) {
                        seen.send(()).ok();
                    }
                };
                api.follow(deployment.id, tell).await.map(|ended| (deployment.key.repo, ended))
            })
        });
        let followers: Vec<_> = followers.collect();
        wanted.recv().await.unwrap();
        for role in killed {
            self.playground.stop_agent(role).await.unwrap();
        }
        for role in killed {
            self.playground.start_agent(role).await.unwrap();
        }
        let mut interrupted = Vec::new();
        for ended in join_all(followers).await {
            let (repo, ended) = ended.unwrap().unwrap();
            let at = |member: &&usize| ended.key.sandbox.as_ref() == Some(&self.members[**member].name);
            let member = *members.iter().find(at).unwrap();
            let repo = SERVICES.into_iter().find(|service| *service == repo.as_str()).unwrap();
            let streams = self.streams_of(member, repo);
            if ended.state == DeploymentState::Running {
                let message = &next[&(member, repo)];
                self.says(&streams, message).await;
                self.members[member].says.insert(repo, message.clone());
                self.members[member].keep([ended]);
                continue;
            }
            let failure = ended.failure.as_ref().unwrap();
            assert_eq!((ended.state, failure.code), (DeploymentState::Failed, ErrorCode::AgentAway), "{failure:?}");
            assert!(failure.reason.contains("the agent was restarted"), "{failure:?}");
            let says = self.members[member].says[repo].clone();
            assert_eq!(self.directly(member, repo).await, says, "what served before serves on");
            self.says(&streams, &says).await;
            self.may_say(&streams, &next[&(member, repo)]).await;
            interrupted.push((member, repo, ended));
        }
        // As many as there are may have come to run by then.
        let in_time = stage == DeploymentState::Running || !interrupted.is_empty();
        assert!(in_time, "the crash came too late to interrupt anything");
        let again = interrupted.iter().map(async |(_, _, deployment)| {
            let begun = self.api.post(&format!("/api/deployments/{}/retry", deployment.id), &json!({})).await?;
            story::comes_up(&self.api, begun).await
        });
        let again = try_join_all(again).await.unwrap();
        for ((member, repo, _), ended) in interrupted.into_iter().zip(again) {
            let message = &next[&(member, repo)];
            self.members[member].keep([ended]);
            assert_eq!(self.directly(member, repo).await, *message);
            self.says(&self.streams_of(member, repo), message).await;
            self.members[member].says.insert(repo, message.clone());
        }
        self.nothing_is_orphaned().await;
    }

    /// What runs is exactly what the database says, and nothing is built any more.
    async fn nothing_is_orphaned(&self) {
        let look = async || {
            let page: Page<Deployment> = self.api.get("/api/deployments?state=running&limit=500").await?;
            let running: BTreeSet<_> = page.items.iter().map(|deployment| deployment.id).collect();
            let mut found = Vec::new();
            for role in ROLES {
                found.extend(self.playground.deployer(role).await?.list().await?);
            }
            let (count, odd): (_, Vec<_>) = (
                found.len(),
                found
                    .into_iter()
                    .filter(|it| it.parked || it.state != InstanceState::Running || !running.contains(&it.deployment))
                    .map(|it| (it.name, it.state))
                    .collect(),
            );
            let builds = traces::processes_in(&self.playground.dir().join("micro"));
            Ok::<_, Failed>((running.len(), count, odd, builds))
        };
        let in_order = |found: &Result<(usize, usize, Vec<_>, usize), Failed>| {
            found.as_ref().is_ok_and(|(running, count, odd, builds)| running == count && odd.is_empty() && *builds == 0)
        };
        until("what runs to be what should", look, in_order).await.unwrap();
    }

    /// Some members' time is over.
    async fn expire(&mut self, members: std::ops::Range<usize>) {
        for member in members.clone() {
            for repo in SERVICES {
                self.load.stop(&by_gateway(&self.members[member], repo)).await.unwrap();
                let stable = self.stable[repo].clone();
                self.may_say(&self.streams_of(member, repo), &stable).await;
                // A key that nobody has any more gets what everybody gets, which is the holder's to its own end.
                if let Some(holder) = self.holder.filter(|_| repo == SERVICE) {
                    let held = self.members[holder].says[repo].clone();
                    self.may_say(&self.streams_of(member, repo), &held).await;
                }
            }
        }
        let soon = json!({ "expires_in": "1ms" });
        let gone = members.clone().map(async |member| {
            let path = format!("/api/sandboxes/{}", self.members[member].name);
            self.api.send::<_, Value>(Method::PATCH, &path, Some(&soon)).await?;
            let look = async || match self.api.attempt::<(), Value>(Method::GET, &path, None).await {
                Ok(Err(problem)) if problem.code == ErrorCode::NotFound => Some(()),
                _ => None,
            };
            eventually(&format!("the end of {path}"), look).await
        });
        try_join_all(gone).await.unwrap();
        for member in members.clone() {
            for repo in SERVICES {
                let stable = self.stable[repo].clone();
                self.says(&self.streams_of(member, repo), &stable).await;
            }
            let Member { name, key, deployments, .. } = &self.members[member];
            let left = traces::of_sandbox(&self.playground, name, Some(key), deployments).await.unwrap();
            assert!(left.is_empty(), "{name}: {left:#?}");
        }
        if self.holder.is_some_and(|holder| members.contains(&holder)) {
            self.holder = None;
        }
        for member in members.end..self.members.len() {
            for repo in SERVICES {
                assert_eq!(self.directly(member, repo).await, self.members[member].says[repo], "the others live on");
            }
        }
        self.nothing_is_orphaned().await;
        let streams: Vec<_> = self.load.streams().map(|stream| stream.name.clone()).collect();
        self.goes_on(&streams).await;
    }

    async fn story(&mut self) {
        self.ten_sandboxes().await;
        tell("ten sandboxes run");
        self.fight(0, 1).await;
        self.own_gateway(2).await;
        self.own_gateway(7).await;
        tell("two have gateways of their own");
        self.redeploy_and_roll_back(7).await;
        self.redeploy_and_roll_back(0).await;
        tell("two were deployed anew and rolled back");
        self.crash(DeploymentState::Build, &["micro"], &[1, 8], "third").await;
        tell("an agent crashed in builds");
        self.crash(DeploymentState::Start, &["micro", "gateway"], &[0, 7], "fourth").await;
        tell("both agents crashed in a start");
        self.crash(DeploymentState::Running, &["micro"], &[3, 7], "fifth").await;
        tell("an agent crashed as soon as something had come to run");
        self.expire(0..5).await;
        tell("half have expired");
    }
}

fn tell(what: &str) {
    println!("{} {what}", jiff::Timestamp::now());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_sandboxes_live_side_by_side_under_load_and_no_request_fails_or_is_misrouted() {
    let mut team = Team::start().await;
    let told = AssertUnwindSafe(tokio::time::timeout(LIMIT, team.story())).catch_unwind().await;
    if !matches!(told, Ok(Ok(()))) {
        for role in ROLES {
            println!("{role}:\n{}", team.playground.agent_log(role).unwrap_or_else(|error| error.to_string()));
        }
        println!("{:#?}", team.load.report().await);
    }
    told.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).unwrap();

    let report = team.load.end().await.unwrap();
    for (name, count) in &report {
        println!(
            "{name}: {} right, {} failed, {} misrouted, the slowest {:?}",
            count.right, count.failed, count.misrouted, count.slowest
        );
        assert!(count.right >= ENOUGH && count.failed == 0 && count.misrouted == 0, "{name}: {count:#?}");
    }
    println!("{} requests, all answered rightly", report.values().map(|count| count.right).sum::<u64>());
    team.playground.shutdown().await.unwrap();
}
