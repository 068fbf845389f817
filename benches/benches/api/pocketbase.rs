//! PocketBase: what one takes who wants an API over SQLite with people who sign in, and does not write it. It keeps the
//! same fields, asks for a session in every request, and logs none of them. It does not wait for the disk: it opens
//! SQLite with `synchronous(NORMAL)`, where the control plane and the bare server use `FULL`.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use sdp_benches::agent::client;
use sdp_core::Deployment;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::request;

const ADMIN: &str = "admin@bench.test";
const USER: &str = "ada@bench.test";
const PASSWORD: &str = "correct-horse";

/// One that is ended when it is dropped.
pub(crate) struct PocketBase {
    child: Child,
    pub(crate) address: SocketAddr,
    token: String,
    _dir: TempDir,
}

impl PocketBase {
    /// None where it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = format!("--dir={}", dir.path().join("data").display());
        let quiet = |arguments: &[&str]| {
            let mut command = Command::new("pocketbase");
            command.args(arguments).arg(&data).current_dir(dir.path()).stdout(Stdio::null());
            command
        };
        if let Err(error) = quiet(&["superuser", "upsert", ADMIN, PASSWORD]).status() {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            return None;
        }
        let child = quiet(&["serve", "--http", &address.to_string()]).spawn().unwrap();
        let mut server = Self { child, address, token: String::new(), _dir: dir };
        while std::net::TcpStream::connect(address).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "PocketBase did not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.sign_in("_superusers", ADMIN).await;
        server.ask(Method::PATCH, "/api/settings", &json!({ "logs": { "maxDays": 0 } })).await;
        server.collection("templates", &[("name", "text"), ("services", "json"), ("env", "json")]).await;
        let columns = ["key", "stages", "env"].map(|name| (name, "json")).into_iter();
        let texts = ["branch", "commit", "agent", "state", "failure", "url", "user"].map(|name| (name, "text"));
        server.collection("deployments", &columns.chain(texts).collect::<Vec<_>>()).await;
        let user = json!({ "email": USER, "password": PASSWORD, "passwordConfirm": PASSWORD, "verified": true });
        server.ask(Method::POST, "/api/collections/users/records", &user).await;
        Some(server)
    }

    /// Keeps one of each, and answers its address.
    pub(crate) async fn deployment(&self, deployment: &Deployment) -> String {
        let mut fields = serde_json::to_value(deployment).unwrap();
        fields.as_object_mut().unwrap().remove("id");
        self.create("deployments", &fields).await
    }

    /// As [`deployment`](Self::deployment).
    pub(crate) async fn template(&self, template: &Value) -> String {
        self.create("templates", template).await
    }

    /// From here on as one who is no administrator.
    pub(crate) async fn as_user(&mut self) {
        self.sign_in("users", USER).await;
    }

    /// A request as it goes over the wire.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        request(method, path, &self.token, body)
    }

    async fn create(&self, collection: &str, fields: &Value) -> String {
        let path = format!("/api/collections/{collection}/records");
        let created = self.ask(Method::POST, &path, fields).await;
        format!("{path}/{}", created["id"].as_str().unwrap())
    }

    async fn sign_in(&mut self, who: &str, identity: &str) {
        let path = format!("/api/collections/{who}/auth-with-password");
        let answer = self.ask(Method::POST, &path, &json!({ "identity": identity, "password": PASSWORD })).await;
        answer["token"].as_str().unwrap().clone_into(&mut self.token);
    }

    async fn collection(&self, name: &str, columns: &[(&str, &str)]) {
        let mut fields: Vec<_> = columns.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
        fields.push(json!({ "name": "created", "type": "autodate", "onCreate": true }));
        fields.push(json!({ "name": "updated", "type": "autodate", "onCreate": true, "onUpdate": true }));
        let signed_in = "@request.auth.id != ''";
        let body = json!({
            "name": name, "type": "base", "fields": fields,
            "listRule": signed_in, "viewRule": signed_in, "updateRule": signed_in,
            "indexes": [format!("CREATE INDEX `{name}_created` ON `{name}` (`created`)")],
        });
        self.ask(Method::POST, "/api/collections", &body).await;
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = client().request(method, format!("http://{}{path}", self.address));
        let answer = request.bearer_auth(&self.token).json(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for PocketBase {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
