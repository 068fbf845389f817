//! Ordinary requests while many clients are slow: to say what they want, to send it, to take what they asked for.

use std::{net::SocketAddr, time::Duration};

use sdp_benches::agent::Agent;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use super::{
    client::{Measured, load, request},
    process::Server,
};

/// How many are slow.
const CLIENTS: usize = 2000;
const CONNECTIONS: usize = 4;
const REQUESTS: usize = 1500;
const ROUNDS: usize = 5;

pub(crate) async fn run() {
    let (server, tokens) = Server::start(&["bench".to_owned()]).await;
    let mut agent = Agent::greet(server.address, "bench", &tokens[0]).await;
    let user = agent.sign_in(server.address).await;
    let deployment = agent.deployment(server.address, &user).await;
    let asked = request("GET", &format!("/api/deployments/{deployment}"), &user, "");
    let measure = async || load(server.address, vec![asked.clone(); CONNECTIONS], REQUESTS).await;
    measure().await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(measure().await);
        let clients = slow_clients(server.address).await;
        with.push(measure().await);
        drop(clients);
    }
    let middle = |measured: &[Measured], percent| {
        sdp_benches::median(measured.iter().map(|it| it.percentile(percent)).collect()).as_secs_f64() * 1e3
    };
    println!("{CLIENTS} slow clients beside {CONNECTIONS} that are not, GET /api/deployments/ID:");
    for percent in [50, 99] {
        let (before, during) = (middle(&without, percent), middle(&with, percent));
        println!("  p{percent}  without {before:>7.3} ms   with {during:>7.3} ms   {:>5.2} x", during / before);
    }
}

/// Dropping it ends them.
async fn slow_clients(server: SocketAddr) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let (ready, mut told) = tokio::sync::mpsc::channel(CLIENTS);
    for number in 0..CLIENTS {
        let ready = ready.clone();
        clients.spawn(async move {
            let mut ready = Some(ready);
            // Who is cut off comes again.
            loop {
                slow(server, number % 3, ready.take()).await.ok();
            }
        });
    }
    for _ in 0..CLIENTS {
        told.recv().await.unwrap();
    }
    clients
}

async fn slow(server: SocketAddr, kind: usize, ready: Option<tokio::sync::mpsc::Sender<()>>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    let begin: &[u8] = match kind {
        0 => b"GET /api/me HTTP/1.1\r\nhost: x\r\n",
        1 => b"POST /api/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n{",
        // Larger than what the kernel keeps for it.
        _ => b"GET /api/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n",
    };
    stream.write_all(begin).await?;
    if let Some(ready) = ready {
        ready.send(()).await.ok();
    }
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        match kind {
            0 => stream.write_all(b"x: y\r\n").await?,
            1 => stream.write_all(b" ").await?,
            _ => {}
        }
    }
}
