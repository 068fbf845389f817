//! TLS: a certificate and its key from files, read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// How often it is looked for a new certificate.
const LOOK: Duration = Duration::from_secs(5);

/// Why a certificate cannot be served with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read; check `tls` in the configuration and the file's permissions", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file is not.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not go together.
    #[error("certificate {} and key {} do not go together", .certificate.display(), .key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Encrypts connections. Clones share the certificate.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    files: Arc<Files>,
    present: Arc<Present>,
    config: Arc<rustls::ServerConfig>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The certificate in use.
#[derive(Debug)]
struct Present {
    pair: RwLock<Arc<CertifiedKey>>,
    read: RwLock<[Option<SystemTime>; 2]>,
}

impl ResolvesServerCert for Present {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    pub(crate) fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let files = Files { certificate, key };
        let read = files.modified();
        let present = Arc::new(Present { pair: RwLock::new(files.load()?), read: RwLock::new(read) });
        let provider = Arc::new(ring::default_provider());
        let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let versions = versions.map_err(|source| files.unpaired(source))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Present>::clone(&present);
        let mut config = versions.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { files: Arc::new(files), present, config: Arc::new(config) })
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await
    }

    /// Looks from time to time whether there is a new certificate, until the server stops.
    pub(crate) async fn keep_fresh(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            self.reload();
        }
    }

    /// Takes over what the files hold by now, if they have changed. Until both are whole and go together, the
    /// certificate stays that is in use.
    fn reload(&self) {
        let now = self.files.modified();
        if now == *self.present.read.read().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        match self.files.load() {
            Ok(pair) => {
                *self.present.pair.write().unwrap_or_else(PoisonError::into_inner) = pair;
                *self.present.read.write().unwrap_or_else(PoisonError::into_inner) = now;
                tracing::info!(certificate = %self.files.certificate.display(), "took over a new certificate");
            }
            Err(error) => {
                let error = sdp_core::problem::chain(&error);
                tracing::warn!(error, "the new certificate cannot be used; serving with the one before");
            }
        }
    }
}

impl Files {
    fn modified(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
    }

    fn load(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Read { path, source }
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate).map_err(failed(&self.certificate))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(failed(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(failed(&self.key))?;
        let pair = CertifiedKey::from_der(chain, key, &ring::default_provider());
        pair.map(Arc::new).map_err(|source| self.unpaired(source))
    }

    fn unpaired(&self, source: rustls::Error) -> TlsError {
        TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio::{io::AsyncReadExt, net::TcpListener};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Writes a new certificate for localhost, and gives it.
    fn renew(dir: &Path) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("tls.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        made.cert.der().clone()
    }

    /// Whether a client that trusts this certificate alone is let in.
    async fn trusted(tls: &Tls, certificate: &CertificateDer<'static>) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.clone();
        let served = tokio::spawn(async move { tls.accept(listener.accept().await.unwrap().0).await.map(drop) });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let connected = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await;
        let is_trusted = connected.is_ok();
        if let Ok(mut stream) = connected {
            let _ = stream.read(&mut [0]).await;
        }
        let _ = served.await.unwrap();
        is_trusted
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_taken_over_and_half_of_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("tls.pem"), dir.path().join("tls.key"));
        let missing = Tls::new(certificate.clone(), key.clone()).unwrap_err();
        assert!(missing.to_string().contains("tls.pem"), "{missing}");
        let first = renew(dir.path());
        let tls = Tls::new(certificate.clone(), key.clone()).unwrap();
        assert!(trusted(&tls, &first).await);

        let second = renew(dir.path());
        tls.reload();
        assert!(trusted(&tls, &second).await && !trusted(&tls, &first).await);

        let key_of_another = std::fs::read(&key).unwrap();
        renew(dir.path());
        std::fs::write(&key, key_of_another).unwrap();
        tls.reload();
        assert!(trusted(&tls, &second).await, "certificate and key do not go together");
        assert!(matches!(Tls::new(certificate, key), Err(TlsError::Pair { .. })));
    }
}
