//! The whole platform on real parts, for who looks at it with a program of their own, such as a browser's driver.
//!
//! The arguments are that program and its own. It gets `SDP_URL`, `SDP_USER`, `SDP_PASSWORD` and `SDP_GATEWAY`, and
//! can say a line `stop-agent ROLE` or `start-agent ROLE` on its output, which is answered on its input when it is done.
//! Everything else that it says is passed on. Without a program the platform runs until Ctrl-C.

use std::{io::Write, path::Path, process::ExitCode, process::Stdio};

use sdp_examples::{
    Failed,
    content::USER,
    playground::{Options, Playground, Runner},
};
use sdp_git::testing::GitHost;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, Command},
};

/// Who looks is an admin, so that every page can be seen.
const SETTINGS: &str = "auth.admins = [\"ada\"]\n";

/// A repo whose builds print much.
const CHATTY: &str = "chatty";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failed(reason)) => {
            let _ = writeln!(std::io::stderr(), "the playground could not be run: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<bool, Failed> {
    let runner = if std::env::var_os("SDP_RUNNER").is_some_and(|it| it == "process") {
        Runner::Process
    } else {
        Runner::available().await
    };
    let port = if arguments.is_empty() { 3452 } else { 0 };
    let settings = SETTINGS.into();
    let options = Options {
        port,
        server_settings: settings,
        per_request: true,
        agents_sign_in: true,
        more_repos: chatty_repo,
        deployer_settings: "exec = true\n",
        ..Options::new(runner)
    };
    let mut playground = Playground::start(options).await?;
    let looked = match arguments.split_first() {
        Some((program, arguments)) => look(&mut playground, program, arguments).await,
        None => wait(&playground).await,
    };
    playground.shutdown().await?;
    looked
}

async fn wait(playground: &Playground) -> Result<bool, Failed> {
    fill_chatty(playground.git()).await?;
    writeln!(std::io::stdout(), "{playground}\n  sign in        {USER} / {}", playground.password())?;
    tokio::signal::ctrl_c().await?;
    Ok(true)
}

async fn look(playground: &mut Playground, program: &str, arguments: &[String]) -> Result<bool, Failed> {
    fill_chatty(playground.git()).await?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("SDP_URL", playground.base())
        .env("SDP_USER", USER)
        .env("SDP_PASSWORD", playground.password())
        .env("SDP_GATEWAY", playground.gateway())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failed(format!("{program} cannot be started: {error}")))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failed(format!("{program} has no input or output")));
    };
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        match line.split_once(' ') {
            Some(("stop-agent", role)) => answer(&mut input, playground.stop_agent(role).await).await?,
            Some(("start-agent", role)) => answer(&mut input, playground.start_agent(role).await).await?,
            _ => writeln!(std::io::stdout(), "{line}")?,
        }
    }
    Ok(child.wait().await?.success())
}

async fn answer(input: &mut ChildStdin, done: Result<(), Failed>) -> Result<(), Failed> {
    let answer = done.map_or_else(|Failed(reason)| reason, |()| "done".into());
    Ok(input.write_all(format!("{answer}\n").as_bytes()).await?)
}

fn chatty_repo(folder: &Path, git: &GitHost) -> String {
    format!(
        "\n[[repo]]\nname = \"{CHATTY}\"\npath = {:?}\nremote = \"{}\"\nrecipe = \"command\"\nimage = \"sdp-base:dev\"\n\
         container_port = 8080\nbuild = [\"sh\", \"build.sh\"]\nrun = [\"sh\", \"/src/run.sh\"]\nhealth = {{ timeout = \"5s\" }}\n",
        folder.join("repos").join(CHATTY),
        git.url(CHATTY),
    )
}

/// A branch for each length of log; none of them comes up, for its build fails at its end.
async fn fill_chatty(git: &GitHost) -> Result<(), Failed> {
    git.create_repo(CHATTY).await?;
    for (branch, parent, lines) in
        [("main", None, 300), ("long", Some("main"), 200_000), ("huge", Some("main"), 1_000_000)]
    {
        let script = format!(
            "awk 'BEGIN {{ for (i = 1; i <= {lines}; i++) {{\n\
             c = i % 97 == 0 ? \"\\033[33mwarning:\\033[0m\" : \"\\033[2m[\" i \"]\\033[0m\"\n\
             print c, \"compiling \\033[36mmodule_\" i % 251 \"\\033[0m of \\033[1mthe catalogue\\033[0m\" }} }}'\n\
             echo 'error: the last module does not compile' >&2\nexit 3\n"
        );
        let files = [("build.sh", script.as_bytes())];
        git.commit(CHATTY, branch, parent, &files, &format!("{lines} lines")).await?;
    }
    Ok(())
}
