//! What a client can be asked, by name: one for each endpoint. Bodies are those of the HTTP API; names, versions and ids
//! stand beside them.

use sdp_core::{
    AgentName, DeploymentId, EnvironmentName, ErrorCode, Problem, RepoName, SandboxName, ServiceName, TemplateName,
    TokenId, UserName,
    api::{
        BranchFilter, ChangeSandbox, CreateDeployment, CreateSandbox, DeployAgain, DeploymentFilter, SandboxFilter,
        SaveEnvironment, SaveTemplate, SetRoute, SetRoutes,
        audit::AuditFilter,
        exec::RunCommand,
        logs::{LogQuery, OutputQuery},
        people::{ChangeUser, CreateToken, LogoutQuery},
        routing::ExplainQuery,
    },
    client::{Client, Document, Version, Versioned},
    protocol::CredentialsFrame,
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Failure, read, write};

/// Something named.
#[derive(Deserialize)]
struct Named<N> {
    name: N,
    #[serde(default)]
    version: Option<String>,
}

/// Something named, and what to do with it.
#[derive(Deserialize)]
pub(crate) struct With<N, B> {
    pub(crate) name: N,
    pub(crate) body: B,
    #[serde(default)]
    version: Option<String>,
}

/// A route of a sandbox, and what to do with it.
#[derive(Deserialize)]
struct OfService<B> {
    name: SandboxName,
    service: ServiceName,
    body: B,
}

/// A sandbox's document: YAML, or as a program made it.
#[derive(Deserialize)]
struct Declared {
    name: SandboxName,
    yaml: Option<String>,
    manifest: Option<Box<sdp_core::Manifest>>,
}

impl Declared {
    fn document(self) -> Result<(SandboxName, Document), Failure> {
        match (self.yaml, self.manifest) {
            (Some(yaml), None) => Ok((self.name, Document::Yaml(yaml))),
            (None, Some(manifest)) => Ok((self.name, Document::Manifest(manifest))),
            _ => Err(Failure::settings("a document is YAML or a mapping")),
        }
    }
}

fn version(text: Option<String>) -> Option<Version> {
    text.and_then(|text| Version::new(&text))
}

/// What was read, with its version beside it.
fn versioned<T: Serialize>(read: Versioned<T>) -> Result<String, Failure> {
    let version = read.version.as_ref().map(Version::as_str);
    write(&json!({ "value": read.value, "version": version }))
}

fn nothing(_: ()) -> Result<String, Failure> {
    Ok("null".into())
}

/// Does what is asked for.
pub(crate) async fn perform(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    match op {
        "health" => write(&client.health().await?),
        "readiness" => write(&client.readiness().await?),
        "metrics" => write(&client.metrics().await?),
        "openapi" => write(&client.openapi().await?),
        "sign_in" => {
            let CredentialsFrame(given) = read(body)?;
            let signed = client.sign_in(given.username().clone(), given.expose_password().into()).await?;
            let token = signed.client.token().map(|token| token.expose_secret().to_owned());
            write(&json!({
                "user": signed.user, "role": signed.role, "expires_at": signed.expires_at, "token": token,
            }))
        }
        "sign_out" => nothing(client.sign_out(read::<LogoutQuery>(body)?.everywhere).await?),
        "me" => write(&client.me().await?),
        "repos" => write(&client.repos().await?),
        "branches" => {
            let With { name, body, .. } = read::<With<RepoName, BranchFilter>>(body)?;
            write(&client.branches(&name, &body).await?)
        }
        "explain" => write(&client.explain(&read::<ExplainQuery>(body)?).await?),
        "audit" => write(&client.audit(&read::<AuditFilter>(body)?).await?),
        op => match op.split_once('/') {
            Some(("agents", op)) => agents(client, op, body).await,
            Some(("environments", op)) => environments(client, op, body).await,
            Some(("templates", op)) => templates(client, op, body).await,
            Some(("sandboxes", op)) => sandboxes(client, op, body).await,
            Some(("deployments", op)) => deployments(client, op, body).await,
            Some(("people", op)) => people(client, op, body).await,
            _ => Err(unknown(op)),
        },
    }
}

/// That the Python half asks what this half does not know.
pub(crate) fn unknown(op: &str) -> Failure {
    Problem::new(ErrorCode::Unsupported, format!("there is no request {op:?}: sdp and its module sdp._sdp differ"))
        .into()
}

async fn agents(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    if op == "list" {
        return write(&client.agents().await?);
    }
    let Named { name, .. } = read::<Named<AgentName>>(body)?;
    let issued = match op {
        "get" => return write(&client.agent(&name).await?),
        "revoke" => return nothing(client.revoke_agent(&name).await?),
        "enrol" => client.enrol_agent(&name).await?,
        "rotate" => client.rotate_agent(&name).await?,
        _ => return Err(unknown(op)),
    };
    write(&json!({ "name": issued.name, "token": issued.token.expose_secret() }))
}

async fn environments(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    match op {
        "list" => write(&client.environments().await?),
        "get" => versioned(client.environment(&read::<Named<EnvironmentName>>(body)?.name).await?),
        "create" => versioned(client.create_environment(&read::<SaveEnvironment>(body)?).await?),
        "replace" => {
            let With { name, body, version: known } = read::<With<EnvironmentName, SaveEnvironment>>(body)?;
            versioned(client.replace_environment(&name, &body, version(known).as_ref()).await?)
        }
        "delete" => {
            let Named { name, version: known } = read::<Named<EnvironmentName>>(body)?;
            nothing(client.delete_environment(&name, version(known).as_ref()).await?)
        }
        _ => Err(unknown(op)),
    }
}

async fn templates(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    match op {
        "list" => write(&client.templates().await?),
        "get" => versioned(client.template(&read::<Named<TemplateName>>(body)?.name).await?),
        "create" => versioned(client.create_template(&read::<SaveTemplate>(body)?).await?),
        "replace" => {
            let With { name, body, version: known } = read::<With<TemplateName, SaveTemplate>>(body)?;
            versioned(client.replace_template(&name, &body, version(known).as_ref()).await?)
        }
        "delete" => {
            let Named { name, version: known } = read::<Named<TemplateName>>(body)?;
            nothing(client.delete_template(&name, version(known).as_ref()).await?)
        }
        _ => Err(unknown(op)),
    }
}

async fn sandboxes(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    match op {
        "list" => write(&client.sandboxes(&read::<SandboxFilter>(body)?).await?),
        "create" => write(&client.create_sandbox(&read::<CreateSandbox>(body)?).await?),
        "get" => versioned(client.sandbox(&read::<Named<SandboxName>>(body)?.name).await?),
        "change" => {
            let With { name, body, version: known } = read::<With<SandboxName, ChangeSandbox>>(body)?;
            versioned(client.change_sandbox(&name, &body, version(known).as_ref()).await?)
        }
        "delete" => {
            let Named { name, version: known } = read::<Named<SandboxName>>(body)?;
            write(&client.delete_sandbox(&name, version(known).as_ref()).await?)
        }
        "apply" => {
            let (name, document) = read::<Declared>(body)?.document()?;
            write(&client.apply_sandbox(&name, &document).await?)
        }
        "diff" => {
            let (name, document) = read::<Declared>(body)?.document()?;
            write(&client.diff_sandbox(&name, &document).await?)
        }
        "export" => write(&client.export_sandbox(&read::<Named<SandboxName>>(body)?.name).await?),
        "export_yaml" => write(&client.export_sandbox_yaml(&read::<Named<SandboxName>>(body)?.name).await?),
        "deploy" => {
            let With { name, body, .. } = read::<With<SandboxName, DeployAgain>>(body)?;
            let credentials = body.credentials.map(|CredentialsFrame(given)| given);
            write(&client.deploy_sandbox(&name, credentials.as_ref()).await?)
        }
        "deploy_into" => {
            let With { name, body, .. } = read::<With<SandboxName, CreateDeployment>>(body)?;
            write(&client.deploy_into(&name, &body).await?)
        }
        "sleep" => write(&client.put_sandbox_to_sleep(&read::<Named<SandboxName>>(body)?.name).await?),
        "wake" => write(&client.wake_sandbox(&read::<Named<SandboxName>>(body)?.name).await?),
        "routes" => write(&client.routes(&read::<Named<SandboxName>>(body)?.name).await?),
        "set_route" => {
            let OfService { name, service, body } = read::<OfService<SetRoute>>(body)?;
            write(&client.set_route(&name, &service, &body).await?)
        }
        "set_routes" => {
            let With { name, body, .. } = read::<With<SandboxName, SetRoutes>>(body)?;
            write(&client.set_routes(&name, &body).await?)
        }
        "explain" => {
            let OfService { name, service, .. } = read::<OfService<Value>>(body)?;
            write(&client.explain_in(&name, &service).await?)
        }
        _ => Err(unknown(op)),
    }
}

async fn deployments(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    match op {
        "list" => return write(&client.deployments(&read::<DeploymentFilter>(body)?).await?),
        "create" => return write(&client.deploy(&read::<CreateDeployment>(body)?).await?),
        "log" => {
            let With { name, body, .. } = read::<With<DeploymentId, LogQuery>>(body)?;
            return write(&client.log_text(name, &body).await?);
        }
        "output" => {
            let With { name, body, .. } = read::<With<DeploymentId, OutputQuery>>(body)?;
            return write(&client.output_text(name, &body).await?);
        }
        "exec" => {
            let With { name, body, .. } = read::<With<DeploymentId, RunCommand>>(body)?;
            return write(&client.exec(name, body.command).await?.complete().await?);
        }
        "retry" | "rollback" => {
            let With { name, body, .. } = read::<With<DeploymentId, DeployAgain>>(body)?;
            let credentials = body.credentials.map(|CredentialsFrame(given)| given);
            let begun = match op {
                "retry" => client.retry_deployment(name, credentials.as_ref()).await?,
                _ => client.roll_back_deployment(name, credentials.as_ref()).await?,
            };
            return write(&begun);
        }
        _ => {}
    }
    let Named { name: id, .. } = read::<Named<DeploymentId>>(body)?;
    write(&match op {
        "get" => client.deployment(id).await?,
        "wait" => client.wait(id).await?,
        "cancel" => client.cancel_deployment(id).await?,
        "stop" => client.stop_deployment(id).await?,
        "restart" => client.restart_deployment(id).await?,
        _ => return Err(unknown(op)),
    })
}

async fn people(client: Client, op: &str, body: &str) -> Result<String, Failure> {
    match op {
        "users" => write(&client.users().await?),
        "user" => write(&client.user(&read::<Named<UserName>>(body)?.name).await?),
        "change_user" => {
            let With { name, body, .. } = read::<With<UserName, ChangeUser>>(body)?;
            write(&client.change_user(&name, &body).await?)
        }
        "tokens" => write(&client.tokens().await?),
        "create_token" => {
            let issued = client.create_token(&read::<CreateToken>(body)?).await?;
            write(&json!({ "secret": issued.secret.expose_secret(), "token": issued.token }))
        }
        "revoke_token" => nothing(client.revoke_token(read::<Named<TokenId>>(body)?.name).await?),
        _ => Err(unknown(op)),
    }
}
