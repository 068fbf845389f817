//! What somebody does with the command, on the whole platform: in a pipe, as CI does, and on a terminal.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod support;

use std::path::Path;

use sdp_core::Deployment;
use sdp_examples::{
    content::{FEATURE, GATEWAY, SERVICE, USER},
    playground::{Options, Playground, Runner},
};
use sdp_git::testing::GitHost;
use serde_json::Value;

use self::support::{Home, Terminal};

/// Repos whose builds hang and fail.
fn more_repos(folder: &Path, git: &GitHost) -> String {
    let repo = |name: &str| {
        let path = folder.parent().unwrap().join("repos").join(name);
        format!(
            "\n[[repo]]\nname = \"{name}\"\npath = {path:?}\nremote = \"{}\"\nrecipe = \"command\"\n\
             build = [\"sh\", \"build.sh\"]\nrun = [\"sleep\", \"600\"]\nhealth = {{ command = [\"true\"] }}\n",
            git.url(name),
        )
    };
    [repo("slow"), repo("broken")].concat()
}

async fn playground() -> Playground {
    let options = Options {
        more_repos,
        per_request: true,
        server_settings: "auth.admins = [\"ada\"]\n".into(),
        deployer_settings: "exec = true\n",
        ..Options::new(Runner::Process)
    };
    let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    for (repo, script) in [
        ("slow", "echo building\nexec sleep 600\n"),
        ("broken", "printf '\\033[31mcannot build\\033[0m this\\n'\nexit 3\n"),
    ] {
        playground.git().create_repo(repo).await.unwrap();
        playground.git().commit(repo, "main", None, &[("build.sh", script.as_bytes())], repo).await.unwrap();
    }
    playground
}

/// Runs what blocks beside the platform, which lives in this process.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::time::timeout(std::time::Duration::from_secs(300), tokio::task::spawn_blocking(work)).await;
    done.expect("it never ended").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pipe_everything_is_plain_lines_json_and_exit_codes() {
    let playground = playground().await;
    let (base, password, gateway) =
        (playground.base().to_owned(), playground.password().to_owned(), playground.gateway().to_owned());
    beside(move || pipe(&base, &password, &gateway)).await;
    playground.shutdown().await.unwrap();
}

fn pipe(base: &str, password: &str, gateway: &str) {
    let home = Home::new();
    // Before anything.
    let told = home.sdp(&["whoami", "--server", base]).fails(3);
    assert!(told.contains("sdp login"), "{told}");
    let told = home.sdp(&["login", "--server", base, "--user", USER, "--password-stdin"]).given("wrong\n").fails(3);
    assert!(told.contains("refused") || told.contains("credentials"), "{told}");
    let told = home.sdp(&["login", "--server", base, "--user", USER, "--password-stdin"]).given(password).done();
    assert_eq!(told, format!("signed in to {base} as {USER} (admin)\n"));
    home.is_private(&["credentials.toml", "config.toml"], password);

    // The server is remembered.
    let told = home.sdp(&["whoami"]).done();
    assert!(told.starts_with(&format!("{USER} (admin) on {base}, which ends in")), "{told}");
    assert_eq!(home.sdp(&["whoami", "--json"]).json()["user"], USER);
    let report = home.sdp(&["doctor", "--json"]).json();
    let checks: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|it| (&it["check"], &it["verdict"])).collect();
    for check in ["config", "server", "tls", "version", "token", "websocket", "agents"] {
        assert!(checks.contains(&(&check.into(), &"ok".into())), "{checks:?}");
    }
    assert!(home.sdp(&["repo", "list"]).done().contains(&format!("{GATEWAY}  the gateway")));
    let branches = home.sdp(&["repo", "branches", SERVICE, "greeting"]).done();
    assert!(branches.lines().nth(1).unwrap().starts_with(FEATURE), "{branches}");
    assert!(home.sdp(&["agents", "list"]).done().contains("by websocket"));

    // The gateway, then a branch in a sandbox.
    let told = home.sdp(&["deploy", GATEWAY, "main", "--follow"]).done();
    assert!(told.contains(" build  = done\n") && told.lines().last().unwrap().contains("runs on http"), "{told}");
    assert!(!told.contains('\x1b'), "no colour in a pipe: {told:?}");
    home.sdp(&["sandbox", "create", "pay", "--expires-in", "2h"]).done();
    let told = home.sdp(&["sandbox", "create", "pay"]).fails(5);
    assert!(told.contains("pay"), "{told}");
    let begun = home.sdp(&["deploy", SERVICE, FEATURE, "-s", "pay", "-e", "MODE=test", "--json"]).json();
    let deployment: Deployment = serde_json::from_value(begun).unwrap();
    let id = deployment.id.to_string();
    assert_eq!(deployment.env.values().next().unwrap(), "test");
    let followed = home.sdp(&["logs", &id, "--follow", "--json"]).done();
    let lines: Vec<Value> = followed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (end, events) = lines.split_last().unwrap();
    assert_eq!((&end["type"], &end["deployment"]["state"]), (&"end".into(), &"running".into()));
    assert!((1..).zip(events).all(|(seq, event)| event["seq"] == seq), "{followed}");
    assert_eq!(home.sdp(&["logs", SERVICE, "--sandbox", "pay", "--tail", "1"]).done().lines().count(), 1);
    let log = home.sdp(&["logs", &id]).done();
    assert_eq!(log.lines().count(), events.len());

    // What its program prints.
    let told = home.sdp(&["logs", SERVICE, "-s", "pay", "--container", "--json"]).done();
    let first: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    let first = first["line"].as_str().unwrap();
    assert_eq!(home.sdp(&["logs", &id, "-c"]).done().lines().next().unwrap(), first);
    assert_eq!(home.sdp(&["logs", &id, "-c", "-n", "1"]).done().lines().count(), 1);

    // A command beside it, which exits as it likes.
    let run = ["exec", SERVICE, "-s", "pay", "--", "sh", "-c", "echo \"$MODE\"; echo oh >&2; exit $0"];
    assert_eq!(home.sdp(&[&run[..], &["7"]].concat()).exits(7), ("test\n".into(), "oh\n".into()));
    assert_eq!(home.sdp(&["exec", &id, "--", "echo", "it", "is"]).done(), "it is\n");
    let (told, said) = home.sdp(&[&["--json"], &run[..], &["3"]].concat()).exits(3);
    let mut told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.pop().unwrap(), serde_json::json!({ "end": "exited", "code": 3 }));
    assert!(
        told.contains(&serde_json::json!({ "stream": "stderr", "line": "oh" })) && said.is_empty(),
        "{told:?}{said}"
    );
    let told = home.sdp(&["exec", SERVICE, "-s", "pay", "--", "no-such-program"]).fails(127);
    assert!(told.contains("no-such-program") && !told.contains("sdp:"), "{told}");
    let told = home.sdp(&["exec", SERVICE, "-s", "pay", "--", ""]).fails(2);
    assert!(told.starts_with("sdp: ") && told.contains("none is named"), "{told}");
    assert!(home.sdp(&["audit", "--action", "exec"]).done().contains("echo it is"));
    let agents = home.sdp(&["agents", "list"]).done();
    assert!(agents.lines().next().unwrap().contains("EXEC") && agents.contains("  yes  "), "{agents}");
    // Nothing of it is there to run one in.
    home.sdp(&["deployment", "stop", &id]).done();
    let told = home.sdp(&["exec", SERVICE, "-s", "pay", "--", "true"]).fails(5);
    assert!(told.contains("restart it first"), "{told}");
    home.sdp(&["deployment", "restart", &id]).done();

    // Its route, there and back.
    let told = home.sdp(&["route", "set", "pay", "eredar=sandbox", "--reason", "a test"]).done();
    assert!(told.contains("sandbox  pay") && told.contains("a test"), "{told}");
    assert!(ask(gateway).contains(FEATURE));
    let told = home.sdp(&["route", "explain", "eredar"]).done();
    assert!(told.starts_with("eredar -> http"), "{told}");
    home.sdp(&["sandbox", "create", "other"]).done();
    home.sdp(&["deploy", SERVICE, "main", "-s", "other", "-f"]).done();
    let told = home.sdp(&["route", "set", "other", "eredar=sandbox"]).fails(5);
    assert!(told.contains("pay") && told.contains("--takeover"), "{told}");
    let told = home.sdp(&["route", "reset", "pay"]).done();
    assert!(told.contains("eredar   ocp"), "{told}");
    assert_eq!(home.sdp(&["route", "list", "pay", "--json"]).json()["routes"][0]["origin"], "ocp");

    // By its document.
    let yaml = home.sdp(&["sandbox", "export", "pay"]).done();
    let told = home.sdp(&["sandbox", "diff", "pay", "--file", "-"]).given(&yaml).done();
    assert_eq!(told, "sandbox pay is as the document says\n");
    let told =
        home.sdp(&["sandbox", "diff", "pay", "-f", "-"]).given("services:\n- repo: eredar\n  brunch: x\n").fails(2);
    assert!(told.contains("-:3:3: unknown field `brunch`"), "{told}");
    let told = home.sdp(&["sandbox", "show", "pay"]).done();
    assert!(told.contains(FEATURE) && told.contains("X-SDP-Sandbox"), "{told}");
    home.sdp(&["template", "save", "checkout", "--from-sandbox", "pay"]).done();
    home.sdp(&["template", "save", "checkout", "--from-sandbox", "pay"]).done();
    assert!(home.sdp(&["template", "list"]).done().contains(&format!("eredar {FEATURE}")));

    // What does not come out well.
    let told = home.sdp(&["deploy", "broken", "main", "--follow"]).fails_with_output(1);
    assert!(told.0.contains("| cannot build this") && told.1.contains("failed"), "{told:?}");
    let told = home.sdp(&["deploy", SERVICE, "nowhere", "--follow"]).fails_with_output(1);
    assert!(told.1.contains("nowhere"), "{told:?}");
    home.sdp(&["sandbox", "show", "nothing"]).fails(4);
    let told = home.sdp(&["--json", "sandbox", "show", "nothing"]).fails(4);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["error"]["code"], &told["error"]["problem"]["status"]), (&"not-found".into(), &404.into()));
    let told = home.sdp(&["history", "--repo", "broken", "--state", "failed"]).done();
    assert_eq!(told.lines().count(), 2, "{told}");

    // A script with a token of its own.
    let token = home.sdp(&["token", "create", "nightly", "--scope", "read"]).done();
    let script = Home::new();
    let told = script.sdp(&["--server", base, "history", "--json"]).with("SDP_TOKEN", token.trim()).done();
    assert!(serde_json::from_str::<Value>(&told).unwrap().as_array().unwrap().len() > 3);
    let told = script.sdp(&["--server", base, "sandbox", "delete", "pay"]).with("SDP_TOKEN", token.trim()).fails(3);
    assert!(told.contains("developer"), "{told}");
    let told = script.sdp(&["--server", "http://127.0.0.1:1", "history"]).with("SDP_TOKEN", token.trim()).fails(6);
    assert!(told.contains("-> start sdp-server there"), "{told}");

    // And away with it.
    for name in ["pay", "other"] {
        assert_eq!(home.sdp(&["sandbox", "delete", name]).done(), format!("sandbox {name} is gone\n"));
    }
    assert!(home.sdp(&["audit", "--subject", "sandboxes/pay"]).done().contains("sandbox-delete"));
    home.sdp(&["deployment", "stop", GATEWAY]).done();
    home.sdp(&["logout"]).done();
    home.sdp(&["whoami"]).fails(3);
}

fn ask(gateway: &str) -> String {
    let output = std::process::Command::new("curl").args(["-sS", "-m", "20", &format!("{gateway}{SERVICE}/")]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_stages_move_and_ctrl_c_lets_the_deployment_go_on() {
    let playground = playground().await;
    let (base, password) = (playground.base().to_owned(), playground.password().to_owned());
    let checkout = playground.dir().join("somebodys-checkout");
    let url = playground.git().url(SERVICE).replacen("://", &format!("://{USER}:{password}@"), 1);
    support::git(playground.dir(), &["clone", "--quiet", "--branch", FEATURE, &url, checkout.to_str().unwrap()]);
    beside(move || terminal(&base, &password, &checkout)).await;
    playground.shutdown().await.unwrap();
}

fn terminal(base: &str, password: &str, checkout: &Path) {
    let home = Home::new();
    let mut login = Terminal::start(&home, checkout, &["login", "--server", base]);
    login.until("Git user: ");
    login.types(&format!("{USER}\r"));
    login.until(&format!("Git password of {USER}: "));
    login.types(&format!("{password}\r"));
    let (code, shown) = login.end();
    assert!(code == 0 && shown.contains("signed in to"), "{shown}");
    assert!(!shown.contains(password), "the password is not echoed");

    // Repo and branch are those of the checkout.
    let (code, shown) = Terminal::start(&home, checkout, &["deploy", "--follow"]).end();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains(&format!("{SERVICE} {FEATURE}, as checked out here")), "{shown}");
    for stage in ["source", "build", "start", "health"] {
        assert!(shown.contains(&format!("\x1b[32m✔\x1b[0m {stage}")), "{stage}: {shown:?}");
    }
    assert!(shown.contains('⠙') && shown.contains("\r\x1b[2K"), "something moved: {shown:?}");
    assert!(shown.contains("runs on http://"), "{shown}");

    let (_, shown) = Terminal::start(&home, checkout, &["history"]).end();
    assert!(shown.lines().all(|line| support::width(line) <= support::COLUMNS), "{shown}");
    let (_, shown) = Terminal::start(&home, checkout, &["--color", "never", "history"]).end();
    assert!(shown.contains("running") && !shown.contains('\x1b'), "{shown:?}");

    // A stage that fails shows what it printed, without what would move the cursor.
    let (code, shown) = Terminal::start(&home, checkout, &["deploy", "broken", "main", "--follow"]).end();
    assert!(code == 1 && shown.contains("✘") && shown.contains("cannot build this"), "{shown}");

    // Ctrl-C.
    let mut slow = Terminal::start(&home, checkout, &["deploy", "slow", "main", "--follow"]);
    slow.until("building");
    slow.types("\u{3}");
    let (code, shown) = slow.end();
    assert!(code == 130 && shown.contains("it goes on"), "{code}: {shown}");
    let id = shown.split("sdp deployment cancel ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(home.sdp(&["deployment", "show", &id, "--json"]).json()["state"], "build");
    home.sdp(&["deployment", "cancel", &id]).done();
    let told = home.sdp(&["logs", "-f", &id]).fails_with_output(1);
    assert!(told.1.contains("cancelled"), "{told:?}");
    // Ctrl-C ends a command.
    let mut command = Terminal::start(&home, checkout, &["exec", "--", "sh", "-c", "echo begun; sleep 600; :", &id]);
    command.until("begun");
    assert!(support::runs(&id));
    command.types("\u{3}");
    let (code, shown) = command.end();
    assert!(code == 130 && shown.contains("told to end"), "{code}: {shown}");
    support::until("the command's end", || !support::runs(&id));
    home.sdp(&["deployment", "stop", SERVICE]).done();
}
