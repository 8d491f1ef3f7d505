//! Mutual TLS of the QUIC connection: the deployment's own authority, our certificate, TLS 1.3.

use crate::error::Error;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skerry_wire::frame::ALPN;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A silent connection is lost after this long, in milliseconds.
const IDLE_MS: u32 = 2_000;
const KEEP_ALIVE_MS: u64 = 500;
/// Pushes at once, at most.
pub const PUSHES_MAX: u32 = 8;

/// Reads `ca.crt`, `pop.crt` and `pop.key` of the key folder.
pub fn client_config(keys: &Path) -> Result<ClientConfig, Error> {
    let bad = |name: &str, detail: String| Error::Keys {
        path: keys.join(name),
        detail,
    };
    let certificates = |name: &str| {
        let all = CertificateDer::pem_file_iter(keys.join(name))
            .map_err(|error| bad(name, error.to_string()))?;
        let all: Result<Vec<_>, _> = all.collect();
        let all = all.map_err(|error| bad(name, error.to_string()))?;
        if all.is_empty() {
            Err(bad(name, "no certificate in it".to_owned()))
        } else {
            Ok(all)
        }
    };
    let mut roots = RootCertStore::empty();
    for root in certificates("ca.crt")? {
        roots
            .add(root)
            .map_err(|error| bad("ca.crt", error.to_string()))?;
    }
    let own = certificates("pop.crt")?;
    let key = PrivateKeyDer::from_pem_file(keys.join("pop.key"))
        .map_err(|error| bad("pop.key", error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Quic(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(own, key)
        .map_err(|error| bad("pop.crt", error.to_string()))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let quic = QuicClientConfig::try_from(tls).map_err(|error| Error::Quic(error.to_string()))?;
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(Duration::from_millis(KEEP_ALIVE_MS)))
        .max_concurrent_uni_streams(VarInt::from_u32(PUSHES_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(0));
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
