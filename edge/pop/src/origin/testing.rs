//! An origin's endpoint on this machine, for tests.

use quinn::{ClientConfig, Endpoint, ServerConfig};
use skerry_wire::frame::SERVER_NAME;
use std::sync::Arc;

/// A server, and what a client needs that trusts it.
pub(super) fn server() -> (Endpoint, ClientConfig) {
    let own = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    let here = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    (Endpoint::server(server, here).unwrap(), client)
}
