//! Deployments that leave what they replace serving, until their agents are told that the routes have followed.

use sdp_core::{Deployment, DeploymentId};

use super::{Store, StoreError, deployments::select};

impl Store {
    /// Keeps that a deployment's agent waits to be told. False, and nothing is kept, when nothing runs or is about to that it would
    /// replace.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn await_retirement(&self, deployment: &Deployment) -> Result<bool, StoreError> {
        let deployment = deployment.clone();
        self.writer
            .write(move |connection| {
                let query = "INSERT OR IGNORE INTO retirements (deployment) SELECT ?1 WHERE EXISTS (
                    SELECT 1 FROM deployments WHERE agent = ?2 AND repo = ?3 AND sandbox IS ?4 AND id <> ?1
                        AND state NOT IN ('failed', 'cancelled', 'superseded', 'stopped'))";
                let kept = connection.prepare_cached(query)?.execute([
                    Some(deployment.id.to_string().as_str()),
                    Some(deployment.agent.as_str()),
                    Some(deployment.key.repo.as_str()),
                    deployment.key.sandbox.as_ref().map(AsRef::<str>::as_ref),
                ])?;
                Ok(kept > 0)
            })
            .await
    }

    /// The deployments whose agents wait to be told.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn retirements(&self) -> Result<Vec<Deployment>, StoreError> {
        self.readers
            .read(|connection| {
                let query = "SELECT d.* FROM deployments d JOIN retirements r ON r.deployment = d.id ORDER BY d.id";
                select(connection, query, &[])
            })
            .await
    }

    /// Keeps that there is nothing more to tell of a deployment.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn end_retirement(&self, deployment: DeploymentId) -> Result<(), StoreError> {
        self.writer
            .write(move |connection| {
                let query = "DELETE FROM retirements WHERE deployment = ?1";
                connection.prepare_cached(query)?.execute([deployment.to_string()])?;
                Ok(())
            })
            .await
    }
}
