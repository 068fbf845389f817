//! What a team does with the platform in its first days, over HTTP alone, with the daemons as processes: from the first
//! sign-in to a machine that is lost and comes back from its backup. On the way no secret gets to where it does not
//! belong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use reqwest::Method;
use sdp_core::{
    Deployment, DeploymentState, ErrorCode, RouteTable, RouteTarget, Sandbox,
    api::{
        Page, SandboxDetail,
        audit::{AuditAction, AuditEntry},
    },
};
use sdp_examples::{
    api::Api,
    canaries::{Canaries, ProcessWatch},
    content::{FEATURE, GATEWAY, SERVICE, SERVICES, USER, commit_service},
    playground::{Options, Playground, Runner},
    pull_requests::{self, Bitbucket, Turn, ask, tip},
    story,
    wait::eventually,
};
use sdp_git::testing::GitHost;
use sdp_server::backup;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_torture");

/// A secret as long as the tokens that people make.
fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A repo whose build tells whatever is in the file that its name is of.
fn talkative(folder: &Path, git: &GitHost) -> String {
    let path = folder.parent().unwrap().join("repos/talkative");
    format!(
        "\n[[repo]]\nname = \"talkative\"\npath = {path:?}\nremote = \"{}\"\nrecipe = \"command\"\n\
         build = [\"sh\", \"build.sh\"]\nrun = [\"sleep\", \"600\"]\nhealth = {{ command = [\"true\"] }}\n",
        git.url("talkative"),
    )
}

/// Everything that a person can read of what there is, by where it is read.
async fn answers(api: &Api) -> BTreeMap<String, Value> {
    let mut answers = BTreeMap::new();
    let paths = ["sandboxes", "deployments?limit=500", "templates", "environments", "users", "tokens", "repos"];
    for path in paths.map(|path| format!("/api/{path}")) {
        let answer: Value = api.get(&path).await.unwrap();
        answers.insert(path, answer);
    }
    let sandboxes: Page<Sandbox> = serde_json::from_value(answers["/api/sandboxes"].clone()).unwrap();
    let deployments: Page<Deployment> = serde_json::from_value(answers["/api/deployments?limit=500"].clone()).unwrap();
    for sandbox in sandboxes.items {
        let path = format!("/api/sandboxes/{}", sandbox.name);
        for path in [path.clone(), format!("{path}/routes")] {
            let answer = api.get(&path).await.unwrap();
            answers.insert(path, answer);
        }
        let path = format!("{path}/export");
        answers.insert(path.clone(), api.text(&path).await.unwrap().into());
    }
    for deployment in deployments.items {
        let path = format!("/api/deployments/{}/log", deployment.id);
        let log = api.text(&path).await.unwrap();
        assert!(!log.is_empty());
        answers.insert(path, log.into());
    }
    // Who looks is seen.
    for (path, field) in [("/api/users", "last_seen"), ("/api/tokens", "last_used")] {
        for item in answers.get_mut(path).unwrap().as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove(field);
        }
    }
    answers
}

async fn audit(api: &Api, filter: &str) -> Vec<AuditEntry> {
    api.get::<Page<AuditEntry>>(&format!("/api/audit?limit=500&{filter}")).await.unwrap().items
}

async fn history(api: &Api, filter: &str) -> Page<Deployment> {
    api.get(&format!("/api/deployments?{filter}")).await.unwrap()
}

/// Waits until the gateway's answer for the story's service has this in it.
async fn routed_to(playground: &Playground, word: &str) {
    let asked = async || playground.ask_gateway(SERVICE).await.ok().filter(|answer| answer.contains(word));
    eventually(&format!("{word} behind the gateway"), asked).await.unwrap();
}

/// Requests that are refused, with a secret where none belongs: no refusal repeats it, but to who sent it as a name.
async fn refusals(playground: &Playground, api: &Api, password: &str, token: &str) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut bodies = Vec::new();
    let login = [
        json!({ "username": USER, "password": format!("{password}x") }),
        json!({ "username": { "password": password } }),
        json!({ "username": USER, "password": { "is": password } }),
        json!({ "username": USER, "password": [password] }),
        json!({ "username": USER, "password": password, "remember": password }),
        json!({ "username": format!("{USER}\n{password}"), "password": password }),
        json!(password),
        json!([USER, password]),
    ];
    for body in login.iter().map(Value::to_string).chain([format!("{{\"password\":\"{password}\","), password.into()]) {
        let request =
            client.post(format!("{}/api/login", playground.base())).header("content-type", "application/json");
        let answer = request.body(body).send().await.unwrap();
        assert!(answer.status().is_client_error());
        bodies.push(answer.text().await.unwrap());
    }
    let deploy = |credentials: Value| json!({ "repo": SERVICE, "branch": "main", "credentials": credentials });
    for credentials in [
        json!({ "username": USER, "password": format!("{password}x") }),
        json!({ "username": USER, "password": { "is": password } }),
        json!({ "username": [password], "password": password }),
        json!(password),
        json!([password]),
    ] {
        let refused = api.attempt::<_, Value>(Method::POST, "/api/deployments", Some(&deploy(credentials))).await;
        match refused.unwrap() {
            Err(problem) => bodies.push(serde_json::to_string(&problem).unwrap()),
            // It fails when it is fetched, and says so in its log.
            Ok(begun) => {
                let id = serde_json::from_value::<Deployment>(begun).unwrap().id;
                let ended = api.follow(id, |_| ()).await.unwrap();
                assert_eq!(ended.state, DeploymentState::Failed);
                bodies.push(serde_json::to_string(&ended).unwrap());
            }
        }
    }
    for header in [format!("Bearer {token}x"), format!("Basic {token}"), token.to_owned()] {
        let request = client.get(format!("{}/api/me", playground.base())).header("authorization", header);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        bodies.push(answer.text().await.unwrap());
    }
    let answer = client.get(format!("{}/api/me?token={token}", playground.base())).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    bodies.push(answer.text().await.unwrap());
    bodies
}

fn nothing_leaked(canaries: &Canaries, folders: &[&Path]) {
    for folder in folders {
        let (found, files) = canaries.found_below(folder, &["agent.token", "git.password"]).unwrap();
        assert!(files > 5, "there was something to search in {}: {files} files", folder.display());
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_first_days_end_with_a_machine_that_comes_back_from_its_backup() {
    let (webhook_secret, bitbucket_token) = (secret(), secret());
    let bitbucket = Bitbucket::start(&webhook_secret, &bitbucket_token).await.unwrap();
    let options = Options {
        server_settings: format!("[auth]\nadmins = [\"{USER}\"]\n{}", bitbucket.settings("review")),
        more_repos: talkative,
        agents_sign_in: true,
        agent_program: Some(PROGRAM.into()),
        server_program: Some(PROGRAM.into()),
        ..Options::new(Runner::Process)
    };
    let mut playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let password = playground.password().to_owned();
    let mut canaries = Canaries::default()
        .with("the password", &password)
        .with("the secret of webhooks", &webhook_secret)
        .with("the token of Bitbucket", &bitbucket_token);
    for role in ["gateway", "micro"] {
        let token = fs::read_to_string(playground.dir().join(role).join("agent.token")).unwrap();
        canaries = canaries.with("the token of an agent", &token);
    }
    let watch = ProcessWatch::start(canaries.clone());

    // Somebody signs in who may do everything, and shapes what others use.
    let api = playground.sign_in().await.unwrap();
    assert_eq!(api.get::<Value>("/api/me").await.unwrap()["role"], "admin");
    let environment = json!({ "name": "qa", "env": { "LOG_LEVEL": "debug" }, "sandbox_lifetime": "3d" });
    api.post::<_, Value>("/api/environments", &environment).await.unwrap();
    let shape = json!({
        "name": "checkout", "routes": { SERVICE: "sandbox" },
        "services": [{ "repo": SERVICE, "branch": FEATURE }, { "repo": SERVICES[1], "branch": "main" }],
    });
    api.post::<_, Value>("/api/templates", &shape).await.unwrap();
    let shape = json!({ "name": "review", "services": [{ "repo": SERVICE, "branch": "main" }] });
    api.post::<_, Value>("/api/templates", &shape).await.unwrap();

    // A sandbox from a template: everything in it is deployed, and what it wants is routed to it.
    story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
    let stable = playground.ask_gateway(SERVICE).await.unwrap();
    let wish = json!({ "name": "pay", "template": "checkout", "environment": "qa" });
    let made: Sandbox = api.post("/api/sandboxes", &wish).await.unwrap();
    assert_eq!(made.environment.as_str(), "qa");
    let running = story::deploy_all(&api, "pay").await.unwrap();
    assert_eq!(running.keys().map(|repo| repo.as_str()).collect::<Vec<_>>(), SERVICES);
    routed_to(&playground, FEATURE).await;
    let table = api.route("pay", SERVICE, RouteTarget::Ocp).await.unwrap();
    assert!(table.get(&SERVICE.parse().unwrap()).is_some());
    assert_eq!(playground.ask_gateway(SERVICE).await.unwrap(), stable);
    api.route("pay", SERVICE, RouteTarget::Sandbox).await.unwrap();
    routed_to(&playground, FEATURE).await;

    // A script gets a token, which does what it is for and no more.
    let token = async |scope: &str| {
        let made: Value = api.post("/api/tokens", &json!({ "name": scope, "scopes": [scope] })).await.unwrap();
        made["secret"].as_str().unwrap().to_owned()
    };
    let (read, deploy) = (token("read").await, token("deploy").await);
    let (reader, deployer) = (api.with_token(read.as_str()), api.with_token(deploy.as_str()));
    reader.get::<Page<Sandbox>>("/api/sandboxes").await.unwrap();
    let wish = json!({ "name": "script" });
    let refused = reader.attempt::<_, Value>(Method::POST, "/api/sandboxes", Some(&wish)).await.unwrap();
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotAllowed);
    deployer.post::<_, Value>("/api/sandboxes", &wish).await.unwrap();
    story::deploy(&deployer, Some("script"), SERVICES[1], "main", &mut Vec::new()).await.unwrap();
    let refused = deployer.attempt::<_, Value>(Method::POST, "/api/environments", Some(&environment)).await.unwrap();
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotAllowed);
    canaries = canaries.with("a session's token", api.token()).with("a token", &read).with("a token", &deploy);
    let (found, _) = watch.stop().unwrap();
    assert!(found.is_empty(), "{found:#?}");
    let watch = ProcessWatch::start(canaries.clone());

    // A pull request is opened, pushed to and merged.
    let first = tip(&api).await.unwrap();
    bitbucket.tell(playground.base(), Turn::Opened, &first).await.unwrap();
    assert!(ask(&bitbucket.good(&first).await.unwrap()).await.unwrap().contains(FEATURE));
    let second = commit_service(playground.git(), SERVICE, FEATURE, "Reviewed").await.unwrap();
    bitbucket.tell(playground.base(), Turn::Updated, &second).await.unwrap();
    assert!(ask(&bitbucket.good(&second).await.unwrap()).await.unwrap().contains("Reviewed"));
    let review = format!("/api/sandboxes/{}", pull_requests::SANDBOX);
    assert!(api.get::<SandboxDetail>(&review).await.is_ok());
    bitbucket.tell(playground.base(), Turn::Merged, &second).await.unwrap();
    bitbucket.comment("was removed: the pull request is merged").await.unwrap();
    assert!(api.get::<SandboxDetail>(&review).await.is_err());

    // A build tells what it should not, in every way, and fails.
    tell_secrets(&playground, &api, &password).await;
    let bodies = refusals(&playground, &api, &password, &read).await;
    for body in &bodies {
        assert!(canaries.found_in(body.as_bytes()).is_empty(), "{body}");
    }

    history_can_be_searched(&api).await;

    // The backup is made while everything runs. Then the machine is lost.
    let elsewhere = tempfile::tempdir().unwrap();
    let (data, copy) = (playground.server_data().to_owned(), elsewhere.path().join("backup"));
    let before = answers(&api).await;
    let audited = audit(&api, "").await;
    in_background(&data, &copy, backup::create).await;
    nothing_leaked(&canaries, &[playground.dir(), elsewhere.path()]);
    playground.stop_server().await;
    fs::remove_dir_all(&data).unwrap();
    in_background(&copy, &data, backup::restore).await;
    playground.start_server().await.unwrap();

    // What there was is there again; who was signed in is not, and the tokens are good.
    assert!(api.get::<Value>("/api/me").await.is_err(), "sessions are in memory alone");
    assert_eq!(reader.get::<Value>("/api/me").await.unwrap()["user"], USER);
    let api = playground.sign_in().await.unwrap();
    canaries = canaries.with("another session's token", api.token());
    let after = answers(&api).await;
    for (path, answer) in &before {
        assert_eq!(Some(answer), after.get(path), "{path}");
    }
    assert_eq!(before.len(), after.len());
    let last = audited[0].id;
    let still: Vec<_> = audit(&api, "").await.into_iter().filter(|entry| entry.id <= last).collect();
    assert_eq!(still, audited);
    // And it goes on.
    routed_to(&playground, FEATURE).await;
    story::deploy(&api, Some("pay"), SERVICE, "main", &mut Vec::new()).await.unwrap();
    routed_to(&playground, "main").await;
    api.send::<(), Value>(Method::DELETE, "/api/sandboxes/pay", None).await.unwrap();
    eventually("the stable cluster behind the gateway", async || {
        playground.ask_gateway(SERVICE).await.ok().filter(|answer| *answer == stable)
    })
    .await
    .unwrap();

    let (found, looks) = watch.stop().unwrap();
    assert!(looks > 20, "{looks} processes");
    assert!(found.is_empty(), "{found:#?}");
    nothing_leaked(&canaries, &[playground.dir(), elsewhere.path()]);
    for log in [playground.server_log(), playground.agent_log("micro"), playground.agent_log("gateway")] {
        assert!(!log.as_ref().unwrap().contains("panicked"), "{}", log.unwrap());
    }
    playground.shutdown().await.unwrap();
}

/// Backups block.
async fn in_background(
    from: &Path,
    to: &Path,
    work: fn(&Path, &Path) -> Result<backup::Manifest, backup::BackupError>,
) {
    let (from, to): (PathBuf, PathBuf) = (from.into(), to.into());
    let manifest = tokio::task::spawn_blocking(move || work(&from, &to)).await.unwrap().unwrap();
    assert!(manifest.files.len() > 5, "{manifest:?}");
}

/// Builds a repo whose build has come by the password, and says it whole, in parts, encoded, and as the reason of its
/// end.
async fn tell_secrets(playground: &Playground, api: &Api, password: &str) {
    let stolen = tempfile::NamedTempFile::new().unwrap();
    fs::write(stolen.path(), password).unwrap();
    let script = format!(
        "s={:?}\n\
         echo \"whole: $(cat $s)\"\n\
         printf 'in two: '; head -c 11 $s; sleep 0.3; tail -c +12 $s; echo\n\
         printf 'byte by byte: '; for i in $(seq 32); do head -c $i $s | tail -c 1; sleep 0.01; done; echo\n\
         for n in 16370 20460 32750; do head -c $n /dev/zero | tr '\\0' x; cat $s; head -c 9000 /dev/zero | tr '\\0' x; echo; done\n\
         echo \"base64: $(base64 -w0 $s)\"\n\
         for p in a ab abc {USER}:; do (printf \"$p\"; cat $s; echo '!') | base64 -w0; echo; done\n\
         head -c 480 /dev/zero | tr '\\0' x >&2; cat $s >&2; echo >&2\n\
         echo \"it is $(cat $s)\" >&2\nexit 3\n",
        stolen.path()
    );
    let git = playground.git();
    git.create_repo("talkative").await.unwrap();
    git.commit("talkative", "main", None, &[("build.sh", script.as_bytes())], "talk").await.unwrap();
    let deployment = api.deploy(None, &story::of_branch("talkative", "main").unwrap()).await.unwrap();
    let mut told = Vec::new();
    let ended = api.follow(deployment.id, |event| told.push(event.to_string())).await.unwrap();
    assert_eq!(ended.state, DeploymentState::Failed);
    let log = api.text(&format!("/api/deployments/{}/log", ended.id)).await.unwrap();
    for text in [told.join("\n"), log, ended.failure.unwrap().reason] {
        assert!(text.contains("it is •••"), "{text}");
        assert!(Canaries::default().with("it", password).found_in(text.as_bytes()).is_empty(), "{text}");
    }
}

async fn history_can_be_searched(api: &Api) {
    let all = history(api, "limit=500").await.items;
    let of = |deployments: &[Deployment], wanted: &dyn Fn(&Deployment) -> bool| -> Vec<Deployment> {
        deployments.iter().filter(|it| wanted(it)).cloned().collect()
    };
    let in_pay = of(&all, &|it| it.key.sandbox.as_ref().is_some_and(|name| name.as_str() == "pay"));
    assert_eq!((in_pay.len(), history(api, "sandbox=pay").await.items), (2, in_pay));
    let followed = of(&all, &|it| it.user.as_str() == "bitbucket");
    assert_eq!((followed.len(), history(api, "user=bitbucket").await.items), (2, followed));
    let failed = of(&all, &|it| it.state == DeploymentState::Failed);
    assert!(!failed.is_empty());
    assert_eq!(history(api, "state=failed").await.items, failed);
    let both = of(&all, &|it| it.key.repo.as_str() == SERVICE && it.state == DeploymentState::Running);
    assert_eq!(history(api, &format!("repo={SERVICE}&state=running")).await.items, both);
    let (mut paged, mut before) = (Vec::new(), String::new());
    loop {
        let page = history(api, &format!("limit=2{before}")).await;
        assert!(page.items.len() <= 2);
        paged.extend(page.items);
        let Some(next) = page.next else { break };
        before = format!("&before={next}");
    }
    assert_eq!(paged, all);

    let routes = audit(api, &format!("action=route-set&subject=sandboxes/pay/routes/{SERVICE}")).await;
    assert!(routes.len() >= 2 && routes.iter().all(|it| it.action == AuditAction::RouteSet), "{routes:?}");
    let signed = audit(api, &format!("user={USER}&action=sign-in")).await;
    assert!(!signed.is_empty() && signed.iter().all(|it| it.address.is_some_and(|it| it.is_loopback())), "{signed:?}");
    let actions: Vec<_> = audit(api, "").await.into_iter().map(|it| it.action).collect();
    for action in [
        AuditAction::EnvironmentCreate,
        AuditAction::TemplateCreate,
        AuditAction::SandboxCreate,
        AuditAction::SandboxDelete,
        AuditAction::Deploy,
        AuditAction::TokenCreate,
        AuditAction::SignInFailed,
    ] {
        assert!(actions.contains(&action), "{action} is not in the audit");
    }
    let table: RouteTable = api.get("/api/sandboxes/pay/routes").await.unwrap();
    assert!(table.warnings.is_empty(), "{:?}", table.warnings);
}
