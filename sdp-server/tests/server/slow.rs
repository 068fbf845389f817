//! Clients that take their time, thousands of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Plane, inventory, patiently};

/// How many there are.
const CLIENTS: usize = 2000;

/// What a client begins with, and does not go on: it does not say what it wants, does not send it, or does not take what
/// it asked for.
const BEGINNINGS: [&[u8]; 5] = [
    b"",
    b"GET /api/me HTTP/1.1\r\nhost: x\r\n",
    b"POST /api/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n{",
    b"POST /api/webhooks/bitbucket/corp HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
    b"GET /api/openapi.json HTTP/1.1\r\nhost: x\r\n\r\nGET /api/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
];

#[tokio::test]
async fn thousands_of_slow_clients_keep_nobody_from_being_served() {
    // Both ends of each connection are this process's.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let room = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    assert!(room > 2 * CLIENTS + 1000, "{room} open files are too few for this test: raise `ulimit -Hn`");

    let plane = Plane::new().await;
    let (mut agent, api, _) = plane.ready(inventory(&["eredar"])).await;
    let mut slow = Vec::new();
    for number in 0..CLIENTS {
        let mut stream = patiently(TcpStream::connect(plane.address())).await.unwrap();
        stream.write_all(BEGINNINGS[number % BEGINNINGS.len()]).await.unwrap();
        slow.push(stream);
    }
    for number in 0..50 {
        assert_eq!(api.get("/api/deployments").await.0, 200);
        let name = format!("s{number}");
        assert_eq!(api.post("/api/sandboxes", json!({ "name": name })).await.0, 201);
        assert_eq!(api.get(&format!("/api/sandboxes/{name}")).await.0, 200);
    }
    let deployment = agent.runs(&api, "/api/deployments").await;
    assert_eq!(api.get(&format!("/api/deployments/{}", deployment.id)).await.1["state"], "running");
    assert_eq!(slow.len(), CLIENTS);
    drop(slow);
    plane.server.shutdown().await;
}
