//! The in-memory doubles, and a git host on this machine, to be scripted from Python.

use std::sync::Arc;

use pyo3::prelude::*;
use sdp_agent::{AgentConfig, Parts};
use sdp_core::{
    BranchName, LogLine, LogStream, RepoName, RepoSource, ServiceName,
    problem::chain,
    testing::{self, Behaviour, Ran},
};
use sdp_git::testing::Mood;

use crate::{
    error::{Failure, read, write},
    process::OfProcess,
    runtime::finish,
};

fn invalid(error: &dyn std::error::Error) -> Failure {
    sdp_core::Problem::new(sdp_core::ErrorCode::InvalidInput, chain(error)).into()
}

/// The parts of an agent or pipeline: the doubles that are given, and for the rest the real ones that the configuration
/// names.
pub(crate) async fn parts(
    config: &AgentConfig,
    repos: Option<&MemoryRepos>,
    deployer: Option<&MemoryDeployer>,
    routes: Option<&MemoryRoutes>,
) -> Result<Parts, Failure> {
    let mut parts = match (repos, deployer) {
        (Some(repos), Some(deployer)) => Parts::new(Arc::new(repos.repos.clone()), Arc::new(deployer.deployer.clone())),
        _ => {
            let mut parts = Parts::real(config).await.map_err(|error| Failure::settings(chain(&error)))?;
            if let Some(repos) = repos {
                parts.source = Arc::new(repos.repos.clone());
            }
            if let Some(deployer) = deployer {
                parts.deployer = Arc::new(deployer.deployer.clone());
            }
            parts
        }
    };
    if let Some(routes) = routes {
        parts = parts.routes(Arc::new(routes.routes.clone()));
    }
    Ok(parts)
}

/// Repositories in memory.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct MemoryRepos {
    repos: testing::MemoryRepos,
}

#[pymethods]
impl MemoryRepos {
    #[new]
    #[pyo3(signature = (directory=None))]
    fn py_new(directory: Option<std::path::PathBuf>) -> Self {
        let repos = testing::MemoryRepos::default();
        Self { repos: directory.map_or(repos.clone(), |directory| repos.in_dir(directory)) }
    }

    /// Adds a repo, by its name or by its configuration as JSON.
    #[pyo3(signature = (name, spec=None))]
    fn add(&self, py: Python<'_>, name: &str, spec: Option<&str>) -> PyResult<()> {
        let add = || {
            let name: RepoName = name.parse().map_err(|error| invalid(&error))?;
            match spec {
                Some(spec) => drop(self.repos.clone().spec(read(spec)?)),
                None => drop(self.repos.clone().repo(name.as_str())),
            }
            Ok(())
        };
        add().map_err(|failure: Failure| failure.into_err(py))
    }

    /// Puts the tip of a branch at a new commit of these files, and answers the commit.
    fn push(&self, py: Python<'_>, repo: &str, branch: &str, files: Vec<(String, String)>) -> PyResult<String> {
        let push = || {
            let repo: RepoName = repo.parse().map_err(|error| invalid(&error))?;
            let branch: BranchName = branch.parse().map_err(|error| invalid(&error))?;
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            Ok(self.repos.push(repo.as_str(), branch.as_str(), &files).to_string())
        };
        push().map_err(|failure: Failure| failure.into_err(py))
    }

    /// The configurations of its repos, as JSON.
    fn specs(&self, py: Python<'_>) -> PyResult<String> {
        write(&self.repos.repos()).map_err(|failure| failure.into_err(py))
    }

    /// Accepts only this user and password from now on.
    fn accept(&self, user: &str, password: &str) {
        drop(self.repos.clone().accept(user, password));
    }

    /// Whether checkouts fail from now on.
    fn fail(&self, fail: bool) {
        self.repos.fail_prepare(fail);
    }

    /// Whether checkouts wait from now on until they are cancelled.
    fn hang(&self, hang: bool) {
        self.repos.block_prepare(hang);
    }
}

/// A machine in memory.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct MemoryDeployer {
    deployer: testing::MemoryDeployer,
}

#[pymethods]
impl MemoryDeployer {
    #[new]
    fn py_new() -> Self {
        Self { deployer: testing::MemoryDeployer::default() }
    }

    /// Behaves so from now on.
    fn behave(&self, py: Python<'_>, behaviour: &str) -> PyResult<()> {
        self.deployer.behave(match behaviour {
            "works" => Behaviour::Works,
            "build-fails" => Behaviour::BuildFails,
            "build-hangs" => Behaviour::BuildHangs,
            "start-hangs" => Behaviour::StartHangs,
            "start-fails" => Behaviour::StartFails,
            "crashes" => Behaviour::Crashes,
            "never-healthy" => Behaviour::NeverHealthy,
            "revert-fails" => Behaviour::RevertFails,
            "engine-away" => Behaviour::EngineAway,
            "engine-hangs" => Behaviour::EngineHangs,
            other => return Err(Failure::settings(format!("{other:?} is no behaviour")).into_err(py)),
        });
        Ok(())
    }

    /// Lets what never became healthy do so.
    fn make_healthy(&self) {
        self.deployer.make_healthy();
    }

    /// Has a program that commands may run do so from now on; without a code, it goes on until it is given up.
    #[pyo3(signature = (name, stdout, stderr, code))]
    fn has_program(&self, name: String, stdout: &str, stderr: &str, code: Option<i64>) {
        let lines = |stream, text: &str| -> Vec<_> {
            text.lines().map(|line| LogLine { stream, line: line.to_owned() }).collect()
        };
        let lines = [lines(LogStream::Stdout, stdout), lines(LogStream::Stderr, stderr)].concat();
        self.deployer.has_program(name, Ran { lines, exit_code: code });
    }

    /// The commands that run now, as JSON.
    fn commands(&self, py: Python<'_>) -> PyResult<String> {
        write(&self.deployer.commands()).map_err(|failure| failure.into_err(py))
    }

    /// How many builds were begun.
    #[getter]
    fn builds(&self) -> u64 {
        self.deployer.builds()
    }

    /// How often an instance was told to reload.
    #[getter]
    fn reloads(&self) -> u64 {
        self.deployer.reloads()
    }

    /// What answers its port now, as JSON.
    fn answering(&self, py: Python<'_>) -> PyResult<String> {
        write(&self.deployer.answering()).map_err(|failure| failure.into_err(py))
    }
}

/// A gateway in memory.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct MemoryRoutes {
    routes: testing::MemoryRoutes,
}

impl MemoryRoutes {
    fn services(services: &[(String, String)]) -> Result<Vec<(&str, &str)>, Failure> {
        for (service, _) in services {
            service.parse::<ServiceName>().map_err(|error| invalid(&error))?;
        }
        Ok(services.iter().map(|(service, url)| (service.as_str(), url.as_str())).collect())
    }
}

#[pymethods]
impl MemoryRoutes {
    #[new]
    fn py_new(py: Python<'_>, branch: &str, services: Vec<(String, String)>) -> PyResult<Self> {
        let made = Self { routes: testing::MemoryRoutes::default() };
        made.switch(py, branch, services)?;
        Ok(made)
    }

    /// What a fresh checkout does.
    fn switch(&self, py: Python<'_>, branch: &str, services: Vec<(String, String)>) -> PyResult<()> {
        let switch = || {
            let branch: BranchName = branch.parse().map_err(|error| invalid(&error))?;
            self.routes.switch(branch.as_str(), Self::services(&services)?);
            Ok(())
        };
        switch().map_err(|failure: Failure| failure.into_err(py))
    }

    /// What a person with an editor does.
    fn edit_by_hand(&self, py: Python<'_>, service: &str, value: &str) -> PyResult<()> {
        let edit = || {
            let service: ServiceName = service.parse().map_err(|error| invalid(&error))?;
            self.routes.edit_by_hand(service.as_str(), value);
            Ok(())
        };
        edit().map_err(|failure: Failure| failure.into_err(py))
    }

    /// Whether it routes per request from the next change on.
    fn route_per_request(&self, on: bool) {
        self.routes.route_per_request(on);
    }

    /// The values in the file now, by service, as JSON.
    fn file(&self, py: Python<'_>) -> PyResult<String> {
        write(&self.routes.file()).map_err(|failure| failure.into_err(py))
    }

    /// How often it was reloaded.
    #[getter]
    fn reloads(&self) -> u64 {
        self.routes.reloads()
    }

    /// Whether reloads fail from now on.
    fn fail(&self, fail: bool) {
        self.routes.fail_reload(fail);
    }

    /// Whether changes do not come to an end from now on.
    fn hang(&self, hang: bool) {
        self.routes.hang(hang);
    }
}

/// A git host on 127.0.0.1 with basic authentication.
#[pyclass(frozen, module = "sdp._sdp")]
#[derive(Debug)]
pub(crate) struct GitHost {
    host: OfProcess<sdp_git::testing::GitHost>,
}

impl GitHost {
    fn host(&self, py: Python<'_>) -> PyResult<&sdp_git::testing::GitHost> {
        self.host.get().ok_or_else(|| Failure::forked("this git host").into_err(py))
    }
}

#[pymethods]
impl GitHost {
    #[new]
    fn py_new(py: Python<'_>, users: Vec<(String, String)>) -> PyResult<Self> {
        let users: Vec<_> = users.iter().map(|(name, password)| (name.as_str(), password.as_str())).collect();
        let host = finish(py, sdp_git::testing::GitHost::start(&users))?;
        let host = host.map_err(|error| Failure::settings(chain(&error)).into_err(py))?;
        Ok(Self { host: OfProcess::new(host) })
    }

    /// The remote of a repo.
    fn url(&self, py: Python<'_>, repo: &str) -> PyResult<String> {
        Ok(self.host(py)?.url(repo))
    }

    /// Makes an empty repository.
    fn create_repo(&self, py: Python<'_>, repo: &str) -> PyResult<()> {
        let host = self.host(py)?;
        let repo: RepoName = repo.parse().map_err(|error| invalid(&error).into_err(py))?;
        let made = finish(py, host.create_repo(repo.as_str()))?;
        made.map_err(|error| Failure::settings(chain(&error)).into_err(py))
    }

    /// Commits exactly these files onto a branch, which begins at `parent`, and answers the commit.
    #[pyo3(signature = (repo, branch, parent, files, message))]
    fn commit(
        &self,
        py: Python<'_>,
        repo: &str,
        branch: &str,
        parent: Option<&str>,
        files: Vec<(String, String)>,
        message: &str,
    ) -> PyResult<String> {
        let host = self.host(py)?;
        let repo: RepoName = repo.parse().map_err(|error| invalid(&error).into_err(py))?;
        let branch: BranchName = branch.parse().map_err(|error| invalid(&error).into_err(py))?;
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_bytes())).collect();
        let commit = finish(py, host.commit(repo.as_str(), branch.as_str(), parent, &files, message))?;
        let commit = commit.map_err(|error| Failure::settings(chain(&error)).into_err(py))?;
        Ok(commit.to_string())
    }

    /// Behaves so from now on: `good`, `broken`, `hanging`, `not-git`.
    fn behave(&self, py: Python<'_>, mood: &str) -> PyResult<()> {
        self.host(py)?.set_mood(match mood {
            "good" => Mood::Good,
            "broken" => Mood::Broken,
            "hanging" => Mood::Hanging,
            "not-git" => Mood::NotGit,
            other => return Err(Failure::settings(format!("{other:?} is no behaviour")).into_err(py)),
        });
        Ok(())
    }

    /// The requests so far: method, path and status.
    fn requests(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.host(py)?.requests())
    }
}
