//! The same statements on the same schema, with nothing around them: axum and rusqlite as one would write it by hand for
//! speed, with reads where the request is and one thread that commits what waits together.

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use axum::{
    Json, Router,
    extract::{Path as Name, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use rusqlite::{Connection, OpenFlags, Row, params};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// As many as the control plane has.
const READERS: usize = 4;
const BATCH: usize = 256;

type Job = (String, String, oneshot::Sender<()>);

#[derive(Debug, Clone)]
struct Database {
    readers: Arc<[Mutex<Connection>; READERS]>,
    writer: mpsc::Sender<Job>,
}

impl Database {
    fn open(path: &Path) -> Self {
        let writer = Connection::open(path).unwrap();
        writer.pragma_update(None, "journal_mode", "WAL").unwrap();
        writer.pragma_update(None, "synchronous", "FULL").unwrap();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let readers = std::array::from_fn(|_| Mutex::new(Connection::open_with_flags(path, flags).unwrap()));
        let (jobs, queue) = mpsc::channel();
        thread::spawn(move || write(&writer, &queue));
        Self { readers: Arc::new(readers), writer: jobs }
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> T) -> T {
        let free = self.readers.iter().find_map(|reader| reader.try_lock().ok());
        work(&free.unwrap_or_else(|| self.readers[0].lock().unwrap()))
    }
}

fn write(connection: &Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut told = Vec::new();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for (name, template, answer) in std::iter::once(first).chain(queue.try_iter().take(BATCH - 1)) {
            let update = "UPDATE templates SET template = ?2 WHERE name = ?1";
            connection.prepare_cached(update).unwrap().execute(params![name, template]).unwrap();
            // What the platform keeps of who did what.
            let audit = "INSERT INTO audit (at, user, address, action, subject, deployment, detail)
                VALUES (?1, 'ada', '127.0.0.1', 'template-replace', ?2, NULL, NULL)";
            let at = jiff::Timestamp::now().as_microsecond();
            connection.prepare_cached(audit).unwrap().execute(params![at, format!("templates/{name}")]).unwrap();
            told.push(answer);
        }
        connection.execute_batch("COMMIT").unwrap();
        told.into_iter().for_each(|answer| answer.send(()).unwrap());
    }
}

/// Serves until it is killed.
pub(crate) async fn serve(database: &Path, address: &str) {
    let router = Router::new()
        .route("/api/templates/{name}", get(template).put(replace))
        .route("/api/deployments/{id}", get(one))
        .route("/api/deployments", get(list))
        .with_state(Database::open(database));
    let listener = TcpListener::bind(address).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

fn find(database: &Database, name: &str) -> String {
    database.read(|connection| {
        let mut statement = connection.prepare_cached("SELECT template FROM templates WHERE name = ?1").unwrap();
        statement.query_row([name], |row| row.get(0)).unwrap()
    })
}

async fn template(State(database): State<Database>, Name(name): Name<String>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], find(&database, &name)).into_response()
}

async fn replace(State(database): State<Database>, Name(name): Name<String>, Json(body): Json<Value>) -> Response {
    let mut template: Value = serde_json::from_str(&find(&database, &name)).unwrap();
    template["services"] = body["services"].clone();
    // What is as it was makes no event.
    template["saved_at"] = jiff::Timestamp::now().to_string().into();
    let (text, (answer, answered)) = (template.to_string(), oneshot::channel());
    database.writer.send((name, text.clone(), answer)).unwrap();
    answered.await.unwrap();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn one(State(database): State<Database>, Name(id): Name<String>) -> Json<Value> {
    Json(database.read(|connection| {
        let mut statement = connection.prepare_cached("SELECT * FROM deployments WHERE id = ?1").unwrap();
        let found = statement.query_row([&id], |row| Ok(deployment(connection, row)));
        found.unwrap()
    }))
}

async fn list(State(database): State<Database>) -> Json<Value> {
    Json(database.read(|connection| {
        let query = "SELECT * FROM deployments WHERE TRUE ORDER BY id DESC LIMIT 51";
        let mut statement = connection.prepare_cached(query).unwrap();
        let rows = statement.query_map([], |row| Ok(deployment(connection, row))).unwrap();
        let mut items: Vec<_> = rows.map(Result::unwrap).collect();
        items.truncate(50);
        let next = items.last().map(|last| last["id"].clone());
        json!({ "items": items, "next": next })
    }))
}

fn deployment(connection: &Connection, row: &Row<'_>) -> Value {
    let text = |column: &str| row.get::<_, Option<String>>(column).unwrap();
    let id = text("id");
    let mut statement = connection.prepare_cached("SELECT * FROM stages WHERE deployment = ?1").unwrap();
    let stages = statement.query_map([&id], |row| {
        Ok(json!({ "stage": row.get::<_, String>("stage")?, "status": row.get::<_, String>("status")? }))
    });
    let stages: Vec<_> = stages.unwrap().map(Result::unwrap).collect();
    let created_at = jiff::Timestamp::from_microsecond(row.get("created_at").unwrap()).unwrap();
    let env: Value = serde_json::from_str(&text("env").unwrap()).unwrap();
    json!({
        "id": id, "key": { "sandbox": text("sandbox"), "repo": text("repo") }, "branch": text("branch"),
        "commit": text("commit_id"), "agent": text("agent"), "state": text("state"), "failure": text("failure"),
        "host_port": row.get::<_, Option<u16>>("host_port").unwrap(), "url": text("url"), "env": env,
        "user": text("user"), "created_at": created_at, "stages": stages,
    })
}
