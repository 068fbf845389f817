//! Where the gateway sends each service.

use super::{
    Client, ClientError,
    call::{Call, segment},
    sandboxes::path,
};
use crate::{
    api::{SetRoute, SetRoutes, routing::ExplainQuery},
    model::{
        explain::Explanation,
        names::{SandboxName, ServiceName},
        route::RouteTable,
    },
};

impl Client {
    /// The live table of a sandbox's gateway.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway) and others.
    pub async fn routes(&self, sandbox: &SandboxName) -> Result<RouteTable, ClientError> {
        self.json(Call::get(format!("{}/routes", path(sandbox)))).await
    }

    /// Sets a route, and answers the table as it is afterwards.
    ///
    /// # Errors
    /// [`RouteClaimed`](crate::ErrorCode::RouteClaimed) names the sandbox that has it.
    pub async fn set_route(
        &self,
        sandbox: &SandboxName,
        service: &ServiceName,
        body: &SetRoute,
    ) -> Result<RouteTable, ClientError> {
        self.json(Call::put(format!("{}/routes/{}", path(sandbox), segment(service))).json(body)).await
    }

    /// Sets many routes, in one write and one reload.
    ///
    /// # Errors
    /// As [`set_route`](Self::set_route); then none is set.
    pub async fn set_routes(&self, sandbox: &SandboxName, body: &SetRoutes) -> Result<RouteTable, ClientError> {
        self.json(Call::put(format!("{}/routes", path(sandbox))).json(body)).await
    }

    /// Why a request of this sandbox reaches what it reaches.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway) and others.
    pub async fn explain_in(&self, sandbox: &SandboxName, service: &ServiceName) -> Result<Explanation, ClientError> {
        self.json(Call::get(format!("{}/routes/{}/explain", path(sandbox), segment(service)))).await
    }

    /// Why a request to the shared gateway reaches what it reaches.
    ///
    /// # Errors
    /// [`AgentAway`](crate::ErrorCode::AgentAway) and others.
    pub async fn explain(&self, query: &ExplainQuery) -> Result<Explanation, ClientError> {
        self.json(Call::get("/api/explain").query(query)).await
    }
}
