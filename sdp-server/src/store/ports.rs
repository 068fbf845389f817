//! Host ports: who holds which on which agent.
//!
//! A port is reserved in the transaction that keeps the deployment, so that no two deployments get the
//! same. From then on it follows the deployments: it is held while one of the holder's, on its way, running
//! or stopped, has it. What a crash or a lost answer leaves is put right by [`Store::reconcile_ports`].

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, named_params, params};
use sdp_core::{AgentName, Deployment, DeploymentId, HostPort, InstanceKey, PortRange, UserName};

use super::{
    Store, StoreError,
    deployments::insert,
    values::{optional_text, text},
};

/// The condition that a row of `deployments` may still answer on its port.
const MAY_ANSWER: &str = "d.host_port IS NOT NULL AND d.state NOT IN ('failed', 'cancelled', 'superseded')
    AND (d.sandbox IS NULL OR EXISTS (
        SELECT 1 FROM sandboxes s WHERE s.name = d.sandbox AND s.created_at <= d.created_at))";

/// The condition that a row of `ports` is of use: its holder may answer on it, or has a deployment on its
/// way whose port only its agent knows for certain.
const IS_HELD: &str = "EXISTS (SELECT 1 FROM deployments d WHERE d.agent = ports.agent
        AND d.host_port = ports.port AND d.repo = ports.repo AND d.sandbox IS ports.sandbox AND MAY_ANSWER)
    OR EXISTS (SELECT 1 FROM deployments d WHERE d.state IN ('queued', 'source', 'build', 'start')
        AND d.host_port IS NULL AND d.agent = ports.agent AND d.repo = ports.repo AND d.sandbox IS ports.sandbox)";

/// How a deployment comes by its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortChoice {
    /// This one, which a person asked for.
    Chosen(HostPort),
    /// A free one of the range; the one that its key has there already, if it has one and is not to have
    /// another for the time in which both serve.
    Picked {
        /// From where.
        range: PortRange,
        /// Whether it is to be another than the present one.
        anew: bool,
    },
    /// The agent picks and tells.
    Agents,
}

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// Sandbox and repo.
    pub key: InstanceKey,
    /// The deployment that has it.
    pub deployment: DeploymentId,
    /// The sandbox's owner; for a quick deploy, who asked for it.
    pub owner: Option<UserName>,
}

impl std::fmt::Display for PortHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key.sandbox {
            Some(sandbox) => write!(f, "repo {} in sandbox {sandbox}", self.key.repo)?,
            None => write!(f, "the quick deploy of repo {}", self.key.repo)?,
        }
        match &self.owner {
            Some(owner) => write!(f, " of {owner} (deployment {})", self.deployment),
            None => write!(f, " (deployment {})", self.deployment),
        }
    }
}

impl Store {
    /// Keeps a new deployment and reserves its port, together or not at all. Gives the port reserved;
    /// a picked one is not written into the deployment before its agent confirms it.
    ///
    /// # Errors
    /// [`StoreError::PortTaken`] names the holder of a chosen port; [`StoreError::NoFreePort`];
    /// [`StoreError::Exists`].
    pub async fn insert_deployment_with_port(
        &self,
        deployment: &Deployment,
        choice: PortChoice,
    ) -> Result<Option<HostPort>, StoreError> {
        let deployment = deployment.clone();
        self.writer
            .write(move |connection| {
                let port = reserve(connection, &deployment, choice)?;
                insert(connection, &deployment)?;
                Ok(port)
            })
            .await
    }

    /// The port that a person asked for with a deployment.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn chosen_port(&self, id: DeploymentId) -> Result<Option<HostPort>, StoreError> {
        self.readers
            .read(move |connection| {
                let query = "SELECT chosen_port FROM deployments WHERE id = ?1";
                let port: Option<Option<u16>> =
                    connection.prepare_cached(query)?.query_row([id.to_string()], |row| row.get(0)).optional()?;
                Ok(port.flatten().and_then(|port| HostPort::new(port).ok()))
            })
            .await
    }

    /// Who holds a port of an agent.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn port_holder(&self, agent: &AgentName, port: HostPort) -> Result<Option<PortHolder>, StoreError> {
        let agent = agent.clone();
        self.readers.read(move |connection| holder(connection, &agent, port)).await
    }

    /// Frees ports that no deployment may answer on any more, and gives those back that one does and the
    /// table lacks. Gives how many it changed.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn reconcile_ports(&self) -> Result<usize, StoreError> {
        self.writer
            .write(|connection| {
                let freed = connection.execute(&format!("DELETE FROM ports WHERE NOT ({})", is_held()), [])?;
                let given = connection.execute(
                    &format!(
                        "INSERT OR IGNORE INTO ports (agent, port, sandbox, repo, deployment)
                            SELECT d.agent, d.host_port, d.sandbox, d.repo, d.id FROM deployments d
                            WHERE {MAY_ANSWER} ORDER BY d.id DESC"
                    ),
                    [],
                )?;
                Ok(freed + given)
            })
            .await
    }
}

fn holder(connection: &Connection, agent: &AgentName, port: HostPort) -> Result<Option<PortHolder>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT p.sandbox, p.repo, p.deployment, coalesce(s.owner, d.user) AS owner FROM ports p
            LEFT JOIN sandboxes s ON s.name = p.sandbox LEFT JOIN deployments d ON d.id = p.deployment
            WHERE p.agent = ?1 AND p.port = ?2",
    )?;
    let mut rows = statement.query(params![agent.as_str(), port.get()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let key = InstanceKey { sandbox: optional_text(row, "sandbox")?, repo: text(row, "repo")? };
    Ok(Some(PortHolder { key, deployment: text(row, "deployment")?, owner: optional_text(row, "owner")? }))
}

fn reserve(connection: &Connection, d: &Deployment, choice: PortChoice) -> Result<Option<HostPort>, StoreError> {
    let port = match choice {
        PortChoice::Agents => return Ok(None),
        PortChoice::Chosen(port) => {
            let other = holder(connection, &d.agent, port)?.filter(|holder| holder.key != d.key);
            if let Some(holder) = other {
                return Err(StoreError::PortTaken { agent: d.agent.clone(), port, holder });
            }
            port
        }
        PortChoice::Picked { range, anew } => {
            let held = held_by(connection, d)?;
            match held.filter(|_| !anew) {
                Some(port) => port,
                None => {
                    let taken = taken(connection, &d.agent)?;
                    let mut ports = range.0.clone().filter_map(|port| HostPort::new(port).ok());
                    let free = ports.find(|port| !taken.contains(&port.get()));
                    free.or(held).ok_or_else(|| StoreError::NoFreePort { agent: d.agent.clone(), range })?
                }
            }
        }
    };
    // One that its key has already stays in the name of the deployment that answers on it.
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO ports (agent, port, sandbox, repo, deployment) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            d.agent.as_str(),
            port.get(),
            d.key.sandbox.as_ref().map(AsRef::<str>::as_ref),
            d.key.repo.as_str(),
            d.id.to_string(),
        ])?;
    Ok(Some(port))
}

/// The port that a deployment's key has on its agent already; of several the last one taken.
fn held_by(connection: &Connection, d: &Deployment) -> Result<Option<HostPort>, StoreError> {
    let query = "SELECT port FROM ports WHERE agent = :agent AND repo = :repo AND sandbox IS :sandbox
        ORDER BY deployment DESC LIMIT 1";
    let values = named_params! {
        ":agent": d.agent.as_str(),
        ":repo": d.key.repo.as_str(),
        ":sandbox": d.key.sandbox.as_ref().map(AsRef::<str>::as_ref),
    };
    let port: Option<u16> = connection.prepare_cached(query)?.query_row(values, |row| row.get(0)).optional()?;
    Ok(port.and_then(|port| HostPort::new(port).ok()))
}

fn taken(connection: &Connection, agent: &AgentName) -> Result<BTreeSet<u16>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT port FROM ports WHERE agent = ?1")?;
    let ports = statement.query_map([agent.as_str()], |row| row.get(0))?;
    Ok(ports.collect::<Result<_, _>>()?)
}

fn is_held() -> String {
    IS_HELD.replace("MAY_ANSWER", MAY_ANSWER)
}

/// Has the ports of a deployment's key follow what has become of it. Its agent binds ports: where it tells
/// of one that somebody else had reserved, it is right.
pub(super) fn follow(connection: &Connection, d: &Deployment) -> Result<(), StoreError> {
    let sandbox = d.key.sandbox.as_ref().map(AsRef::<str>::as_ref);
    let values = named_params! { ":agent": d.agent.as_str(), ":repo": d.key.repo.as_str(), ":sandbox": sandbox };
    let free = format!(
        "DELETE FROM ports WHERE agent = :agent AND repo = :repo AND sandbox IS :sandbox AND NOT ({})",
        is_held()
    );
    connection.prepare_cached(&free)?.execute(values)?;
    let Some(port) = d.host_port else { return Ok(()) };
    let give = format!(
        "INSERT OR REPLACE INTO ports (agent, port, sandbox, repo, deployment)
            SELECT d.agent, d.host_port, d.sandbox, d.repo, d.id FROM deployments d
            WHERE d.id = :id AND d.host_port = :port AND {MAY_ANSWER}"
    );
    connection.prepare_cached(&give)?.execute(named_params! { ":id": d.id.to_string(), ":port": port.get() })?;
    Ok(())
}
