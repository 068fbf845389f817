//! What is done with Swarm services. All of it is idempotent and waits for an engine that is away.

use std::{collections::HashMap, time::Duration};

use bollard::{
    errors::Error,
    models::{Service, ServiceSpec, Task, TaskState},
    query_parameters::{ListServicesOptions, ListTasksOptionsBuilder, UpdateServiceOptionsBuilder},
};
use sdp_core::{DeployError, HostPort, Instance, InstanceKey, InstanceState};

use super::{
    engine::{self, Engine},
    labels,
};

/// How often a service is changed anew when somebody else changed it meanwhile.
const TRIES: usize = 5;

/// The label of a service that was stopped for a newer one to take its place.
pub(crate) const PARKED: &str = "sdp.parked";

/// The label by which the engine tells whose a service's container is.
pub(crate) const SERVICE_ID: &str = "com.docker.swarm.service.id";

/// A service as the swarm shows it.
#[derive(Debug, Clone)]
pub(crate) struct FoundService {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: HashMap<String, String>,
    version: u64,
    spec: ServiceSpec,
}

impl FoundService {
    fn new(service: Service) -> Option<Self> {
        let spec = service.spec?;
        Some(Self {
            id: service.id?,
            name: spec.name.clone()?,
            labels: spec.labels.clone().unwrap_or_default(),
            version: service.version?.index?,
            spec,
        })
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.labels.contains_key(PARKED)
    }

    pub(crate) fn is_of(&self, owner: &str, key: &InstanceKey) -> bool {
        self.labels.get(labels::OWNER).is_some_and(|it| it == owner) && labels::key(&self.labels).as_ref() == Some(key)
    }

    /// Whether it is meant to run.
    pub(crate) fn is_on(&self) -> bool {
        let replicated = self.spec.mode.as_ref().and_then(|mode| mode.replicated.as_ref());
        replicated.and_then(|replicated| replicated.replicas).unwrap_or(1) > 0
    }

    /// Whether it publishes the port, or is ours and listens on it in the host's network.
    pub(crate) fn holds(&self, port: HostPort) -> bool {
        let ports = self.spec.endpoint_spec.iter().filter_map(|endpoint| endpoint.ports.as_ref()).flatten();
        let mut published = ports.filter_map(|config| config.published_port);
        published.any(|published| published == i64::from(port.get()))
            || self.labels.get(labels::PORT).is_some_and(|label| *label == port.to_string())
    }

    pub(crate) fn describe(&self) -> String {
        match labels::key(&self.labels) {
            Some(InstanceKey { sandbox: Some(sandbox), repo }) => {
                format!("sandbox {sandbox}, repo {repo} (service {})", self.name)
            }
            Some(InstanceKey { sandbox: None, repo }) => {
                format!("the quick deploy of {repo} (service {})", self.name)
            }
            None => format!("service {}, which is not SDP's", self.name),
        }
    }

    /// The instance that it is, with its tasks, the newest first.
    pub(crate) fn instance(&self, tasks: &[Task]) -> Option<Instance> {
        let mut instance = labels::instance(&self.id, &self.name, &self.labels, self.state(tasks))?;
        instance.parked = self.is_parked();
        let runs = tasks.iter().find(|task| state(task) == TaskState::RUNNING);
        let since = runs.and_then(|task| task.status.as_ref()?.timestamp.as_ref()?.parse().ok());
        instance.started_at = since;
        instance.restarts = tasks.iter().filter(|task| has_crashed(task)).count().try_into().unwrap_or(u32::MAX);
        Some(instance)
    }

    fn state(&self, tasks: &[Task]) -> InstanceState {
        if tasks.iter().any(|task| state(task) == TaskState::RUNNING) {
            return InstanceState::Running;
        }
        let ended = tasks.iter().find(|task| has_ended(task)).map(exit_code);
        match (self.is_on(), ended) {
            (true, Some(exit_code)) => InstanceState::Restarting { exit_code },
            (true, None) => InstanceState::Created,
            (false, exit_code) => InstanceState::Exited { exit_code: exit_code.unwrap_or(0) },
        }
    }
}

pub(crate) fn state(task: &Task) -> TaskState {
    task.status.as_ref().and_then(|status| status.state).unwrap_or(TaskState::NEW)
}

/// Whether a task is at its end.
pub(crate) fn has_ended(task: &Task) -> bool {
    use TaskState::{COMPLETE, FAILED, ORPHANED, REJECTED, REMOVE, SHUTDOWN};
    matches!(state(task), COMPLETE | FAILED | ORPHANED | REJECTED | REMOVE | SHUTDOWN)
}

/// Whether a task ended by itself.
pub(crate) fn has_crashed(task: &Task) -> bool {
    matches!(state(task), TaskState::COMPLETE | TaskState::FAILED)
}

pub(crate) fn exit_code(task: &Task) -> i64 {
    let status = task.status.as_ref().and_then(|status| status.container_status.as_ref());
    status.and_then(|status| status.exit_code).unwrap_or(0)
}

/// What a node says of a task that does not run.
pub(crate) fn complaint(task: &Task) -> Option<&str> {
    task.status.as_ref()?.err.as_deref().filter(|err| !err.is_empty())
}

/// The container of a task, once it has one.
pub(crate) fn container(task: &Task) -> Option<&str> {
    task.status.as_ref()?.container_status.as_ref()?.container_id.as_deref().filter(|id| !id.is_empty())
}

impl Engine {
    /// Every service of the swarm.
    pub(crate) async fn services(&self) -> Result<Vec<FoundService>, DeployError> {
        let listed = self.patiently(|| self.docker.list_services(None::<ListServicesOptions>)).await;
        Ok(listed.map_err(engine::failed("list services"))?.into_iter().filter_map(FoundService::new).collect())
    }

    /// A service's tasks, the newest first.
    pub(crate) async fn tasks(&self, service: &str) -> Result<Vec<Task>, DeployError> {
        let filters = HashMap::from([("service", vec![service])]);
        let options = || Some(ListTasksOptionsBuilder::new().filters(&filters).build());
        let listed = self.patiently(|| self.docker.list_tasks(options())).await;
        let mut tasks = match listed {
            // Services are found by name or id; one that is gone is not.
            Err(error) if engine::is_not_found(&error) => Vec::new(),
            listed => listed.map_err(engine::failed("list a service's tasks"))?,
        };
        tasks.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        Ok(tasks)
    }

    /// Makes a service; answers its id.
    pub(crate) async fn create_service(&self, spec: &ServiceSpec) -> Result<String, Error> {
        match self.patiently(|| self.docker.create_service(spec.clone(), None)).await {
            Ok(created) => Ok(created.id.unwrap_or_default()),
            // A try that was cut off made it: names have a deployment's id in them.
            Err(error) if engine::is_conflict(&error) => {
                let name = spec.name.as_deref().unwrap_or_default();
                let made = self.patiently(|| self.docker.inspect_service(name, None)).await?;
                Ok(made.id.unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    /// Changes a service; one that is gone is left alone.
    pub(crate) async fn change_service(
        &self,
        id: &str,
        change: impl Fn(&mut ServiceSpec) + Send + Sync,
    ) -> Result<(), DeployError> {
        let failed = engine::failed("change a service");
        let mut last = None;
        for _ in 0..TRIES {
            let inspected = match self.patiently(|| self.docker.inspect_service(id, None)).await {
                Err(error) if engine::is_not_found(&error) => return Ok(()),
                inspected => inspected.map_err(&failed)?,
            };
            let Some(mut found) = FoundService::new(inspected) else { return Ok(()) };
            change(&mut found.spec);
            let version = i32::try_from(found.version).unwrap_or(i32::MAX);
            let options = || UpdateServiceOptionsBuilder::new().version(version).build();
            match self.patiently(|| self.docker.update_service(id, found.spec.clone(), options(), None)).await {
                Ok(_) => return Ok(()),
                // Somebody else changed it since the look, or a try that was cut off did.
                Err(error) => last = Some(error),
            }
        }
        Err(failed(last.unwrap_or(Error::RequestTimeoutError)))
    }

    /// Says how many tasks a service has, none or one.
    pub(crate) async fn scale(&self, id: &str, on: bool) -> Result<(), DeployError> {
        self.change_service(id, |spec| set_replicas(spec, on)).await
    }

    /// Removes a service, and waits until its containers on this machine are gone.
    pub(crate) async fn remove_service(&self, id: &str, limit: Duration) -> Result<(), DeployError> {
        let removed = self.patiently(|| self.docker.delete_service(id)).await;
        engine::unless_gone(removed).map_err(engine::failed("remove a service"))?;
        self.until_quiet(id, limit).await
    }

    /// Waits until no task of a service runs, and no container on this machine.
    pub(crate) async fn until_quiet(&self, id: &str, limit: Duration) -> Result<(), DeployError> {
        let quiet = async {
            loop {
                let runs = self.tasks(id).await?.iter().any(|task| !has_ended(task));
                let here = self.containers().await?.into_iter();
                let here = here.filter(|it| it.labels.get(SERVICE_ID).is_some_and(|service| service == id));
                if !runs && !here.into_iter().any(|found| found.running) {
                    return Ok(());
                }
                tokio::time::sleep(super::LOOK_AGAIN).await;
            }
        };
        let timeout = || DeployError::Timeout {
            what: "stopping a service".into(),
            limit: sdp_core::model::units::format_duration(limit),
        };
        tokio::time::timeout(limit, quiet).await.unwrap_or_else(|_| Err(timeout()))
    }
}

pub(crate) fn set_replicas(spec: &mut ServiceSpec, on: bool) {
    if let Some(replicated) = spec.mode.as_mut().and_then(|mode| mode.replicated.as_mut()) {
        replicated.replicas = Some(on.into());
    }
}
