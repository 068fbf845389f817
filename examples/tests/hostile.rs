//! Hostile names through every field of the API, and hostile repos through every deployment, on a real server, real
//! agents and real git: nothing is executed, nothing outside is touched, and nobody falls over.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{path::Path, sync::Arc};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use sdp_core::{BranchName, Deployment, DeploymentState, RouteTarget, api::Page};
use sdp_examples::{
    api::Api,
    content::{FEATURE, GATEWAY, SERVICE, USER},
    hostile::{Entry, FILE, LINK, PROGRAM, SUBMODULE, Trap, commit, names},
    playground::{Options, Playground, Runner},
    pull_requests::Bitbucket,
    story,
    wait::until,
};
use sdp_git::testing::GitHost;
use sdp_server::{bitbucket::BitbucketKind, testing::pull_request};
use serde_json::{Value, json};

const DAEMON: &str = env!("CARGO_BIN_EXE_torture");

/// A repo that is quick to deploy.
const PLAIN: &str = "plain";

fn plain(folder: &Path, git: &GitHost) -> String {
    let path = folder.parent().unwrap().join("repos").join(PLAIN);
    format!(
        "\n[[repo]]\nname = \"{PLAIN}\"\npath = {path:?}\nremote = \"{}\"\nrecipe = \"command\"\nbuild = [\"true\"]\n\
         run = [\"sleep\", \"600\"]\nhealth = {{ command = [\"true\"] }}\n",
        git.url(PLAIN),
    )
}

async fn playground(settings: String) -> (Playground, Api) {
    let options = Options {
        server_settings: format!("[auth]\nadmins = [\"{USER}\"]\n{settings}"),
        more_repos: plain,
        agents_sign_in: true,
        agent_program: Some(DAEMON.into()),
        server_program: Some(DAEMON.into()),
        ..Options::new(Runner::Process)
    };
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    playground.git().create_repo(PLAIN).await.unwrap();
    let files: [(&str, &[u8]); 1] = [("file", b"plain")];
    playground.git().commit(PLAIN, "main", None, &files, "plain").await.unwrap();
    let api = playground.sign_in().await.unwrap();
    (playground, api)
}

/// One place of the API that takes a text.
#[derive(Debug, Clone)]
struct Field {
    method: Method,
    /// With its parameters in braces.
    path: String,
    place: Place,
    example: Option<Value>,
}

#[derive(Debug, Clone)]
enum Place {
    Path(String),
    Query(String),
    /// Where in the body, as a JSON pointer.
    Body(String),
    /// A name in a map of the body.
    Key(String),
}

/// Every place that takes a text, from the API's own description.
fn fields(document: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        // What agents speak is tried by `make torture`, and signing in is limited.
        if path.starts_with("/ws/agent") || path == "/api/login" || path == "/api/logout" {
            continue;
        }
        for (method, operation) in operations.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let body = &operation["requestBody"]["content"]["application/json"];
            let example = body.get("example").cloned().or_else(|| body.is_object().then(|| json!({})));
            let mut add = |place| {
                fields.push(Field { method: method.clone(), path: path.clone(), place, example: example.clone() });
            };
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap().to_owned();
                match parameter["in"].as_str().unwrap() {
                    "path" => add(Place::Path(name)),
                    "query" => add(Place::Query(name)),
                    _ => {}
                }
            }
            let mut places = Vec::new();
            leaves("", example.as_ref().unwrap_or(&Value::Null), &mut places);
            for name in properties(document, &body["schema"]) {
                let pointer = format!("/{name}");
                if !places
                    .iter()
                    .any(|place| matches!(place, Place::Body(it) | Place::Key(it) if it.starts_with(&pointer)))
                {
                    places.extend([Place::Body(pointer.clone()), Place::Key(pointer)]);
                }
            }
            places.into_iter().for_each(add);
        }
    }
    fields
}

/// The texts of an example, and its maps.
fn leaves(pointer: &str, value: &Value, places: &mut Vec<Place>) {
    match value {
        Value::String(_) => places.push(Place::Body(pointer.into())),
        Value::Object(fields) => {
            places.push(Place::Key(pointer.into()));
            fields.iter().for_each(|(name, value)| leaves(&format!("{pointer}/{name}"), value, places));
        }
        Value::Array(items) => {
            places.push(Place::Body(format!("{pointer}/0")));
            items.iter().enumerate().for_each(|(at, value)| leaves(&format!("{pointer}/{at}"), value, places));
        }
        _ => {}
    }
}

/// The fields of a schema by name.
fn properties(document: &Value, schema: &Value) -> Vec<String> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

impl Field {
    /// The request with a name in this place, and what is there elsewhere.
    fn request(&self, name: &str) -> (String, Option<Value>) {
        let mut path = self.path.clone();
        if let Place::Path(parameter) = &self.place {
            path = path.replace(&format!("{{{parameter}}}"), &percent(name));
        }
        for (parameter, usual) in
            [("name", "target"), ("repo", PLAIN), ("service", SERVICE), ("id", "0197f2c4-5b1e-7c3a-9d60-2f8a4c1b7e55")]
        {
            path = path.replace(&format!("{{{parameter}}}"), usual);
        }
        if let Place::Query(parameter) = &self.place {
            path = format!("{path}?{parameter}={}", percent(name));
        }
        let mut body = self.example.clone();
        match (&self.place, &mut body) {
            (Place::Body(pointer), Some(body)) => set(body, pointer, name.into()),
            (Place::Key(pointer), Some(body)) => match body.pointer_mut(pointer) {
                Some(Value::Object(fields)) => drop(fields.insert(name.into(), "main".into())),
                _ => set(body, pointer, json!({ name: "main" })),
            },
            _ => {}
        }
        (path, body)
    }
}

fn set(body: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = body.pointer_mut(pointer) {
        *place = value;
    } else if let (Some(fields), Some(name)) = (body.as_object_mut(), pointer.strip_prefix('/')) {
        fields.insert(name.into(), value);
    }
}

async fn all_have_ended(api: &Api) {
    let active = async || {
        let page: Page<Deployment> = api.get("/api/deployments?limit=500").await.unwrap();
        page.items.into_iter().filter(|deployment| deployment.state.is_active()).count()
    };
    until("the end of every deployment", active, |active| *active == 0).await.unwrap();
}

fn nobody_fell_over(playground: &Playground) {
    for log in [playground.server_log(), playground.agent_log("micro"), playground.agent_log("gateway")] {
        let log = log.unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_in_every_field_run_nothing_and_reach_nowhere() {
    let trap = Trap::new().unwrap();
    let names = Arc::new(names(&trap));
    assert!(names.len() >= 200, "{}", names.len());
    let bitbucket = Bitbucket::start("what webhooks are signed with", "what Bitbucket is asked with").await.unwrap();
    let (playground, api) = playground(bitbucket.settings("target")).await;
    let shape = json!({ "name": "target", "services": [{ "repo": PLAIN, "branch": "main" }] });
    api.post::<_, Value>("/api/templates", &shape).await.unwrap();
    api.post::<_, Value>("/api/sandboxes", &json!({ "name": "target", "template": "target" })).await.unwrap();
    let document: Value = api.get("/api/openapi.json").await.unwrap();
    let fields = fields(&document);
    assert!(fields.len() > 100, "{}", fields.len());

    let wrong = stream::iter(&fields)
        .flat_map(|field| stream::iter(names.iter().map(move |name| (field, name))))
        .map(async |(field, name)| {
            let (path, body) = field.request(name);
            match api.attempt::<_, Value>(field.method.clone(), &path, body.as_ref()).await {
                Ok(Err(problem)) if problem.status >= 500 => Some(format!("{field:?} {name:?}: {problem:?}")),
                _ => None,
            }
        })
        .buffer_unordered(16)
        .filter_map(async |wrong| wrong)
        .collect::<Vec<_>>()
        .await;
    assert!(wrong.is_empty(), "{} of {} fields: {:#?}", wrong.len(), fields.len(), &wrong[..wrong.len().min(5)]);

    // The same in what Bitbucket tells.
    for (at, name) in names.iter().enumerate() {
        let commit = "178864a7d521b6f5e720b386b2c2b0ef8563e0dc";
        for (slug, branch, commit) in
            [("SHOP/eredar", name.as_str(), commit), (name, FEATURE, commit), ("SHOP/eredar", FEATURE, name)]
        {
            let event = pull_request(BitbucketKind::DataCenter, slug, 7, "OPEN", branch, commit, 100);
            let (status, answer) =
                bitbucket.deliver(playground.base(), "pr:opened", &at.to_string(), &event).await.unwrap();
            assert!(status < 500, "{slug:?} {branch:?} {commit:?}: {status} {answer}");
        }
    }
    all_have_ended(&api).await;
    assert_eq!(trap.sprung().unwrap(), [""; 0]);

    // What git takes for a branch is one, and is deployed as one.
    let branches: Vec<_> = names.iter().filter(|name| BranchName::new(name.as_str()).is_ok()).collect();
    let mut deployed = 0;
    for name in branches {
        let files: [(&str, &[u8]); 1] = [("file", name.as_bytes())];
        // Names in each other's way, and those too long for a file.
        if playground.git().commit(PLAIN, name, Some("main"), &files, "hostile").await.is_err() {
            continue;
        }
        let wish = json!({ "repo": PLAIN, "branch": name });
        let begun: Deployment = api.post("/api/deployments", &wish).await.unwrap();
        story::comes_up(&api, begun).await.unwrap_or_else(|failed| panic!("{name:?}: {failed}"));
        deployed += 1;
    }
    assert!(deployed > 20, "{deployed} branches");
    assert_eq!(trap.sprung().unwrap(), [""; 0]);
    nobody_fell_over(&playground);
    playground.shutdown().await.unwrap();
}

/// Commits that bring what no checkout should, by what they are.
fn commits(trap: &Trap) -> Vec<(&'static str, Vec<Entry>)> {
    let (outside, marker) = (trap.outside().display().to_string(), trap.marker().display().to_string());
    let entry = |mode, path: &str, content: &str| {
        let filled = |text: &str| text.replace("@O", &outside).replace("@M", &marker);
        Entry(mode, filled(path), filled(content))
    };
    let hook = "#!/bin/sh\ntouch @M\n";
    let config = "[core]\n\tfsmonitor = touch @M\n\tsshCommand = touch @M\n\thooksPath = hooks\n\
                  [filter \"evil\"]\n\tsmudge = touch @M\n\tclean = touch @M\n";
    let modules =
        |url: &str, path: &str| format!("[submodule \"sub\"]\n\tpath = {path}\n\turl = {url}\n\tupdate = !touch @M\n");
    let of = "178864a7d521b6f5e720b386b2c2b0ef8563e0dc";
    let mut commits = vec![
        ("a link to a file", vec![entry(LINK, "file", "@O/secret")]),
        ("a file where the link was", vec![entry(FILE, "file", "planted")]),
        ("a link to a folder", vec![entry(LINK, "folder", "@O")]),
        ("a file where the folder was", vec![entry(FILE, "folder/planted", "planted")]),
        ("a link and a folder of one name", vec![entry(LINK, "both", "@O"), entry(FILE, "both/planted", "planted")]),
        ("a link upwards", vec![entry(LINK, "up", "../../../../.."), entry(LINK, "self", "self")]),
        ("a link to the git directory", vec![entry(LINK, "git", ".git"), entry(PROGRAM, "git2", hook)]),
        ("files behind that link", vec![entry(PROGRAM, "git/hooks/post-checkout", hook)]),
        ("a file above", vec![entry(FILE, "../planted", "planted")]),
        ("a file far above", vec![entry(FILE, "a/../../../planted", "planted")]),
        ("a git directory", vec![entry(PROGRAM, ".git/hooks/post-checkout", hook), entry(FILE, ".git/config", config)]),
        (
            "one in other letters",
            vec![entry(PROGRAM, ".GIT/hooks/post-checkout", hook), entry(FILE, ".GiT/config", config)],
        ),
        ("one by its short name", vec![entry(PROGRAM, "git~1/hooks/post-checkout", hook)]),
        ("one with an invisible letter", vec![entry(PROGRAM, ".g\u{200c}it/hooks/post-checkout", hook)]),
        ("a file that leads to a git directory", vec![entry(FILE, ".git", "gitdir: @O")]),
        ("a link that leads to one", vec![entry(LINK, ".git", "@O")]),
        (
            "a repository inside",
            vec![
                entry(PROGRAM, "sub/.git/hooks/post-checkout", hook),
                entry(FILE, "sub/.git/config", config),
                entry(FILE, "sub/.git/HEAD", "ref: refs/heads/main\n"),
            ],
        ),
        (
            "a bare repository",
            vec![
                entry(FILE, "config", config),
                entry(FILE, "HEAD", "ref: refs/heads/main\n"),
                entry(PROGRAM, "hooks/post-checkout", hook),
                entry(FILE, "objects/x", ""),
                entry(FILE, "refs/x", ""),
            ],
        ),
        (
            "filters",
            vec![
                entry(FILE, ".gitattributes", "* filter=evil diff=evil merge=evil ident export-subst\n"),
                entry(FILE, ".gitconfig", config),
                entry(FILE, ".lfsconfig", "[lfs]\n\turl = ext::touch @M\n"),
                entry(FILE, "file", "$Id$"),
            ],
        ),
        ("our own folder", vec![entry(FILE, ".sdp/builds/x/out/run", hook), entry(FILE, ".sdp/router.php", "<?php\n")]),
        ("our own folder as a link", vec![entry(LINK, ".sdp", "@O")]),
        ("our own folder as a file", vec![entry(FILE, ".sdp", "x")]),
        ("our builds as a link", vec![entry(LINK, ".sdp/builds", "@O/config/builds")]),
        (
            "names of options",
            vec![entry(FILE, "--upload-pack=touch @M", "x"), entry(FILE, "-rf", "x"), entry(FILE, "$(touch x)", "x")],
        ),
    ];
    for (what, url, path) in [
        ("a submodule that runs a command", "ext::sh -c touch% @M", "sub"),
        ("one with an option for its address", "--upload-pack=touch @M", "sub"),
        ("one with an option for ssh", "ssh://-oProxyCommand=touch%20@M/x", "sub"),
        ("one of a folder of this machine", "file://@O", "sub"),
        ("one above", "../plain.git", "../sub"),
        ("one in the git directory", "../plain.git", ".git/modules/sub"),
    ] {
        let mut entries = vec![entry(FILE, ".gitmodules", &modules(url, path))];
        entries.extend((path == "sub").then(|| Entry(SUBMODULE, "sub".into(), of.into())));
        commits.push((what, entries));
    }
    commits
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_repos_run_nothing_and_reach_nowhere() {
    let trap = Trap::new().unwrap();
    let (playground, api) = playground(String::new()).await;
    api.post::<_, Value>("/api/sandboxes", &json!({ "name": "target" })).await.unwrap();
    let mut outcomes = Vec::new();
    for (at, (what, entries)) in commits(&trap).into_iter().enumerate() {
        if let Err(error) = commit(&playground.git().path(PLAIN), "hostile", &entries) {
            outcomes.push(format!("{what}: git itself refuses it: {error}"));
            continue;
        }
        // Where something was before, and where nothing was.
        let fresh = format!("fresh{at}");
        api.post::<_, Value>("/api/sandboxes", &json!({ "name": fresh })).await.unwrap();
        for sandbox in [None, Some("target"), Some(&fresh)] {
            let ended = ended(&api, sandbox, PLAIN, "hostile").await;
            outcomes.push(format!("{what}: {} {:?}", ended.state, ended.failure.map(|it| it.reason)));
            assert_eq!(trap.sprung().unwrap(), [""; 0], "{what}");
        }
    }
    let refused = outcomes.iter().filter(|it| it.contains("git itself")).count();
    assert!(refused <= 4, "{outcomes:#?}");
    // Whatever they left, the next one is deployed.
    for sandbox in [None, Some("target")] {
        let ended = ended(&api, sandbox, PLAIN, "main").await;
        assert_eq!(ended.state, DeploymentState::Running, "{:?} {outcomes:#?}", ended.failure);
    }
    nobody_fell_over(&playground);
    playground.shutdown().await.unwrap();
}

async fn ended(api: &Api, sandbox: Option<&str>, repo: &str, branch: &str) -> Deployment {
    let begun = api.deploy(sandbox, &story::of_branch(repo, branch).unwrap()).await.unwrap();
    api.follow(begun.id, |_| ()).await.unwrap()
}

/// What a gateway's branch puts in place of the file that routes are written to, and of the folders around it.
#[tokio::test(flavor = "multi_thread")]
async fn routes_are_written_into_no_file_that_a_gateways_branch_links_to() {
    let trap = Trap::new().unwrap();
    let (playground, api) = playground(String::new()).await;
    api.post::<_, Value>("/api/sandboxes", &json!({ "name": "pay" })).await.unwrap();
    story::deploy(&api, Some("pay"), SERVICE, FEATURE, &mut Vec::new()).await.unwrap();
    story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
    let stable = playground.ask_gateway(SERVICE).await.unwrap();
    let outside = trap.outside();
    let config =
        std::fs::read_to_string(playground.dir().join("repos").join(GATEWAY).join("application/config/config.php"))
            .unwrap();
    let index = "<?php echo 'x';\n";
    let link = |path: &str, to: &str| Entry(LINK, path.into(), outside.join(to).display().to_string());
    let file = |path: &str, text: &str| Entry(FILE, path.into(), text.into());
    for (what, entries) in [
        ("the file", vec![link("application/config/config.php", "config.php"), file("index.php", index)]),
        ("its folder", vec![link("application/config", "config"), file("index.php", index)]),
        ("the folder above", vec![link("application", ""), file("index.php", index)]),
        (
            "our own folder",
            vec![link(".sdp", ""), file("index.php", index), file("application/config/config.php", &config)],
        ),
    ] {
        commit(&playground.git().path(GATEWAY), "hostile", &entries).unwrap();
        let before = ended(&api, None, GATEWAY, "hostile").await;
        for target in [RouteTarget::Sandbox, RouteTarget::Ocp] {
            let set = api.route("pay", SERVICE, target).await;
            assert_eq!(trap.sprung().unwrap(), [""; 0], "{what}: {} {set:?}", before.state);
        }
    }
    // Whatever they left, the gateway comes back.
    story::deploy(&api, None, GATEWAY, "main", &mut Vec::new()).await.unwrap();
    assert_eq!(playground.ask_gateway(SERVICE).await.unwrap(), stable);
    api.route("pay", SERVICE, RouteTarget::Sandbox).await.unwrap();
    assert!(playground.ask_gateway(SERVICE).await.unwrap().contains(FEATURE));
    nobody_fell_over(&playground);
    playground.shutdown().await.unwrap();
}
