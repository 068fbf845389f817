//! Ten thousand agents that have nothing to say, and the server starting again under them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use sdp_benches::agent::{client, hello};
use sdp_core::protocol::{AgentFrame, Frame, WireMessage};
use tokio::time::sleep;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use super::process::Server;

const AGENTS: usize = 10_000;
/// As an agent's: the first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

pub(crate) async fn run() {
    let names: Vec<_> = (0..AGENTS).map(|number| format!("vm-{number}")).collect();
    let (mut server, tokens) = Server::start(&names).await;
    let empty = server.resident();
    for (number, (name, token)) in names.into_iter().zip(tokens).enumerate() {
        tokio::spawn(agent(server.address, name, token));
        // Not all at once: that comes after the restart.
        if number % 200 == 199 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    let took = until_connected(&server).await;
    println!("{AGENTS} agents connected {took:.1?} after the last was started");
    // Some rounds of pings.
    sleep(Duration::from_secs(12)).await;
    let each = (server.resident() - empty) as f64 / AGENTS as f64;
    println!("  {each:.1} KiB of memory each on the server ({empty} KiB without any)");
    server.restart();
    let took = until_connected(&server).await;
    println!("  the server killed and started again: all of them back after {took:.1?}");
}

/// How long until every agent is connected.
async fn until_connected(server: &Server) -> Duration {
    let began = Instant::now();
    let client = client();
    let url = format!("http://{}/readyz", server.address);
    loop {
        let health: serde_json::Value = client.get(&url).send().await.unwrap().json().await.unwrap();
        if health["agents_connected"] == AGENTS {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(120), "only {} are connected", health["agents_connected"]);
        sleep(Duration::from_millis(100)).await;
    }
}

/// Connects, answers pings, and connects again with an agent's patience.
async fn agent(server: SocketAddr, name: String, token: String) {
    let hello = AgentFrame::Hello(hello(name.parse().unwrap(), &token, Vec::new()));
    let WireMessage::Text(hello) = hello.encode() else { panic!("a hello is text") };
    let mut pause = PAUSE.0;
    loop {
        let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
        let dialled = connect_async_with_config(format!("ws://{server}/ws/agent"), Some(config), true).await;
        if let Ok((mut socket, _)) = dialled
            && let Ok(()) = talk(&mut socket, &hello).await
        {
            pause = PAUSE.0;
        }
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Until the connection ends; an error when it did before it was welcomed.
async fn talk(socket: &mut WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>, hello: &str) -> Result<(), Error> {
    socket.send(Message::text(hello)).await?;
    socket.next().await.transpose()?.ok_or(Error::ConnectionClosed)?;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}
