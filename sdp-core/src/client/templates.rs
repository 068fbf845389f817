//! Templates.

use super::{
    Client, ClientError, Version, Versioned,
    call::{Call, segment},
};
use crate::{
    api::SaveTemplate,
    model::{names::TemplateName, template::Template},
};

fn path(name: &TemplateName) -> String {
    format!("/api/templates/{}", segment(name))
}

impl Client {
    /// Every template.
    ///
    /// # Errors
    /// As every request.
    pub async fn templates(&self) -> Result<Vec<Template>, ClientError> {
        self.json(Call::get("/api/templates")).await
    }

    /// A template.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn template(&self, name: &TemplateName) -> Result<Versioned<Template>, ClientError> {
        Versioned::read(&self.send(Call::get(path(name))).await?)
    }

    /// Saves a template, which the body names, by hand or from a sandbox.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when there is one of that name.
    pub async fn create_template(&self, body: &SaveTemplate) -> Result<Versioned<Template>, ClientError> {
        Versioned::read(&self.send(Call::create("/api/templates").json(body)).await?)
    }

    /// Sets everything of a template anew.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorCode::Changed) when it has another version than that given.
    pub async fn replace_template(
        &self,
        name: &TemplateName,
        body: &SaveTemplate,
        version: Option<&Version>,
    ) -> Result<Versioned<Template>, ClientError> {
        Versioned::read(&self.send(Call::put(path(name)).json(body).if_match(version)).await?)
    }

    /// Deletes a template.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorCode::Changed) when it has another version than that given.
    pub async fn delete_template(&self, name: &TemplateName, version: Option<&Version>) -> Result<(), ClientError> {
        self.nothing(Call::delete(path(name)).if_match(version)).await
    }
}
