//! What is done with containers, the same for every deployer on the engine. All of it is idempotent
//! and waits for an engine that is away.

use bollard::{
    models::{ContainerCpuStats, ContainerInspectResponse, ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::{
        InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions, StatsOptionsBuilder,
        StopContainerOptionsBuilder,
    },
};
use futures_util::StreamExt;
use sdp_core::{DeployError, Instance, InstanceKey, InstanceStats, LogLines, LogOptions};

use super::{
    engine::{self, Engine},
    found::{Found, state_of},
    output::{self, FOLLOW},
};
use crate::output::{LAST_LINES, texts};

impl Engine {
    /// The id of an image on the machine; none when it is not there.
    pub(crate) async fn image_id(&self, image: &str) -> Result<Option<String>, DeployError> {
        match self.patiently(|| self.docker.inspect_image(image)).await {
            Ok(found) => Ok(Some(found.id.unwrap_or_default())),
            Err(error) if engine::is_not_found(&error) => Ok(None),
            Err(error) => Err(engine::failed("inspect an image")(error)),
        }
    }

    /// Which of these images are not on the machine.
    pub(crate) async fn missing_images<'a>(&self, images: &[&'a str]) -> Result<Vec<&'a str>, DeployError> {
        let mut missing = Vec::new();
        for image in images {
            if self.image_id(image).await?.is_none() {
                missing.push(*image);
            }
        }
        Ok(missing)
    }

    /// Every container on the machine, ours or not.
    pub(crate) async fn containers(&self) -> Result<Vec<Found>, DeployError> {
        let options = || Some(ListContainersOptionsBuilder::new().all(true).build());
        let all = self.patiently(|| self.docker.list_containers(options())).await;
        Ok(all.map_err(engine::failed("list containers"))?.into_iter().filter_map(Found::new).collect())
    }

    /// One container in full; none when it is gone.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, DeployError> {
        match self.patiently(|| self.docker.inspect_container(id, None::<InspectContainerOptions>)).await {
            Ok(inspected) => Ok(Some(inspected)),
            Err(error) if engine::is_not_found(&error) => Ok(None),
            Err(error) => Err(engine::failed("inspect a container")(error)),
        }
    }

    /// The instance with what only an inspection tells: exit code, start time, restarts.
    pub(crate) async fn inspected(&self, found: &Found) -> Result<Option<Instance>, DeployError> {
        let inspected = self.inspect(&found.id).await?;
        let Some((inspected, mut instance)) = inspected.zip(found.instance()) else { return Ok(None) };
        let state = inspected.state.unwrap_or_default();
        instance.started_at = state.started_at.as_deref().and_then(|at| at.parse().ok());
        instance.restarts = inspected.restart_count.and_then(|count| count.try_into().ok()).unwrap_or(0);
        instance.state = state_of(&state);
        Ok(Some(instance))
    }

    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<(), DeployError> {
        let options = || RenameContainerOptionsBuilder::new().name(name).build();
        let Err(error) = self.patiently(|| self.docker.rename_container(id, options())).await else { return Ok(()) };
        // A try that was cut off may have done it.
        let named = self.inspect(id).await?.and_then(|inspected| inspected.name);
        if named.is_some_and(|now| now.trim_start_matches('/') == name) {
            return Ok(());
        }
        Err(engine::failed("rename a container")(error))
    }

    /// Says whether the engine starts a container again when it ends, or the engine itself was
    /// restarted.
    ///
    /// `always`, not `unless-stopped`: an engine that comes back from a crash stops what still runs,
    /// and takes that for a person's doing. So what is stopped on purpose is told to stay so.
    pub(crate) async fn keep_running(&self, id: &str, keep: bool) -> Result<(), DeployError> {
        let name = if keep { RestartPolicyNameEnum::ALWAYS } else { RestartPolicyNameEnum::NO };
        let policy = RestartPolicy { name: Some(name), maximum_retry_count: None };
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        let updated = self.patiently(|| self.docker.update_container(id, body.clone())).await;
        engine::unless_gone(updated).map_err(engine::failed("set a restart policy"))
    }

    /// Starts a container that is there; one that runs is left as it is.
    pub(crate) async fn start_container(&self, id: &str, name: &str) -> Result<(), DeployError> {
        let started = self.patiently(|| self.docker.start_container(id, None::<StartContainerOptions>)).await;
        engine::unless_gone(started).map_err(engine::not_started(name))
    }

    /// Stops a container within so many seconds.
    pub(crate) async fn stop_container(&self, id: &str, seconds: i32) -> Result<(), DeployError> {
        let options = || Some(StopContainerOptionsBuilder::new().t(seconds).build());
        let stopped = self.patiently(|| self.docker.stop_container(id, options())).await;
        engine::unless_gone(stopped).map_err(engine::failed("stop a container"))
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), DeployError> {
        let options = || Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build());
        let removed = self.patiently(|| self.docker.remove_container(id, options())).await;
        engine::unless_gone(removed).map_err(engine::failed("remove a container"))
    }

    pub(crate) async fn signal(&self, name: &str, signal: &str) -> Result<(), DeployError> {
        let options = || Some(KillContainerOptionsBuilder::new().signal(signal).build());
        let signalled = self.patiently(|| self.docker.kill_container(name, options())).await;
        signalled.map_err(engine::failed("signal a container"))
    }

    /// A container's output.
    pub(crate) fn lines(&self, id: &str, options: LogOptions) -> LogLines {
        let tail = options.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(options.follow).tail(&tail).build();
        let docker = self.docker.clone();
        output::lines(FOLLOW, docker.logs(id, Some(options))).boxed()
    }

    /// The last lines of a program that has ended.
    pub(crate) async fn last_lines(&self, id: &str) -> Vec<String> {
        texts(self.lines(id, LAST_LINES)).await
    }

    /// What a container of `key` uses.
    pub(crate) async fn stats(&self, id: &str, key: &InstanceKey) -> Result<InstanceStats, DeployError> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(false).build();
        let mut samples = Box::pin(self.docker.stats(id, Some(options)));
        let not_found = || DeployError::NotFound { key: key.clone() };
        let (sample, inspected) = tokio::join!(samples.next(), self.inspect(id));
        let sample = sample.ok_or_else(not_found)?.map_err(engine::failed("tell statistics"))?;
        // Where none is set, the statistics have the machine's memory as the limit.
        let limit = inspected?.ok_or_else(not_found)?.host_config.and_then(|host| host.memory);
        let cpu = |stats: Option<&ContainerCpuStats>| {
            let used = stats.and_then(|stats| stats.cpu_usage.as_ref()?.total_usage).unwrap_or(0);
            (used as f64, stats.and_then(|stats| stats.system_cpu_usage).unwrap_or(0) as f64)
        };
        let (used, system) = cpu(sample.cpu_stats.as_ref());
        let (used_before, system_before) = cpu(sample.precpu_stats.as_ref());
        let online = sample.cpu_stats.as_ref().and_then(|stats| stats.online_cpus).unwrap_or(1);
        let passed = system - system_before;
        let cpus = if passed > 0.0 { (used - used_before) / passed * f64::from(online) } else { 0.0 };
        let memory = sample.memory_stats.unwrap_or_default();
        // As `docker stats` does: page cache is not the program's (cgroup v1, v2).
        let counters = memory.stats.unwrap_or_default();
        let cache = counters.get("total_inactive_file").or_else(|| counters.get("inactive_file")).copied().unwrap_or(0);
        Ok(InstanceStats {
            cpus,
            memory_bytes: memory.usage.unwrap_or(0).saturating_sub(cache),
            memory_limit_bytes: limit.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
        })
    }
}
