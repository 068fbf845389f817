//! What is left of a sandbox that was deleted or has expired: nothing but its history.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use sdp_core::{Deployment, SandboxKey, SandboxName};

use crate::{
    Failed,
    playground::{Playground, Runner},
};

/// The agents' roles.
const ROLES: [&str; 2] = ["gateway", "micro"];

/// What is left of a sandbox, a line each: instances, networks, worktrees, branches of the checkouts, processes, ports
/// and their rows, claims, routes, and the key that it had.
///
/// # Errors
/// When it cannot be looked for.
pub async fn of_sandbox(
    playground: &Playground,
    sandbox: &SandboxName,
    key: Option<&SandboxKey>,
    was: &[Deployment],
) -> Result<Vec<String>, Failed> {
    let mut traces = Vec::new();
    for role in ROLES {
        let instances = playground.deployer(role).await?.list().await?;
        let of_it = instances.iter().filter(|instance| instance.key.sandbox.as_ref() == Some(sandbox));
        traces.extend(of_it.map(|instance| format!("instance {} of {role}", instance.name)));
        let folder = playground.dir().join(role);
        let worktrees = folder.join("data/worktrees").join(sandbox.as_str());
        if worktrees.exists() {
            traces.push(format!("worktrees of {role}"));
        }
        let running = processes_in(&worktrees);
        if running > 0 {
            traces.push(format!("{running} processes in the worktrees of {role}"));
        }
        for repo in fs::read_dir(folder.join("repos")).into_iter().flatten().flatten() {
            traces.extend(in_store(&repo.path().join(".git"), sandbox));
            traces.extend(in_gateway(&repo.path().join(".sdp"), sandbox, key)?);
        }
    }
    if *playground.runner() == Runner::Docker {
        traces.extend(in_engine(sandbox)?);
    }
    traces.extend(in_database(playground, sandbox).await?);
    traces.extend(of_ports(playground, sandbox, was).await?);
    Ok(traces)
}

/// How many processes have their directory below a folder.
pub fn processes_in(folder: &Path) -> usize {
    let in_folder = |link: PathBuf| fs::read_link(link).is_ok_and(|cwd| cwd.starts_with(folder));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(|process| in_folder(process.path().join("cwd"))).count()
}

/// The refs and worktrees of a repo that bear the sandbox's name.
fn in_store(git: &Path, sandbox: &SandboxName) -> Vec<String> {
    let folders = ["refs/heads/sdp-worktree", "refs/sdp", "worktrees"].map(|folder| git.join(folder));
    let named = folders.into_iter().map(|folder| folder.join(format!("sandbox-{sandbox}")));
    named.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}

/// The files of a gateway's checkout that name the sandbox or its key.
fn in_gateway(folder: &Path, sandbox: &SandboxName, key: Option<&SandboxKey>) -> Result<Vec<String>, Failed> {
    let names = [format!("'{sandbox}'"), format!("\"{sandbox}\"")].into_iter().chain(key.map(ToString::to_string));
    let names: Vec<_> = names.collect();
    let mut traces = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type()?.is_file() {
            let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
            let named = names.iter().filter(|name| text.contains(*name));
            traces.extend(named.map(|name| format!("{name} in {}", entry.path().display())));
        }
    }
    Ok(traces)
}

/// The engine's containers and networks of the sandbox, whoever made them.
fn in_engine(sandbox: &SandboxName) -> Result<Vec<String>, Failed> {
    let mut traces = Vec::new();
    let filter = format!("label=sdp.sandbox={sandbox}");
    for (what, command) in [("container", ["ps", "-a"]), ("network", ["network", "ls"])] {
        let mut docker = std::process::Command::new("docker");
        let output = docker.args(command).args(["-q", "--filter", &filter]).output()?;
        if !output.status.success() {
            return Err(Failed(format!("docker: {}", String::from_utf8_lossy(&output.stderr))));
        }
        let ids = String::from_utf8_lossy(&output.stdout).into_owned();
        traces.extend(ids.lines().map(|id| format!("{what} {id}")));
    }
    Ok(traces)
}

async fn in_database(playground: &Playground, sandbox: &SandboxName) -> Result<Vec<String>, Failed> {
    let store = playground.store()?;
    let there = [
        ("the sandbox", store.sandbox(sandbox).await?.is_some()),
        ("its key", store.sandbox_key(sandbox).await?.is_some()),
        ("a claim", store.open_claims().await?.iter().any(|(owner, _)| owner == sandbox)),
        ("a lost route", !store.lost_routes(sandbox).await?.is_empty()),
        ("a choice for its own gateway", !store.own_routes(sandbox).await?.is_empty()),
    ];
    Ok(there.into_iter().filter(|(_, there)| *there).map(|(what, _)| format!("{what} in the database")).collect())
}

/// The ports that are still the sandbox's, or nobody's and held all the same.
async fn of_ports(playground: &Playground, sandbox: &SandboxName, was: &[Deployment]) -> Result<Vec<String>, Failed> {
    let mut traces = Vec::new();
    for deployment in was {
        let Some(port) = deployment.host_port else { continue };
        match playground.store()?.port_holder(&deployment.agent, port).await? {
            Some(holder) if holder.key.sandbox.as_ref() == Some(sandbox) => {
                traces.push(format!("a row of port {port}"))
            }
            Some(_) => {}
            None if TcpListener::bind(("127.0.0.1", port.get())).is_err() => {
                traces.push(format!("port {port} is held"))
            }
            None => {}
        }
    }
    Ok(traces)
}
