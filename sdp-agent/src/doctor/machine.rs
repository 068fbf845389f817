//! This machine: files, disks, the engine and its images, toolchains, the way to the git hosts.

use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt, path::Path};

use futures_util::future::join_all;
use sdp_core::{ComposerMode, Disk, RecipeKind, RepoSpec, problem::chain};
use sdp_docker::{DockerDeployer, SwarmDeployer};
use sdp_gateway::php::ConfigFile;
use tokio::net::TcpStream;
use url::Url;

use super::{Finding, LIMIT};
use crate::{
    AgentConfig, adapters,
    config::DeployerKind,
    disk::{self, MIB, Unreadable},
    images::{self, NeededImage},
};

pub(super) fn token(config: &AgentConfig) -> Finding {
    let check = "token";
    if let Err(error) = config.read_token() {
        return Finding::broken(
            check,
            chain(&error),
            "write what `sdp-server agent add NAME` printed into `token_file`",
        );
    }
    let Some(path) = config.token_file.as_ref().filter(|_| config.token.is_none()) else {
        return Finding::ok(check, "given in the environment");
    };
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    let evidence = format!("{} has mode {mode:03o}", path.display());
    match mode & 0o077 {
        0 => Finding::ok(check, evidence),
        _ => Finding::warning(check, evidence, format!("keep it from others: chmod 600 {}", path.display())),
    }
}

pub(super) fn data_dir(config: &AgentConfig) -> Finding {
    let (check, dir) = ("data-dir", &config.data_dir);
    // A new name each time, so that nothing of the agent's is touched.
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::create_dir_all(dir).and_then(|()| fs::write(&probe, b"")).and_then(|()| fs::remove_file(&probe));
    match tried {
        Ok(()) => Finding::ok(check, format!("{} can be written to", dir.display())),
        Err(error) => Finding::broken(
            check,
            format!("{} cannot be written to: {error}", dir.display()),
            "make it and give it to the agent's user, or correct `data_dir`",
        ),
    }
}

pub(super) async fn deployer(config: &AgentConfig) -> Vec<Finding> {
    if config.deployer.kind == DeployerKind::Process {
        return vec![Finding::ok("deployer", "processes of this machine, without isolation")];
    }
    let docker = adapters::docker(config);
    let socket = docker.socket.display().to_string();
    let connected = tokio::time::timeout(LIMIT, DockerDeployer::connect(docker)).await;
    let docker = match connected {
        Ok(Ok(docker)) => docker,
        failed => {
            let reason = failed
                .map_or_else(|_| "no answer".into(), |failed| failed.err().map(|it| chain(&it)).unwrap_or_default());
            let cure =
                "start the engine, and let the agent's user use its socket (group docker), or set `deployer.socket`";
            return vec![Finding::broken("docker", format!("{socket}: {reason}"), cure)];
        }
    };
    let mut findings = vec![Finding::ok("docker", format!("the engine answers on {socket}"))];
    if config.deployer.kind == DeployerKind::Swarm {
        findings.push(swarm(config).await);
    }
    let names = |needed: &[NeededImage], present| {
        let names = needed.iter().filter(|needed| needed.present == present).map(|needed| needed.image.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let found = match images::of(config, &docker).await {
        Ok(needed) if needed.iter().all(|needed| needed.present) => {
            Finding::ok("images", format!("all there: {}", names(&needed, true)))
        }
        Ok(needed) => Finding::broken("images", format!("missing: {}", names(&needed, false)), images::CURE),
        Err(error) => Finding::broken("images", chain(&error), "see the engine's log"),
    };
    findings.push(found);
    findings
}

async fn swarm(config: &AgentConfig) -> Finding {
    let check = "swarm";
    let cure = "run `docker swarm init` here, or `docker node promote` this machine on a manager";
    match tokio::time::timeout(LIMIT, SwarmDeployer::connect(adapters::swarm(config))).await {
        Ok(Ok(_)) if config.deployer.constraints.is_empty() => {
            Finding::ok(check, "the engine manages a swarm; services run on this machine only")
        }
        Ok(Ok(_)) => {
            let constraints = config.deployer.constraints.join(", ");
            Finding::ok(check, format!("the engine manages a swarm; services run where {constraints}"))
        }
        Ok(Err(error)) => Finding::broken(check, chain(&error), cure),
        Err(_) => Finding::broken(check, "no answer", cure),
    }
}

pub(super) fn toolchains(config: &AgentConfig) -> Vec<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let needs = |program: &str| {
        let by: Vec<_> = config.repo.iter().filter(|repo| uses(repo, program, config.deployer.kind)).collect();
        (!by.is_empty()).then(|| by.iter().map(|repo| repo.name.as_str()).collect::<Vec<_>>().join(", "))
    };
    let programs = ["go", "composer", "php"];
    let findings = programs.iter().filter_map(|program| {
        let by = needs(program)?;
        let found = folders.iter().map(|folder| folder.join(program)).find(|path| is_program(path));
        Some(match found {
            Some(path) => Finding::ok("toolchain", format!("{program} is {}", path.display())),
            None => Finding::broken(
                "toolchain",
                format!("{program} is not on the agent's PATH, and {by} cannot be built or run without"),
                format!("install {program}, or set PATH for the agent's service"),
            ),
        })
    });
    findings.collect()
}

fn uses(repo: &RepoSpec, program: &str, kind: DeployerKind) -> bool {
    match program {
        "go" => repo.recipe == RecipeKind::Go && repo.build.is_none(),
        "composer" => repo.recipe == RecipeKind::Php && repo.composer == ComposerMode::Required,
        _ => repo.recipe == RecipeKind::Php && kind == DeployerKind::Process,
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

pub(super) async fn remotes(config: &AgentConfig) -> Vec<Finding> {
    let places: BTreeSet<_> = config.repo.iter().filter_map(|repo| place(&repo.remote)).collect();
    join_all(places.into_iter().map(|place| async move {
        let reason = match tokio::time::timeout(LIMIT, TcpStream::connect(&place)).await {
            Ok(Ok(_)) => return Finding::ok("git", format!("{place} accepts connections")),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        let cure = "check `remote` and this machine's DNS, and have the way to the git host opened";
        Finding::broken("git", format!("{place} cannot be reached: {reason}"), cure)
    }))
    .await
}

/// Where a remote listens: `https://host/…`, `ssh://git@host:7999/…` or `git@host:path`.
fn place(remote: &str) -> Option<String> {
    if let Ok(url) = Url::parse(remote) {
        let port = url.port_or_known_default().or((url.scheme() == "ssh").then_some(22))?;
        return Some(format!("{}:{port}", url.host_str()?));
    }
    let (host, _) = remote.split_once(':')?;
    Some(format!("{}:22", host.rsplit('@').next()?))
}

pub(super) fn disks(config: &AgentConfig) -> Vec<Finding> {
    let judge = |disk: Result<Disk, Unreadable>| match disk {
        Ok(disk) => judge_disk(&disk),
        Err(unreadable) => Finding::warning("disk", chain(&unreadable), "check its permissions"),
    };
    disk::of(config).into_iter().map(judge).collect()
}

fn judge_disk(disk: &Disk) -> Finding {
    let check = "disk";
    let Disk { path, free_bytes: free, total_bytes: total, min_free_bytes: min_free } = disk;
    let evidence = format!("{} MiB of {} MiB are free at {path}", free / MIB, total / MIB);
    let cure = "free some space: deployments are refused while less than `deployer.min_free_mib` is free";
    if free < min_free {
        Finding::broken(check, evidence, cure)
    } else if *free < min_free.saturating_mul(2) || *free < total / 10 {
        Finding::warning(check, evidence, cure)
    } else {
        Finding::ok(check, evidence)
    }
}

pub(super) fn gateway(config: &AgentConfig) -> Option<Finding> {
    let check = "gateway";
    let gateway = config.gateway.as_ref()?;
    let repo = config.repo.iter().find(|repo| repo.name == gateway.repo)?;
    let path = repo.path.join(&gateway.config);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let evidence = format!("{} is not there", path.display());
            return Some(Finding::warning(check, evidence, "deploy the gateway, or correct `gateway.config`"));
        }
        Err(error) => {
            let evidence = format!("{}: {error}", path.display());
            return Some(Finding::broken(check, evidence, "let the agent's user read and write it"));
        }
    };
    Some(match ConfigFile::parse(bytes) {
        Ok(file) => {
            let services = file.entries().count();
            Finding::ok(check, format!("{} names {services} service(s)", path.display()))
        }
        Err(error) => Finding::broken(check, format!("{}: {}", path.display(), chain(&error)), "correct the file"),
    })
}

#[cfg(test)]
mod tests {
    use sdp_core::Verdict;

    use super::*;

    #[test]
    fn where_a_remote_listens_is_read_from_every_way_of_writing_it() {
        for (remote, expected) in [
            ("https://git.example/scm/a.git", Some("git.example:443")),
            ("http://git.example:7990/a.git", Some("git.example:7990")),
            ("ssh://git@git.example:7999/a.git", Some("git.example:7999")),
            ("ssh://git@git.example/a.git", Some("git.example:22")),
            ("git@git.example:shop/a.git", Some("git.example:22")),
            ("nonsense", None),
        ] {
            assert_eq!(place(remote).as_deref(), expected, "{remote}");
        }
    }

    #[test]
    fn a_disk_is_judged_by_what_is_left() {
        let verdict = |free, total| {
            let (free_bytes, total_bytes) = (free * MIB, total * MIB);
            judge_disk(&Disk { path: "/".into(), free_bytes, total_bytes, min_free_bytes: 1_000 * MIB }).verdict
        };
        assert_eq!(verdict(50_000, 100_000), Verdict::Ok);
        assert_eq!(verdict(5_000, 100_000), Verdict::Warning);
        assert_eq!(verdict(1_500, 2_000), Verdict::Warning);
        assert_eq!(verdict(999, 100_000), Verdict::Broken);
    }
}
