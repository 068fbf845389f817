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

/// How many of the connections so far are cut, and how many are stalled: numbers of the last ones.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    accepted: u64,
    cut: u64,
    stalled: u64,
}

/// A TCP proxy to one address.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    fate: Arc<watch::Sender<Fate>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> io::Result<Self> {
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

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection there is.
    pub(super) fn cut(&self) {
        self.fate.send_modify(|fate| fate.cut = fate.accepted);
    }

    /// Lets nothing more pass on the connections there are, and keeps them open.
    pub(super) fn stall(&self) {
        self.fate.send_modify(|fate| fate.stalled = fate.accepted);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(client: TcpStream, target: SocketAddr, number: u64, mut fate: watch::Receiver<Fate>) {
    // A server that is being started again refuses: so does the proxy.
    let Ok(server) = TcpStream::connect(target).await else { return };
    for stream in [&client, &server] {
        // Closing resets.
        let _ = stream.set_zero_linger();
    }
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let stalls = fate.clone();
    tokio::select! {
        () = one_way(client_in, server_out, number, stalls.clone()) => {}
        () = one_way(server_in, client_out, number, stalls) => {}
        () = until(&mut fate, |fate| fate.cut >= number) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: u64, mut fate: watch::Receiver<Fate>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            () = until(&mut fate, |fate| fate.stalled >= number) => return std::future::pending().await,
        };
        match read {
            Ok(len) if len > 0 && to.write_all(&bytes[..len]).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn until(fate: &mut watch::Receiver<Fate>, comes: impl FnMut(&Fate) -> bool) {
    // The proxy is gone: so is every connection.
    let _ = fate.wait_for(comes).await;
}
