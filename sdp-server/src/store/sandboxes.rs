//! Sandboxes: what they are made of, and what is to be done for them. When one is gone, its
//! deployments stay as history.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use sdp_core::{
    AgentName, Deployment, DeploymentId, EnvironmentName, RepoName, RouteTarget, Sandbox, SandboxName, SandboxState,
    ServiceName, ServiceSpec, Services, Shape, UserName,
    api::{ListedSandbox, Page, SandboxFilter},
};
use serde::{Deserialize, Serialize};

use super::{
    Expected, Store, StoreError, Version,
    error::is_taken,
    routing::give_key,
    values::{json, micros, text, time, to_json},
};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// A sandbox with all that is kept of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRecord {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// What it is made of.
    pub shape: Shape,
    /// When it was last used: made, deployed into, given a route, looked at, woken.
    pub used_at: Timestamp,
    /// The deployments that its sleep stopped.
    pub slept: Vec<DeploymentId>,
    /// Whether its wanted routes are still to be set.
    pub routes_due: bool,
    /// While it is deleted: the agents that have nothing of it any more.
    pub torn_down: Vec<AgentName>,
    /// What it still has of services that were taken out of it.
    pub removing: Vec<Removal>,
    /// What could not be done for it yet.
    pub problem: Option<String>,
}

/// What an agent may still have of a service that was taken out of its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The agent.
    pub agent: AgentName,
    /// The service's repo.
    pub repo: RepoName,
}

impl Store {
    /// Keeps a new sandbox of this shape. Times are kept to the microsecond.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Deleting`] while an earlier one of its name is torn down.
    pub async fn insert_sandbox(&self, sandbox: &Sandbox, shape: &Shape) -> Result<(), StoreError> {
        let (sandbox, shape) = (sandbox.clone(), shape.clone());
        self.writer.write(move |connection| insert(connection, &sandbox, &shape)).await
    }

    /// The sandbox of that name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox(&self, name: &SandboxName) -> Result<Option<Sandbox>, StoreError> {
        Ok(self.sandbox_record(name).await?.map(|record| record.sandbox))
    }

    /// The sandbox of that name, with all that is kept of it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_record(&self, name: &SandboxName) -> Result<Option<SandboxRecord>, StoreError> {
        let name = name.clone();
        self.readers.find(move |connection| load(connection, &name)).await
    }

    /// Every sandbox, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, StoreError> {
        Ok(self.sandbox_records().await?.into_iter().map(|record| record.sandbox).collect())
    }

    /// One page of sandboxes, by name. A limit out of range is taken to the nearest allowed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandboxes_page(&self, filter: &SandboxFilter) -> Result<Page<ListedSandbox>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |connection| page(connection, &filter)).await
    }

    /// Every sandbox with all that is kept of it, by name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn sandbox_records(&self) -> Result<Vec<SandboxRecord>, StoreError> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM sandboxes ORDER BY name")?;
                let mut rows = statement.query([])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(from_row(row)?);
                }
                Ok(found)
            })
            .await
    }

    /// Moves a sandbox's end, and sets whom it is shared with; what is absent stays. None when there is none.
    ///
    /// # Errors
    /// [`StoreError::Deleting`]; [`StoreError::Changed`].
    pub async fn change_sandbox(
        &self,
        name: &SandboxName,
        expected: &Expected,
        expires_at: Option<Timestamp>,
        shared_with: Option<BTreeSet<UserName>>,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let (name, expected) = (name.clone(), expected.clone());
        self.writer
            .write(move |connection| {
                let Some(mut record) = load(connection, &name)? else { return Ok(None) };
                record.admit()?;
                expected.check("sandbox", name.as_str(), &record.versioned())?;
                let sandbox = &mut record.sandbox;
                sandbox.expires_at = expires_at.unwrap_or(sandbox.expires_at);
                if let Some(shared_with) = shared_with {
                    sandbox.shared_with = shared_with;
                }
                save(connection, &record)?;
                Ok(Some(record))
            })
            .await
    }

    /// Takes note that a sandbox is used: it goes to sleep later, and is no longer asleep if `wakes`.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn use_sandbox(&self, name: &SandboxName, wakes: bool) -> Result<Option<SandboxRecord>, StoreError> {
        let now = Timestamp::now();
        self.change(name, move |record| record.used(now, wakes)).await
    }

    /// Puts a sandbox to sleep, unless it was used after `used_at`. None when there is none, or it was.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn put_to_sleep(
        &self,
        name: &SandboxName,
        used_at: Option<Timestamp>,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let unused = move |record: &SandboxRecord| used_at.is_none_or(|used_at| record.used_at <= used_at);
        self.change_if(name, unused, |record| record.sandbox.state = SandboxState::Asleep).await
    }

    /// Keeps which deployments a sandbox's sleep has stopped and its waking has not started yet. One that woke
    /// meanwhile stays awake.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn set_slept(&self, name: &SandboxName, slept: Vec<DeploymentId>) -> Result<(), StoreError> {
        self.change(name, move |record| record.slept = slept).await.map(drop)
    }

    /// Keeps where a sandbox's routes are wanted to go, as a person has just set them.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn want_routes(
        &self,
        name: &SandboxName,
        targets: BTreeMap<ServiceName, RouteTarget>,
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        self.change(name, move |record| record.want_routes(targets, now)).await.map(drop)
    }

    /// Takes services out of a sandbox. What their agents have of them is still to be removed.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn take_out(
        &self,
        name: &SandboxName,
        repos: BTreeSet<RepoName>,
        has: Vec<Removal>,
        deployments: BTreeSet<DeploymentId>,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let now = Timestamp::now();
        self.change(name, move |record| {
            record.used(now, false);
            for repo in &repos {
                record.shape.services.remove(repo);
            }
            // Waking it must not ask for what is gone.
            record.slept.retain(|id| !deployments.contains(id));
            for removal in has {
                if !record.removing.contains(&removal) {
                    record.removing.push(removal);
                }
            }
        })
        .await
    }

    /// Keeps that an agent has nothing more of a service that was taken out.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn set_taken_out(&self, name: &SandboxName, removal: Removal) -> Result<(), StoreError> {
        self.change(name, move |record| record.removing.retain(|other| *other != removal)).await.map(drop)
    }

    /// Keeps whether a sandbox's wanted routes are still to be set.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub async fn set_routes_due(&self, name: &SandboxName, due: bool) -> Result<(), StoreError> {
        let changed = self.change(name, move |record| {
            record.routes_due = due;
            record.problem = None;
        });
        changed.await.map(drop)
    }

    /// Keeps that an agent has nothing more of a sandbox that is being deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn add_torn_down(&self, name: &SandboxName, agent: &AgentName) -> Result<(), StoreError> {
        let (name, agent) = (name.clone(), agent.clone());
        self.writer
            .write(move |connection| {
                let query = "UPDATE sandboxes SET torn_down = json_insert(torn_down, '$[#]', ?2)
                    WHERE name = ?1 AND state = 'deleting'";
                connection.prepare_cached(query)?.execute([name.as_str(), agent.as_str()])?;
                Ok(())
            })
            .await
    }

    /// Keeps what stands in the way of a sandbox's upkeep, also while it is deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn set_problem(&self, name: &SandboxName, problem: Option<String>) -> Result<(), StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                let query = "UPDATE sandboxes SET problem = ?2 WHERE name = ?1 AND problem IS NOT ?2";
                connection.prepare_cached(query)?.execute(params![name.as_str(), problem])?;
                Ok(())
            })
            .await
    }

    /// Begins to delete a sandbox: nothing is deployed into it any more. None when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn begin_delete(&self, name: &SandboxName) -> Result<Option<SandboxRecord>, StoreError> {
        self.begin_delete_if(name, &Expected::ANY).await
    }

    /// As [`begin_delete`](Self::begin_delete), if the sandbox is as expected.
    ///
    /// # Errors
    /// [`StoreError::Changed`].
    pub async fn begin_delete_if(
        &self,
        name: &SandboxName,
        expected: &Expected,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let (name, expected) = (name.clone(), expected.clone());
        self.writer
            .write(move |connection| {
                let Some(before) = load(connection, &name)? else { return Ok(None) };
                expected.check("sandbox", name.as_str(), &before.versioned())?;
                let query = "UPDATE sandboxes SET state = 'deleting', problem = NULL
                    WHERE name = ?1 AND state <> 'deleting'";
                connection.prepare_cached(query)?.execute([name.as_str()])?;
                load(connection, &name)
            })
            .await
    }

    /// Begins to delete every sandbox whose time is over at `now`. Gives them.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn begin_delete_expired(&self, now: Timestamp) -> Result<Vec<SandboxName>, StoreError> {
        self.writer
            .write(move |connection| {
                let query = "UPDATE sandboxes SET state = 'deleting', problem = NULL
                    WHERE expires_at <= ?1 AND state <> 'deleting' RETURNING name";
                let mut statement = connection.prepare_cached(query)?;
                let mut rows = statement.query([micros(now)])?;
                let mut names = Vec::new();
                while let Some(row) = rows.next()? {
                    names.push(text(row, "name")?);
                }
                Ok(names)
            })
            .await
    }

    /// Forgets a sandbox that was torn down. False when there is none, or it is not being deleted.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn end_delete(&self, name: &SandboxName) -> Result<bool, StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                let query = "DELETE FROM sandboxes WHERE name = ?1 AND state = 'deleting'";
                Ok(connection.prepare_cached(query)?.execute([name.as_str()])? > 0)
            })
            .await
    }

    async fn change(
        &self,
        name: &SandboxName,
        change: impl FnOnce(&mut SandboxRecord) + Send + 'static,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        self.change_if(name, |_| true, change).await
    }

    /// Changes what is kept of a sandbox that is not being deleted, if it is as wanted.
    async fn change_if(
        &self,
        name: &SandboxName,
        wanted: impl FnOnce(&SandboxRecord) -> bool + Send + 'static,
        change: impl FnOnce(&mut SandboxRecord) + Send + 'static,
    ) -> Result<Option<SandboxRecord>, StoreError> {
        let name = name.clone();
        self.writer
            .write(move |connection| {
                let Some(mut record) = load(connection, &name)?.filter(wanted) else { return Ok(None) };
                record.admit()?;
                change(&mut record);
                save(connection, &record)?;
                Ok(Some(record))
            })
            .await
    }
}

impl SandboxRecord {
    /// Its version: of the sandbox itself and its shape, not of what is deployed into it.
    pub fn version(&self) -> Version {
        Version::of(&self.versioned())
    }

    fn versioned(&self) -> (&Sandbox, &Shape) {
        (&self.sandbox, &self.shape)
    }

    /// Refuses what cannot be done to a sandbox that is being deleted.
    ///
    /// # Errors
    /// [`StoreError::Deleting`].
    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        match self.sandbox.state {
            SandboxState::Deleting => Err(StoreError::Deleting(self.sandbox.name.clone())),
            _ => Ok(()),
        }
    }

    /// Where routes are wanted to go, which is a use of it.
    pub(super) fn want_routes(&mut self, targets: BTreeMap<ServiceName, RouteTarget>, now: Timestamp) {
        self.used(now, false);
        self.problem = None;
        for (service, target) in targets {
            match target {
                RouteTarget::Ocp => self.shape.routes.remove(&service),
                target => self.shape.routes.insert(service, target),
            };
        }
    }

    fn used(&mut self, now: Timestamp, wakes: bool) {
        self.used_at = self.used_at.max(now);
        if wakes {
            self.sandbox.state = SandboxState::Active;
        }
    }
}

/// Takes a new deployment over into the shape of its sandbox, which it wakes. One whose sandbox the database
/// does not know changes nothing.
pub(super) fn deployed(connection: &Connection, deployment: &Deployment) -> Result<(), StoreError> {
    let Some(sandbox) = &deployment.key.sandbox else { return Ok(()) };
    let Some(mut record) = load(connection, sandbox)? else { return Ok(()) };
    record.admit()?;
    record.used(deployment.created_at, true);
    // It is there again.
    record.removing.retain(|removal| removal.repo != deployment.key.repo || removal.agent != deployment.agent);
    record.shape.services.set(ServiceSpec {
        repo: deployment.key.repo.clone(),
        branch: deployment.branch.clone(),
        host_port: deployment.host_port,
        env: deployment.env.clone(),
    });
    save(connection, &record)
}

fn insert(connection: &Connection, sandbox: &Sandbox, shape: &Shape) -> Result<(), StoreError> {
    if let Some(earlier) = load(connection, &sandbox.name)? {
        earlier.admit()?;
    }
    let inserted = connection
        .prepare_cached(
            "INSERT INTO sandboxes (name, environment, owner, created_at, expires_at, state, services, routes, used_at,
                shared_with)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?4, ?9)",
        )?
        .execute(params![
            sandbox.name.as_str(),
            sandbox.environment.as_str(),
            sandbox.owner.as_str(),
            micros(sandbox.created_at),
            micros(sandbox.expires_at),
            sandbox.state.as_str(),
            to_json(&shape.services),
            to_json(&shape.routes),
            to_json(&sandbox.shared_with),
        ]);
    match inserted {
        Ok(_) => give_key(connection, &sandbox.name),
        Err(error) if is_taken(&error) => Err(StoreError::Exists { what: "sandbox", name: sandbox.name.to_string() }),
        Err(error) => Err(error.into()),
    }
}

/// Writes what can change.
pub(super) fn save(connection: &Connection, record: &SandboxRecord) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE sandboxes SET expires_at = ?2, state = ?3, services = ?4, routes = ?5, used_at = ?6, slept = ?7,
                routes_due = ?8, problem = ?9, shared_with = ?10, removing = ?11
            WHERE name = ?1",
        )?
        .execute(params![
            record.sandbox.name.as_str(),
            micros(record.sandbox.expires_at),
            record.sandbox.state.as_str(),
            to_json(&record.shape.services),
            to_json(&record.shape.routes),
            micros(record.used_at),
            to_json(&record.slept),
            record.routes_due,
            record.problem,
            to_json(&record.sandbox.shared_with),
            to_json(&record.removing),
        ])?;
    Ok(())
}

fn page(connection: &Connection, filter: &SandboxFilter) -> Result<Page<ListedSandbox>, StoreError> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let query = "SELECT * FROM sandboxes
        WHERE name > :after AND (:owner IS NULL OR owner = :owner)
            AND (:environment IS NULL OR environment = :environment) AND (:state IS NULL OR state = :state)
        ORDER BY name LIMIT :limit";
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(named_params! {
        ":after": filter.after.as_ref().map_or("", SandboxName::as_str),
        ":owner": filter.owner.as_ref().map(UserName::as_str),
        ":environment": filter.environment.as_ref().map(EnvironmentName::as_str),
        ":state": filter.state.map(SandboxState::as_str),
        ":limit": limit + 1,
    })?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let SandboxRecord { sandbox, shape, .. } = from_row(row)?;
        let branches = shape.services.iter().map(|it| (it.repo.clone(), it.branch.clone())).collect();
        items.push(ListedSandbox { sandbox, branches });
    }
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| last.sandbox.name.to_string());
    Ok(Page { items, next })
}

pub(super) fn load(connection: &Connection, name: &SandboxName) -> Result<Option<SandboxRecord>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM sandboxes WHERE name = ?1")?;
    statement.query_row([name.as_str()], |row| Ok(from_row(row))).optional()?.transpose()
}

fn from_row(row: &Row<'_>) -> Result<SandboxRecord, StoreError> {
    let services: Services = json(row, "services")?;
    Ok(SandboxRecord {
        sandbox: Sandbox {
            name: text(row, "name")?,
            environment: text(row, "environment")?,
            owner: text(row, "owner")?,
            shared_with: json(row, "shared_with")?,
            created_at: time(row, "created_at")?,
            expires_at: time(row, "expires_at")?,
            state: text(row, "state")?,
        },
        shape: Shape { services, routes: json(row, "routes")? },
        used_at: time(row, "used_at")?,
        slept: json(row, "slept")?,
        routes_due: row.get("routes_due")?,
        torn_down: json(row, "torn_down")?,
        removing: json(row, "removing")?,
        problem: row.get("problem")?,
    })
}
