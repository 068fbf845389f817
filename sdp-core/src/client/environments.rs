//! Environments.

use super::{
    Client, ClientError, Version, Versioned,
    call::{Call, segment},
};
use crate::{
    api::SaveEnvironment,
    model::{environment::Environment, names::EnvironmentName},
};

fn path(name: &EnvironmentName) -> String {
    format!("/api/environments/{}", segment(name))
}

impl Client {
    /// Every environment.
    ///
    /// # Errors
    /// As every request.
    pub async fn environments(&self) -> Result<Vec<Environment>, ClientError> {
        self.json(Call::get("/api/environments")).await
    }

    /// An environment.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn environment(&self, name: &EnvironmentName) -> Result<Versioned<Environment>, ClientError> {
        Versioned::read(&self.send(Call::get(path(name))).await?)
    }

    /// Makes an environment, which the body names.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when there is one of that name.
    pub async fn create_environment(&self, body: &SaveEnvironment) -> Result<Versioned<Environment>, ClientError> {
        Versioned::read(&self.send(Call::create("/api/environments").json(body)).await?)
    }

    /// Sets everything of an environment anew.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorCode::Changed) when it has another version than that given.
    pub async fn replace_environment(
        &self,
        name: &EnvironmentName,
        body: &SaveEnvironment,
        version: Option<&Version>,
    ) -> Result<Versioned<Environment>, ClientError> {
        Versioned::read(&self.send(Call::put(path(name)).json(body).if_match(version)).await?)
    }

    /// Deletes an environment that no sandbox lives in.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) while one does, [`Changed`](crate::ErrorCode::Changed) when it has
    /// another version than that given.
    pub async fn delete_environment(
        &self,
        name: &EnvironmentName,
        version: Option<&Version>,
    ) -> Result<(), ClientError> {
        self.nothing(Call::delete(path(name)).if_match(version)).await
    }
}
