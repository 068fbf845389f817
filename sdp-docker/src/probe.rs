//! Probing a port, the same for every deployer.

use std::{net::SocketAddr, time::Duration};

use sdp_core::Probe;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// How long one probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection must stay open: Docker's proxy accepts for programs that do not listen,
/// and closes at once.
const STAYS_OPEN: Duration = Duration::from_millis(100);

/// Asks with a GET; a status below 400 is healthy.
pub(crate) async fn http(client: &reqwest::Client, address: SocketAddr, path: &str) -> Probe {
    match client.get(format!("http://{address}{path}")).send().await {
        Ok(response) if response.status().as_u16() < 400 => Probe::Healthy,
        Ok(response) => Probe::NotYet(format!("GET {path} answered {}", response.status())),
        Err(error) if error.is_timeout() => Probe::NotYet(format!("GET {path} was not answered within 3 s")),
        Err(error) => Probe::NotYet(format!("GET {path} failed: {}", root(&error))),
    }
}

fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A client for probes: no redirects, no proxy, short.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(PROBE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
}

/// Connects; a connection that stays open is healthy.
pub(crate) async fn tcp(address: SocketAddr) -> Probe {
    let mut stream = match tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Probe::NotYet(format!("port {} does not answer: {error}", address.port())),
        Err(_) => return Probe::NotYet(format!("port {} did not answer within 3 s", address.port())),
    };
    match tokio::time::timeout(STAYS_OPEN, stream.read(&mut [0])).await {
        Err(_) | Ok(Ok(1..)) => Probe::Healthy,
        Ok(Ok(0)) | Ok(Err(_)) => Probe::NotYet(format!("port {} closes connections at once", address.port())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_port_that_closes_at_once_is_not_healthy_and_one_that_waits_or_speaks_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (probe, _) = tokio::join!(tcp(address), async { drop(listener.accept().await.unwrap()) });
        assert!(matches!(probe, Probe::NotYet(_)), "{probe:?}");
        let (probe, _held) = tokio::join!(tcp(address), async { listener.accept().await.unwrap() });
        assert_eq!(probe, Probe::Healthy);
        let speak = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 hello").await.unwrap();
        };
        assert_eq!(tokio::join!(tcp(address), speak).0, Probe::Healthy);
        drop(listener);
        assert!(matches!(tcp(address).await, Probe::NotYet(_)));
    }

    #[tokio::test]
    async fn an_error_status_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let client = client().unwrap();
        let probe = tokio::join!(http(&client, address, "/healthz"), answer).0;
        assert_eq!(probe, Probe::NotYet("GET /healthz answered 503 Service Unavailable".into()));
    }
}
