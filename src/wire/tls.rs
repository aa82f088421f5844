//! TLS 1.2 and 1.3 through rustls: certificates that can be exchanged while connections live on.
//!
//! The protocol under it is chosen as without TLS, by its first bytes; ALPN offers `h2` and `http/1.1`.
#![forbid(unsafe_code)]

use std::sync::{Arc, PoisonError, RwLock};

pub(super) use rustls::ServerConnection;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use thiserror::Error;

/// Why TLS cannot be offered with what was given.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The text holds no certificate, or a damaged one.
    #[error("the certificate file holds no readable PEM certificate")]
    Certificate,
    /// The text holds no private key, or a damaged one.
    #[error("the key file holds no readable PEM private key")]
    Key,
    /// The authorities for client certificates cannot be used.
    #[error("the certificate authorities for clients cannot be used")]
    Authorities,
    /// The key is of an unknown kind, or does not belong to the certificate.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The TLS side of a server; clones share their certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    identity: Arc<Identity>,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
struct Identity(RwLock<Arc<CertifiedKey>>);

impl Tls {
    /// Offers TLS with a certificate chain and its key, both as PEM text.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Tls, TlsError> {
        Tls::build(certificates, key, None)
    }

    /// Like [`Tls::new`]; clients must show a certificate that one of `authorities` (PEM) has signed.
    pub fn with_client_certificates(
        certificates: &[u8],
        key: &[u8],
        authorities: &[u8],
    ) -> Result<Tls, TlsError> {
        Tls::build(certificates, key, Some(authorities))
    }

    fn build(certificates: &[u8], key: &[u8], authorities: Option<&[u8]>) -> Result<Tls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let identity = Arc::new(Identity(RwLock::new(certified_key(&provider, certificates, key)?)));
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                for certificate in chain(authorities).map_err(|_| TlsError::Authorities)? {
                    roots.add(certificate).map_err(|_| TlsError::Authorities)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|_| TlsError::Authorities)?)
            }
        };
        let mut config = builder.with_cert_resolver(identity.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        Ok(Tls { config: Arc::new(config), identity })
    }

    /// Shows another certificate from the next handshake on; connections that exist are not touched. If the new one
    /// cannot be used, the old one stays.
    pub fn reload(&self, certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = certified_key(self.config.crypto_provider(), certificates, key)?;
        *self.identity.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The state of a new connection.
    pub(super) fn accept(&self) -> Result<ServerConnection, rustls::Error> {
        ServerConnection::new(self.config.clone())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified_key(
    provider: &CryptoProvider,
    certificates: &[u8],
    key: &[u8],
) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    let key = CertifiedKey::from_der(chain(certificates)?, key, provider)?;
    Ok(Arc::new(key))
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Certificate)
}
