//! Sandboxes, and the documents that say what one is to be.

use futures_util::{StreamExt, stream::BoxStream};
use http::StatusCode;

use super::{
    Client, ClientError, Version, Versioned,
    call::{Call, segment},
    paging,
};
use crate::{
    api::{
        ChangeSandbox, CreateDeployment, CreateSandbox, DeployAgain, DeployedSandbox, ListedSandbox, Page,
        SandboxDetail, SandboxFilter,
        declared::{AppliedSandbox, SandboxChanges},
        vitals::ServiceStats,
    },
    model::{
        credentials::Credentials, deployment::Deployment, manifest::Manifest, names::SandboxName, sandbox::Sandbox,
    },
    protocol::CredentialsFrame,
};

const YAML: &str = "application/yaml";

/// What a sandbox is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// As read from a file: the server says line and column of what is wrong with it.
    Yaml(String),
    /// As made by a program.
    Manifest(Box<Manifest>),
}

impl From<Manifest> for Document {
    fn from(manifest: Manifest) -> Self {
        Self::Manifest(Box::new(manifest))
    }
}

pub(super) fn path(name: &SandboxName) -> String {
    format!("/api/sandboxes/{}", segment(name))
}

/// The body of what deploys once more.
pub(super) fn again(credentials: Option<&Credentials>) -> DeployAgain {
    DeployAgain { credentials: credentials.cloned().map(CredentialsFrame) }
}

impl Call {
    fn document(self, document: &Document) -> Self {
        match document {
            Document::Yaml(text) => self.body(YAML, text.clone()),
            Document::Manifest(manifest) => self.json(manifest),
        }
    }
}

impl Client {
    /// One page of the sandboxes, by name, each with what is in it.
    ///
    /// # Errors
    /// As every request.
    pub async fn sandboxes(&self, filter: &SandboxFilter) -> Result<Page<ListedSandbox>, ClientError> {
        self.json(Call::get("/api/sandboxes").query(filter)).await
    }

    /// Every sandbox that the filter lets through, by name, page by page; its `limit` is the size of a page.
    pub fn all_sandboxes(&self, filter: SandboxFilter) -> BoxStream<'static, Result<ListedSandbox, ClientError>> {
        let client = self.clone();
        let ask = move |filter| {
            let client = client.clone();
            async move { client.sandboxes(&filter).await }
        };
        paging::items(filter, ask).boxed()
    }

    /// Makes a sandbox: plain, from a template, or cloned. Nothing is deployed yet.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when there is one of that name.
    pub async fn create_sandbox(&self, body: &CreateSandbox) -> Result<Sandbox, ClientError> {
        self.json(Call::create("/api/sandboxes").json(body)).await
    }

    /// A sandbox with the newest deployment of each of its repos.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn sandbox(&self, name: &SandboxName) -> Result<Versioned<SandboxDetail>, ClientError> {
        Versioned::read(&self.send(Call::get(path(name))).await?)
    }

    /// What each service that runs in a sandbox uses of its machine now.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound). What an agent does not tell is told beside what others do.
    pub async fn sandbox_stats(&self, name: &SandboxName) -> Result<Vec<ServiceStats>, ClientError> {
        self.json(Call::get(format!("{}/stats", path(name)))).await
    }

    /// Moves a sandbox's end, or changes whom it is shared with.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorCode::Changed) when it has another version than that given.
    pub async fn change_sandbox(
        &self,
        name: &SandboxName,
        body: &ChangeSandbox,
        version: Option<&Version>,
    ) -> Result<Versioned<SandboxDetail>, ClientError> {
        Versioned::read(&self.send(Call::patch(path(name)).json(body).if_match(version)).await?)
    }

    /// Tears a sandbox down. Answers what is left of it while something is: an agent that is away has it, and it goes
    /// when the agent is back.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorCode::Changed) when it has another version than that given.
    pub async fn delete_sandbox(
        &self,
        name: &SandboxName,
        version: Option<&Version>,
    ) -> Result<Option<SandboxDetail>, ClientError> {
        let answer = self.send(Call::delete(path(name)).if_match(version)).await?;
        if answer.status == StatusCode::NO_CONTENT { Ok(None) } else { answer.json().map(Some) }
    }

    /// Makes or changes a sandbox as a document says. Applied again it does nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorCode::InvalidInput) says where the document is wrong.
    pub async fn apply_sandbox(&self, name: &SandboxName, document: &Document) -> Result<AppliedSandbox, ClientError> {
        self.json(Call::put(path(name)).document(document)).await
    }

    /// What applying a document would change.
    ///
    /// # Errors
    /// As [`apply_sandbox`](Self::apply_sandbox).
    pub async fn diff_sandbox(&self, name: &SandboxName, document: &Document) -> Result<SandboxChanges, ClientError> {
        self.json(Call::post(format!("{}/diff", path(name))).document(document).repeatable()).await
    }

    /// The document that, applied, gives the same sandbox.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn export_sandbox(&self, name: &SandboxName) -> Result<Manifest, ClientError> {
        self.json(Call::get(format!("{}/export", path(name)))).await
    }

    /// The same as text, to be kept beside the code.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn export_sandbox_yaml(&self, name: &SandboxName) -> Result<String, ClientError> {
        Ok(self.send(Call::get(format!("{}/export", path(name))).accept(YAML)).await?.text())
    }

    /// Deploys every service of a sandbox, side by side, then sets the routes it wants.
    ///
    /// # Errors
    /// As every request; what cannot be deployed is in the answer.
    pub async fn deploy_sandbox(
        &self,
        name: &SandboxName,
        credentials: Option<&Credentials>,
    ) -> Result<DeployedSandbox, ClientError> {
        self.json(Call::create(format!("{}/deploy", path(name))).json(&again(credentials))).await
    }

    /// Deploys a branch into a sandbox.
    ///
    /// # Errors
    /// [`PortTaken`](crate::ErrorCode::PortTaken) and others.
    pub async fn deploy_into(&self, name: &SandboxName, body: &CreateDeployment) -> Result<Deployment, ClientError> {
        self.json(Call::create(format!("{}/deployments", path(name))).json(body)).await
    }

    /// Stops what runs in a sandbox, and keeps it.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway) and others.
    pub async fn put_sandbox_to_sleep(&self, name: &SandboxName) -> Result<SandboxDetail, ClientError> {
        self.json(Call::post(format!("{}/sleep", path(name)))).await
    }

    /// Starts what its sleep had stopped.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway) and others.
    pub async fn wake_sandbox(&self, name: &SandboxName) -> Result<SandboxDetail, ClientError> {
        self.json(Call::post(format!("{}/wake", path(name)))).await
    }
}
