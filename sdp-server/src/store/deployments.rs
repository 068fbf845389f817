//! Deployments and their stages.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params, params};
use sdp_core::{
    AgentName, Deployment, DeploymentId, DeploymentState, Event, Failure, InstanceKey, Sandbox, StageRecord,
    api::{DeploymentFilter, Page},
};

use super::{
    Store, StoreError,
    error::is_taken,
    fold, ports, sandboxes,
    values::{json, micros, name, optional_json, optional_text, optional_time, text, time, to_json, to_name},
};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

impl Store {
    /// Keeps a new deployment, also as what its sandbox is made of. Times are kept to the microsecond.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Deleting`].
    pub async fn insert_deployment(&self, deployment: &Deployment) -> Result<(), StoreError> {
        let deployment = deployment.clone();
        self.writer.write(move |connection| insert(connection, &deployment)).await
    }

    /// A deployment with its stages.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        self.readers.look(move |connection| load(connection, id)).await
    }

    /// One page of deployments, newest first. A limit out of range is taken to the nearest allowed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn deployments(&self, filter: &DeploymentFilter) -> Result<Page<Deployment>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |connection| page(connection, &filter)).await
    }

    /// The deployments that the pipeline still works on, of one agent or of all, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn active_deployments(&self, agent: Option<&AgentName>) -> Result<Vec<Deployment>, StoreError> {
        let active: Vec<_> = DeploymentState::ALL.into_iter().filter(|state| state.is_active()).collect();
        match agent {
            // There are few, and each agent that connects asks.
            Some(_) => self.readers.look(|connection| in_states(connection, &active, agent)).await,
            None => self.deployments_in(&active, None).await,
        }
    }

    /// The deployments in one of these states, of one agent or of all, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn deployments_in(
        &self,
        states: &[DeploymentState],
        agent: Option<&AgentName>,
    ) -> Result<Vec<Deployment>, StoreError> {
        let (states, agent) = (states.to_vec(), agent.cloned());
        self.readers.read(move |connection| in_states(connection, &states, agent.as_ref())).await
    }

    /// The deployments into a sandbox that are in one of these states, newest first: none of an earlier sandbox of
    /// its name.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn deployments_of(
        &self,
        sandbox: &Sandbox,
        states: &[DeploymentState],
    ) -> Result<Vec<Deployment>, StoreError> {
        let (name, since) = (sandbox.name.clone(), sandbox.created_at);
        let states: Vec<_> = states.iter().map(|state| state.as_str()).collect();
        self.readers
            .read(move |connection| {
                let query = "SELECT * FROM deployments
                    WHERE sandbox = :sandbox AND created_at >= :since
                        AND state IN (SELECT value FROM json_each(:states))
                    ORDER BY id DESC";
                let (sandbox, since, states) = (name.as_str(), micros(since), to_json(&states));
                let values = named_params! { ":sandbox": sandbox, ":since": since, ":states": states };
                select(connection, query, values)
            })
            .await
    }

    /// What runs under `key`; the newest where several agents run it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn running(&self, key: &InstanceKey) -> Result<Option<Deployment>, StoreError> {
        self.readers
            .look(|connection| {
                let query = "SELECT * FROM deployments
                    WHERE state = 'running' AND repo = :repo AND sandbox IS :sandbox
                    ORDER BY id DESC LIMIT 1";
                let sandbox = key.sandbox.as_ref().map(AsRef::<str>::as_ref);
                let values = named_params! { ":repo": key.repo.as_str(), ":sandbox": sandbox };
                let found = select(connection, query, values)?;
                Ok(found.into_iter().next())
            })
            .await
    }

    /// The newest deployment before `deployment` that ran in its place, on its agent, since `since`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn previous_good(
        &self,
        deployment: &Deployment,
        since: Timestamp,
    ) -> Result<Option<Deployment>, StoreError> {
        let Deployment { id, key, agent, commit, env, .. } = deployment.clone();
        self.readers
            .read(move |connection| {
                // One that was superseded in the queue never had a commit.
                let query = "SELECT * FROM deployments
                    WHERE repo = :repo AND id < :id AND sandbox IS :sandbox AND agent = :agent
                    AND state IN ('running', 'stopped', 'superseded') AND commit_id IS NOT NULL
                    AND created_at >= :since
                    AND NOT (commit_id IS :commit AND env = :env)
                    ORDER BY id DESC LIMIT 1";
                let values = named_params! {
                    ":repo": key.repo.as_str(),
                    ":id": id.to_string(),
                    ":sandbox": key.sandbox.as_ref().map(AsRef::<str>::as_ref),
                    ":agent": agent.as_str(),
                    ":since": micros(since),
                    ":commit": commit.as_ref().map(AsRef::<str>::as_ref),
                    ":env": to_json(&env),
                };
                Ok(select(connection, query, values)?.into_iter().next())
            })
            .await
    }

    /// Takes over what `events` say: state, failure, commit, port, URL and stages. An illegal change
    /// of state is ignored with a warning. When the deployment becomes running, what ran before
    /// under its key on its agent becomes superseded. Gives every deployment that changed.
    ///
    /// Events up to [`folded_seq`](Self::folded_seq) change nothing, so that folding them again is
    /// safe; log lines cost no write. Pass events in order, each once the log has it. After an error,
    /// and when the server starts, pass what the log has after `folded_seq`.
    ///
    /// # Errors
    /// [`StoreError::NoDeployment`].
    pub async fn fold_events(&self, id: DeploymentId, events: &[Event]) -> Result<Vec<Deployment>, StoreError> {
        let events: Vec<_> = events.iter().filter(|event| fold::matters(event)).cloned().collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.write(move |connection| fold_all(connection, id, &events)).await
    }

    /// The sequence number of the last event that [`fold_events`](Self::fold_events) took over; 0
    /// when there is none.
    ///
    /// # Errors
    /// [`StoreError::NoDeployment`].
    pub async fn folded_seq(&self, id: DeploymentId) -> Result<u64, StoreError> {
        self.readers.read(move |connection| folded(connection, id)).await
    }

    /// Changes the state by something else than an event: a stop, a cancel in the queue, an agent
    /// that lost it. The state it has already changes nothing. None when there is no such deployment.
    ///
    /// # Errors
    /// [`StoreError::Illegal`].
    pub async fn set_state(
        &self,
        id: DeploymentId,
        state: DeploymentState,
        failure: Option<Failure>,
    ) -> Result<Option<Deployment>, StoreError> {
        let now = Timestamp::now();
        self.writer
            .write(move |connection| {
                let Some(mut deployment) = load(connection, id)? else { return Ok(None) };
                let from = deployment.state;
                if from == state {
                    return Ok(Some(deployment));
                }
                if !fold::enter(&mut deployment, state, failure, now) {
                    return Err(StoreError::Illegal { id, from, to: state });
                }
                update(connection, &deployment)?;
                if state == DeploymentState::Running {
                    supersede(connection, &deployment)?;
                }
                load(connection, id)
            })
            .await
    }
}

pub(super) fn insert(connection: &Connection, d: &Deployment) -> Result<(), StoreError> {
    sandboxes::deployed(connection, d)?;
    let inserted = connection
        .prepare_cached(
            "INSERT INTO deployments (id, sandbox, repo, branch, commit_id, agent, state, failure, host_port, url, env,
            user, created_at, finished_at, chosen_port, rollback_of)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?9, ?15)",
        )?
        .execute(params![
            d.id.to_string(),
            d.key.sandbox.as_ref().map(AsRef::<str>::as_ref),
            d.key.repo.as_str(),
            d.branch.as_str(),
            d.commit.as_ref().map(AsRef::<str>::as_ref),
            d.agent.as_str(),
            d.state.as_str(),
            d.failure.as_ref().map(to_json),
            d.host_port.map(|port| port.get()),
            d.url,
            to_json(&d.env),
            d.user.as_str(),
            micros(d.created_at),
            d.finished_at.map(micros),
            d.rollback_of.map(|id| id.to_string()),
        ]);
    match inserted {
        Ok(_) => save_stages(connection, d),
        Err(error) if is_taken(&error) => Err(StoreError::Exists { what: "deployment", name: d.id.to_string() }),
        Err(error) => Err(error.into()),
    }
}

/// Writes what events can change.
fn update(connection: &Connection, d: &Deployment) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE deployments SET commit_id = ?2, state = ?3, failure = ?4, host_port = ?5, url = ?6, finished_at = ?7
                WHERE id = ?1",
        )?
        .execute(params![
            d.id.to_string(),
            d.commit.as_ref().map(AsRef::<str>::as_ref),
            d.state.as_str(),
            d.failure.as_ref().map(to_json),
            d.host_port.map(|port| port.get()),
            d.url,
            d.finished_at.map(micros),
        ])?;
    ports::follow(connection, d)?;
    save_stages(connection, d)
}

fn save_stages(connection: &Connection, d: &Deployment) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO stages (deployment, stage, status, started_at, ended_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for record in &d.stages {
        statement.execute(params![
            d.id.to_string(),
            record.stage.as_str(),
            to_name(&record.status),
            micros(record.started_at),
            record.ended_at.map(micros),
        ])?;
    }
    Ok(())
}

fn fold_all(connection: &Connection, id: DeploymentId, events: &[Event]) -> Result<Vec<Deployment>, StoreError> {
    let mut deployment = load(connection, id)?.ok_or(StoreError::NoDeployment(id))?;
    let before = deployment.clone();
    let done = folded(connection, id)?;
    let mut last = done;
    let mut runs = false;
    for event in events {
        if event.seq > last {
            runs |= fold::fold(&mut deployment, event);
            last = event.seq;
        }
    }
    if last == done {
        return Ok(Vec::new());
    }
    let stored = i64::try_from(last).unwrap_or(i64::MAX);
    connection
        .prepare_cached("UPDATE deployments SET last_folded_seq = ?2 WHERE id = ?1")?
        .execute(params![id.to_string(), stored])?;
    update(connection, &deployment)?;
    let mut changed: Vec<_> = load(connection, id)?.filter(|after| *after != before).into_iter().collect();
    if runs {
        changed.extend(supersede(connection, &deployment)?);
    }
    Ok(changed)
}

/// Marks what ran before `newer` under its key on its agent.
fn supersede(connection: &Connection, newer: &Deployment) -> Result<Vec<Deployment>, StoreError> {
    // Sorted after: for the order SQLite would walk the repo's whole history.
    let query = "SELECT * FROM deployments WHERE state IN ('running', 'stopped')
        AND repo = :repo AND sandbox IS :sandbox AND agent = :agent AND id <> :id";
    let mut older = select(
        connection,
        query,
        named_params! {
            ":repo": newer.key.repo.as_str(),
            ":sandbox": newer.key.sandbox.as_ref().map(AsRef::<str>::as_ref),
            ":agent": newer.agent.as_str(),
            ":id": newer.id.to_string(),
        },
    )?;
    older.sort_by_key(|deployment| deployment.id);
    for deployment in &mut older {
        deployment.state = DeploymentState::Superseded;
        update(connection, deployment)?;
    }
    Ok(older)
}

fn folded(connection: &Connection, id: DeploymentId) -> Result<u64, StoreError> {
    let seq: Option<i64> = connection
        .prepare_cached("SELECT last_folded_seq FROM deployments WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()?;
    let seq = seq.ok_or(StoreError::NoDeployment(id))?;
    Ok(u64::try_from(seq).unwrap_or_default())
}

fn load(connection: &Connection, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
    let found =
        select(connection, "SELECT * FROM deployments WHERE id = :id", named_params! { ":id": id.to_string() })?;
    Ok(found.into_iter().next())
}

fn page(connection: &Connection, filter: &DeploymentFilter) -> Result<Page<Deployment>, StoreError> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let wanted = [
        ("sandbox = :sandbox", ":sandbox", filter.sandbox.as_ref().map(ToString::to_string)),
        ("repo = :repo", ":repo", filter.repo.as_ref().map(ToString::to_string)),
        ("user = :user", ":user", filter.user.as_ref().map(ToString::to_string)),
        ("state = :state", ":state", filter.state.as_ref().map(ToString::to_string)),
        ("id < :before", ":before", filter.before.as_ref().map(ToString::to_string)),
    ];
    // Only the conditions asked for, so that each has its index.
    let (mut conditions, mut values) = (String::from("TRUE"), Vec::<(&str, &dyn ToSql)>::new());
    for (condition, parameter, value) in &wanted {
        if let Some(value) = value {
            conditions.push_str(" AND ");
            conditions.push_str(condition);
            values.push((*parameter, value));
        }
    }
    let one_more = limit + 1;
    values.push((":limit", &one_more));
    let query = format!("SELECT * FROM deployments WHERE {conditions} ORDER BY id DESC LIMIT :limit");
    let mut items = select(connection, &query, &values)?;
    let next = if items.len() > limit as usize {
        items.truncate(limit as usize);
        items.last().map(|last| last.id.to_string())
    } else {
        None
    };
    Ok(Page { items, next })
}

fn in_states(
    connection: &Connection,
    states: &[DeploymentState],
    agent: Option<&AgentName>,
) -> Result<Vec<Deployment>, StoreError> {
    let states: Vec<_> = states.iter().map(|state| state.as_str()).collect();
    let states = to_json(&states);
    // One query each, so that each has its index.
    let of_all = "SELECT * FROM deployments WHERE state IN (SELECT value FROM json_each(:states)) ORDER BY id";
    let of_agent = "SELECT * FROM deployments
        WHERE agent = :agent AND state IN (SELECT value FROM json_each(:states)) ORDER BY id";
    match agent {
        None => select(connection, of_all, named_params! { ":states": states }),
        Some(agent) => select(connection, of_agent, named_params! { ":states": states, ":agent": agent.as_str() }),
    }
}

pub(super) fn select(
    connection: &Connection,
    query: &str,
    values: &[(&str, &dyn ToSql)],
) -> Result<Vec<Deployment>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut deployment = from_row(row)?;
        deployment.stages = stages(connection, deployment.id)?;
        found.push(deployment);
    }
    Ok(found)
}

fn from_row(row: &Row<'_>) -> Result<Deployment, StoreError> {
    let host_port: Option<u16> = row.get("host_port")?;
    Ok(Deployment {
        id: text(row, "id")?,
        key: InstanceKey { sandbox: optional_text(row, "sandbox")?, repo: text(row, "repo")? },
        branch: text(row, "branch")?,
        commit: optional_text(row, "commit_id")?,
        agent: text(row, "agent")?,
        state: text(row, "state")?,
        failure: optional_json(row, "failure")?,
        host_port: host_port.and_then(|port| port.try_into().ok()),
        url: row.get("url")?,
        env: json(row, "env")?,
        user: text(row, "user")?,
        created_at: time(row, "created_at")?,
        finished_at: optional_time(row, "finished_at")?,
        rollback_of: optional_text(row, "rollback_of")?,
        stages: Vec::new(),
    })
}

fn stages(connection: &Connection, id: DeploymentId) -> Result<Vec<StageRecord>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT * FROM stages WHERE deployment = ?1")?;
    let mut rows = statement.query([id.to_string()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(StageRecord {
            stage: name(row, "stage")?,
            status: name(row, "status")?,
            started_at: time(row, "started_at")?,
            ended_at: optional_time(row, "ended_at")?,
        });
    }
    found.sort_by_key(|record: &StageRecord| record.stage);
    Ok(found)
}
