//! Whom to trust.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{ClientError, ServerAddress, error::BoxError};

/// The machine's CA certificates and those of a file. What is reached without TLS needs none.
pub(super) fn config(address: &ServerAddress, ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    if address.is_tls() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            add(&mut roots, path).map_err(|source| ClientError::CaFile { path: path.to_owned(), source })?;
        }
        if roots.is_empty() {
            return Err(ClientError::NoRoots);
        }
    }
    // Named, so that no provider need be installed for the process, and none is: that is for the program to do.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|source| ClientError::Tls { server: address.to_string(), source: source.into() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), BoxError> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.len() == before {
        return Err("there is no certificate in it".into());
    }
    Ok(())
}
