//! Who may talk to a shard node beyond its machine: holders of a certificate of our CA whose URI SAN
//! says `vector`. A PoP's or an origin's own certificate opens nothing here.
//!
//! Invariant: both sides show a certificate; a node is known by [`SERVER_NAME`], not by its address.

use crate::error::Error;
use std::path::Path;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The name in every node's certificate.
pub const SERVER_NAME: &str = "vector.skerry";
const ROLE: &str = "vector";

/// Certificates of both directions.
#[derive(Clone)]
pub struct Tls {
    pub server: ServerTlsConfig,
    pub client: ClientTlsConfig,
}

impl Tls {
    /// Reads `ca.crt`, `vector.crt` and `vector.key` of a folder of keys.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(Error::io(&path))
        };
        let ca = Certificate::from_pem(read("ca.crt")?);
        let identity = Identity::from_pem(read("vector.crt")?, read("vector.key")?);
        Ok(Self {
            server: ServerTlsConfig::new()
                .identity(identity.clone())
                .client_ca_root(ca.clone()),
            client: ClientTlsConfig::new()
                .identity(identity)
                .ca_certificate(ca)
                .domain_name(SERVER_NAME),
        })
    }
}

/// Refuses a peer whose certificate is for something else.
pub fn check_peer(request: Request<()>) -> Result<Request<()>, Status> {
    let certificates = request.peer_certs();
    let first = certificates.as_ref().and_then(|list| list.first());
    if first.is_some_and(|certificate| is_ours(certificate)) {
        Ok(request)
    } else {
        Err(Status::permission_denied(
            "this certificate is not for shard nodes",
        ))
    }
}

/// Whether a URI SAN is `skerry://REGION/vector/NAME`.
fn is_ours(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::URI(uri) => {
            let path = uri.strip_prefix("skerry://").unwrap_or_default();
            path.split('/').nth(1) == Some(ROLE)
        }
        _ => false,
    })
}
