//! What stands between agent and server: passes bytes on, until it is told to be a bad network.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What becomes of a request that asks for an upgrade to WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Upgrades {
    /// It passes.
    #[default]
    Pass,
    /// Its connection is reset.
    Reset,
    /// It is answered 403.
    Forbid,
    /// It passes, and nothing after its answer does.
    Mute,
}

/// How many of the connections so far are cut, and how many are stalled: numbers of the last ones.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    accepted: u64,
    cut: u64,
    stalled: u64,
    upgrades: Upgrades,
}

/// A TCP proxy to one address.
#[derive(Debug)]
pub struct Middlebox {
    address: SocketAddr,
    fate: Arc<watch::Sender<Fate>>,
    serving: JoinHandle<()>,
}

impl Middlebox {
    /// A proxy on a port of its own.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, fate) = (listener.local_addr()?, Arc::new(watch::Sender::new(Fate::default())));
        let fates = Arc::clone(&fate);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                fates.send_modify(|fate| fate.accepted += 1);
                let number = fates.borrow().accepted;
                tokio::spawn(pass(client, target, number, fates.subscribe()));
            }
        });
        Ok(Self { address, fate, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were.
    pub fn accepted(&self) -> u64 {
        self.fate.borrow().accepted
    }

    /// Resets every connection there is.
    pub fn cut(&self) {
        self.fate.send_modify(|fate| fate.cut = fate.accepted);
    }

    /// Lets nothing more pass on the connections there are, and keeps them open.
    pub fn stall(&self) {
        self.fate.send_modify(|fate| fate.stalled = fate.accepted);
    }

    /// Decides about upgrades from now on.
    pub fn upgrades(&self, upgrades: Upgrades) {
        self.fate.send_modify(|fate| fate.upgrades = upgrades);
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(mut client: TcpStream, target: SocketAddr, number: u64, mut fate: watch::Receiver<Fate>) {
    // A server that is being started again refuses: so does the proxy.
    let Ok(server) = TcpStream::connect(target).await else { return };
    let mut upgrades = fate.borrow().upgrades;
    if upgrades != Upgrades::Pass && !asks_for_upgrade(&client).await {
        upgrades = Upgrades::Pass;
    }
    if upgrades != Upgrades::Forbid {
        for stream in [&client, &server] {
            // Closing resets.
            let _ = stream.set_zero_linger();
        }
    }
    match upgrades {
        Upgrades::Reset => return,
        Upgrades::Forbid => {
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(answer).await;
            return;
        }
        Upgrades::Pass | Upgrades::Mute => {}
    }
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let stalls = fate.clone();
    let most = if upgrades == Upgrades::Mute { 1 } else { usize::MAX };
    tokio::select! {
        () = one_way(client_in, server_out, most, number, stalls.clone()) => {}
        () = one_way(server_in, client_out, most, number, stalls) => {}
        () = until(&mut fate, |fate| fate.cut >= number) => {}
    }
}

/// Whether the first request does, without taking it.
async fn asks_for_upgrade(client: &TcpStream) -> bool {
    let mut head = [0; 4096];
    let mut seen = 0;
    loop {
        let Ok(len) = client.peek(&mut head).await else { return false };
        let text = String::from_utf8_lossy(&head[..len]).to_lowercase();
        if text.contains("\r\nupgrade:") {
            return true;
        }
        if len == seen || len == head.len() || text.contains("\r\n\r\n") {
            return false;
        }
        seen = len;
    }
}

/// Passes on what is read, `most` times.
async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    most: usize,
    number: u64,
    mut fate: watch::Receiver<Fate>,
) {
    let mut bytes = vec![0; 16 * 1024];
    for _ in 0..most {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = until(&mut fate, |fate| fate.stalled >= number) => break,
        };
        match read {
            Ok(len) if len > 0 && to.write_all(&bytes[..len]).await.is_ok() => {}
            _ => return,
        }
    }
    std::future::pending().await
}

async fn until(fate: &mut watch::Receiver<Fate>, comes: impl FnMut(&Fate) -> bool) {
    // The proxy is gone: so is every connection.
    let _ = fate.wait_for(comes).await;
}
