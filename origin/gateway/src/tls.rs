//! Who may talk QUIC with us: peers with a certificate of our CA whose URI SAN says `pop`.

use crate::Error;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skerry_types::TenantId;
use skerry_wire::frame::ALPN;
use skerry_wire::value::{ApiKey, KeyClass};
use std::path::Path;
use std::sync::Arc;

/// A folder of keys: certificates for QUIC, and digests of the API keys where there are any.
#[derive(Debug)]
pub struct Keys {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Digests of `api-public.key`, `api-secret.key` and `api-pop.key`, as far as they exist.
    pub api: Vec<ApiKey>,
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub region: String,
    pub role: String,
    pub name: String,
}

impl Keys {
    /// Reads `ca.crt`, `origin.crt`, `origin.key` and what API keys there are.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let refuse = |name: &str, reason: String| Error::Keys {
            path: dir.join(name),
            reason,
        };
        let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>, Error> {
            let read = CertificateDer::pem_file_iter(dir.join(name))
                .and_then(Iterator::collect::<Result<Vec<_>, _>>);
            match read {
                Ok(list) if list.is_empty() => {
                    Err(refuse(name, "it holds no certificate".to_owned()))
                }
                Ok(list) => Ok(list),
                Err(error) => Err(refuse(name, error.to_string())),
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca.crt")? {
            roots
                .add(certificate)
                .map_err(|error| refuse("ca.crt", error.to_string()))?;
        }
        let key = PrivateKeyDer::from_pem_file(dir.join("origin.key"))
            .map_err(|error| refuse("origin.key", error.to_string()))?;
        let chain = certificates("origin.crt")?;
        Ok(Self {
            roots: Arc::new(roots),
            chain,
            key,
            api: api_keys(dir)?,
        })
    }

    /// TLS 1.3 only, with a client certificate of our CA.
    pub fn server(&self) -> Result<quinn::crypto::rustls::QuicServerConfig, Error> {
        let refuse = |error: &dyn std::fmt::Display| Error::Keys {
            path: "keys".into(),
            reason: error.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| refuse(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refuse(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| refuse(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // No early data: a replayed Ask would be harmless, replayed events would cost a lookup each.
        config.max_early_data_size = 0;
        quinn::crypto::rustls::QuicServerConfig::try_from(config).map_err(|error| refuse(&error))
    }
}

/// Digests of the API keys in a folder; of the default tenant, until a key says otherwise.
pub fn api_keys(dir: &Path) -> Result<Vec<ApiKey>, Error> {
    use sha2::Digest;
    let names = [
        ("api-public.key", KeyClass::Public),
        ("api-secret.key", KeyClass::Secret),
        ("api-pop.key", KeyClass::Pop),
    ];
    let mut keys = Vec::new();
    for (name, class) in names {
        let path = dir.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                return Err(Error::Keys {
                    path,
                    reason: "the file is empty".to_owned(),
                });
            }
            Ok(text) => {
                let sha256 = sha2::Sha256::digest(text.trim().as_bytes()).into();
                keys.push(ApiKey {
                    sha256,
                    class,
                    tenant: TenantId::default(),
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::Keys {
                    path,
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(keys)
}

/// The first `skerry://REGION/ROLE/NAME` among a certificate's URI SANs.
pub fn peer_of(certificate: &CertificateDer<'_>) -> Option<Peer> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => {
                let mut parts = uri.strip_prefix("skerry://")?.split('/');
                let peer = Peer {
                    region: parts.next()?.into(),
                    role: parts.next()?.into(),
                    name: parts.next()?.into(),
                };
                parts.next().is_none().then_some(peer)
            }
            _ => None,
        })
}
