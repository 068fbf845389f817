//! The typed client on the whole platform, through a network that breaks: what is followed goes on where it was.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{path::Path, time::Duration};

use futures_util::TryStreamExt;
use sdp_core::{
    DeploymentState, Event, EventKind, ExecCommand, ExecEvent, LogStream,
    api::{
        CreateDeployment, CreateSandbox,
        logs::{LogQuery, OutputQuery},
        people::CreateToken,
    },
    client::{Client, ClientError, ClientOptions, Live},
};
use sdp_examples::{
    content::USER,
    middlebox::{Middlebox, Upgrades},
    playground::{Options, Playground, Runner},
};
use sdp_git::testing::GitHost;

/// How many lines a build prints.
const LINES: usize = 200;

/// A repo whose build takes its time.
fn chatty(folder: &Path, git: &GitHost) -> String {
    let path = folder.parent().unwrap().join("repos/chatty");
    format!(
        "\n[[repo]]\nname = \"chatty\"\npath = {path:?}\nremote = \"{}\"\nrecipe = \"command\"\n\
         build = [\"sh\", \"build.sh\"]\nrun = [\"sh\", \"run.sh\"]\nhealth = {{ command = [\"true\"] }}\n",
        git.url("chatty"),
    )
}

struct Rig {
    playground: Playground,
    middlebox: Middlebox,
    /// Straight to the server, signed in with a token.
    direct: Client,
    /// The same through the middlebox.
    client: Client,
}

impl Rig {
    async fn start() -> Self {
        let options = Options {
            more_repos: chatty,
            agents_sign_in: true,
            deployer_settings: "exec = true\n",
            ..Options::new(Runner::Process)
        };
        let playground = Playground::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        playground.git().create_repo("chatty").await.unwrap();
        let script = format!("for i in $(seq {LINES}); do echo line $i; sleep 0.02; done\n");
        let program = "for i in $(seq 6000); do echo tick $i; sleep 0.1; done\n";
        let files = [("build.sh", script.as_bytes()), ("run.sh", program.as_bytes())];
        playground.git().commit("chatty", "main", None, &files, "chatty").await.unwrap();
        let target = playground.base().trim_start_matches("http://").parse().unwrap();
        let middlebox = Middlebox::start(target).await.unwrap();

        let mut options = ClientOptions::default();
        options.first_pause = Duration::from_millis(20);
        let client = |address: &str| Client::new(address.parse().unwrap(), options.clone()).unwrap();
        let direct = client(playground.base());
        let session = direct.sign_in(USER.parse().unwrap(), playground.password().into()).await.unwrap();
        let body = CreateToken {
            name: "tests".parse().unwrap(),
            scopes: ["deploy".parse().unwrap()].into(),
            expires_in: None,
        };
        let token = session.client.create_token(&body).await.unwrap().secret;
        let through = client(&middlebox.address().to_string());
        let (direct, client) = (direct.with_token(token.clone()).unwrap(), through.with_token(token).unwrap());
        Self { playground, middlebox, direct, client }
    }

    async fn stop(self) {
        self.playground.shutdown().await.unwrap();
    }
}

fn wanted() -> CreateDeployment {
    CreateDeployment { force: true, ..CreateDeployment::new("chatty".parse().unwrap(), "main".parse().unwrap()) }
}

/// What the build printed.
fn printed(events: &[Event]) -> Vec<&str> {
    let lines = events.iter().filter_map(|event| match &event.kind {
        EventKind::Log { stream: LogStream::Stdout, line, .. } => Some(line.as_str()),
        _ => None,
    });
    lines.collect()
}

/// Everything that a client is told of a deployment, while `trouble` happens.
async fn follow(client: &Client, rig: &Rig, trouble: impl Future<Output = ()>) -> Vec<Event> {
    let id = client.deploy(&wanted()).await.unwrap().id;
    let following = async {
        let mut follow = client.follow(id, 1);
        let mut events = Vec::new();
        while let Some(event) = follow.next().await.unwrap() {
            events.push(event);
        }
        let (state, last) = follow.end().unwrap();
        assert_eq!((state, last), (DeploymentState::Running, events.len() as u64));
        events
    };
    let both = async { tokio::join!(following, trouble).0 };
    let events = tokio::time::timeout(Duration::from_secs(120), both).await.expect("it never ended");
    assert_eq!(rig.direct.log_events(id, &LogQuery::default()).await.unwrap(), events, "as the log has it");
    events
}

fn assert_whole(events: &[Event]) {
    assert!((1..).zip(events).all(|(place, event)| event.seq == place), "a gap or a duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_through_a_connection_that_breaks_again_and_again() {
    let rig = Rig::start().await;
    let trouble = async {
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(53)).await;
            rig.middlebox.cut();
        }
    };
    let events = follow(&rig.client, &rig, trouble).await;
    assert_whole(&events);
    let lines: Vec<_> = (1..=LINES).map(|n| format!("line {n}")).collect();
    assert_eq!(printed(&events), lines);
    assert!(rig.middlebox.accepted() > 10, "it was cut: {}", rig.middlebox.accepted());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_websocket_gets_through_the_log_is_asked_for() {
    let rig = Rig::start().await;
    for upgrades in [Upgrades::Reset, Upgrades::Forbid, Upgrades::Mute] {
        rig.middlebox.upgrades(upgrades);
        let mut options = ClientOptions::default();
        options.connect_timeout = Duration::from_secs(1);
        let client = Client::new(rig.client.address().clone(), options).unwrap();
        let client = client.with_token(rig.client.token().unwrap().clone()).unwrap();
        assert_whole(&follow(&client, &rig, async {}).await);
        let error = client.events(None).next().await.unwrap_err();
        assert!(
            matches!(error, ClientError::NoWebSocket { .. } | ClientError::Broken { .. } | ClientError::NotSdp { .. }),
            "{error:?}"
        );
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_prints_is_followed_until_it_is_stopped() {
    let rig = Rig::start().await;
    let id = rig.direct.deploy(&wanted()).await.unwrap().id;
    assert_eq!(rig.direct.wait(id).await.unwrap().state, DeploymentState::Running);
    let mut program = rig.client.follow_output(id, None).await.unwrap();
    for tick in 1..20 {
        assert_eq!(program.next().await.unwrap().unwrap().line, format!("tick {tick}"));
    }
    let query = OutputQuery { tail: Some(2), ..OutputQuery::default() };
    let last: Vec<_> = rig.direct.output(id, &query).await.unwrap().try_collect().await.unwrap();
    let last = String::from_utf8(last.concat()).unwrap();
    assert!(last.starts_with("tick ") && last.lines().count() == 2, "{last:?}");
    rig.middlebox.cut();
    while program.next().await.is_ok() {}
    let mut program = rig.client.follow_output(id, Some(1)).await.unwrap();
    rig.direct.stop_deployment(id).await.unwrap();
    let rest = async { while program.next().await.unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), rest).await.expect("it never ended");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_run_once_and_ends_with_the_connection_over_which_it_is_read() {
    let rig = Rig::start().await;
    let id = rig.direct.deploy(&wanted()).await.unwrap().id;
    assert_eq!(rig.direct.wait(id).await.unwrap().state, DeploymentState::Running);
    let run = async |script: &str, mark: &str| {
        rig.client.exec(id, ExecCommand::new(["sh", "-c", script, mark]).unwrap()).await.unwrap()
    };
    let counts = run("for i in $(seq 20000); do echo line $i; done; echo done >&2; exit 5", "counts").await;
    let events: Vec<_> = counts.into_stream().try_collect().await.unwrap();
    let (code, lines) = events.split_last().unwrap();
    assert_eq!(*code, ExecEvent::Exited(5));
    let printed = lines.iter().map(|event| match event {
        ExecEvent::Line(line) => (line.stream, line.line.clone()),
        ExecEvent::Exited(_) => panic!("two ends"),
    });
    let (errors, lines): (Vec<_>, Vec<_>) = printed.partition(|(stream, _)| *stream == LogStream::Stderr);
    assert_eq!(errors, [(LogStream::Stderr, "done".to_owned())]);
    assert!(lines.into_iter().map(|(_, line)| line).eq((1..=20000).map(|n| format!("line {n}"))), "each once");

    let mark = id.to_string() + "-hangs";
    let mut hangs = run("echo begun; sleep 600; :", &mark).await;
    assert!(matches!(hangs.next().await.unwrap(), Some(ExecEvent::Line(line)) if line.line == "begun"));
    assert!(runs(&mark));
    rig.middlebox.cut();
    assert!(hangs.next().await.is_err());
    for _ in 0..6000 {
        if !runs(&mark) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!runs(&mark), "it goes on though nobody reads it");
    rig.stop().await;
}

/// Whether a process of this machine has such an argument.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut arguments = processes.map(|process| std::fs::read(process.path().join("cmdline")).unwrap_or_default());
    arguments.any(|arguments| arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_while_the_server_is_started_again() {
    let mut rig = Rig::start().await;
    let id = rig.direct.deploy(&wanted()).await.unwrap().id;
    let mut follow = rig.client.follow(id, 1);
    let mut events = Vec::new();
    while printed(&events).len() < 5 {
        events.push(follow.next().await.unwrap().unwrap());
    }
    rig.playground.stop_server().await;
    let (started, more) = tokio::join!(rig.playground.start_server(), async {
        let mut more = Vec::new();
        while let Some(event) = follow.next().await.unwrap() {
            more.push(event);
        }
        more
    });
    started.unwrap_or_else(|error| panic!("{error}"));
    events.extend(more);
    assert_whole(&events);
    assert_eq!(printed(&events).len(), LINES);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_followed_through_a_connection_that_breaks_again_and_again() {
    let rig = Rig::start().await;
    let mut events = rig.client.events(None);
    let Live::Begins(first) = events.next().await.unwrap() else { panic!("no beginning") };
    let making = async {
        for n in 0..40 {
            rig.direct.create_sandbox(&CreateSandbox::new(format!("s-{n}").parse().unwrap())).await.unwrap();
            if n % 3 == 0 {
                rig.middlebox.cut();
            }
        }
    };
    let following = async {
        let mut seqs = Vec::new();
        while seqs.len() < 40 {
            match events.next().await.unwrap() {
                Live::Event(event) => seqs.push(event.seq),
                other => panic!("{other:?}"),
            }
        }
        seqs
    };
    let both = async { tokio::join!(making, following).1 };
    let seqs = tokio::time::timeout(Duration::from_secs(60), both).await.expect("they never came");
    assert_eq!(seqs, (first..first + 40).collect::<Vec<_>>());
    assert!(rig.middlebox.accepted() > 3, "it was cut: {}", rig.middlebox.accepted());
    rig.stop().await;
}
