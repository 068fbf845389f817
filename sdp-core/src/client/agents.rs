//! Agents and their enrolment.

use secrecy::SecretString;

use super::{
    Client, ClientError,
    call::{Call, segment},
};
use crate::{
    api::people::{EnrolAgent, EnrolledAgent},
    model::{
        agent::Agent,
        machine::{Disk, Examination},
        names::AgentName,
    },
};

/// A token for an agent that was just made.
#[derive(Debug, Clone)]
pub struct IssuedAgentToken {
    /// The agent.
    pub name: AgentName,
    /// For its `token_file`. It is shown this once.
    pub token: SecretString,
}

impl From<EnrolledAgent> for IssuedAgentToken {
    fn from(EnrolledAgent { name, token }: EnrolledAgent) -> Self {
        Self { name, token: token.0 }
    }
}

fn path(name: &AgentName) -> String {
    format!("/api/agents/{}", segment(name))
}

impl Client {
    /// Every enrolled agent.
    ///
    /// # Errors
    /// As every request.
    pub async fn agents(&self) -> Result<Vec<Agent>, ClientError> {
        self.json(Call::get("/api/agents")).await
    }

    /// An agent.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn agent(&self, name: &AgentName) -> Result<Agent, ClientError> {
        self.json(Call::get(path(name))).await
    }

    /// The room on the disks that an agent uses.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway).
    pub async fn agent_disks(&self, name: &AgentName) -> Result<Vec<Disk>, ClientError> {
        self.json(Call::get(format!("{}/disks", path(name)))).await
    }

    /// What works on an agent's machine and what does not.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway).
    pub async fn agent_doctor(&self, name: &AgentName) -> Result<Examination, ClientError> {
        self.json(Call::get(format!("{}/doctor", path(name)))).await
    }

    /// Enrols an agent.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorCode::Conflict) when there is one of that name.
    pub async fn enrol_agent(&self, name: &AgentName) -> Result<IssuedAgentToken, ClientError> {
        let body = EnrolAgent { name: name.clone() };
        self.json::<EnrolledAgent>(Call::create("/api/agents").json(&body)).await.map(Into::into)
    }

    /// Gives an agent another token, and ends its connection.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn rotate_agent(&self, name: &AgentName) -> Result<IssuedAgentToken, ClientError> {
        self.json::<EnrolledAgent>(Call::create(format!("{}/rotate", path(name)))).await.map(Into::into)
    }

    /// Revokes an agent's token, and ends its connection.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorCode::NotFound).
    pub async fn revoke_agent(&self, name: &AgentName) -> Result<(), ClientError> {
        self.nothing(Call::delete(path(name))).await
    }
}
