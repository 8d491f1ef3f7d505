//! Connections to nodes: one for each address, made when it is first used, kept.
//!
//! Invariant: what a peer sends is bounded by [`MESSAGE_BYTES_MAX`]; a connection attempt by
//! [`CONNECT_MS_MAX`].

use crate::error::Error;
use parking_lot::Mutex;
use skerry_wire::grpc::shards_client::ShardsClient;
use std::collections::HashMap;
use std::time::Duration;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Longest attempt to connect, in milliseconds.
const CONNECT_MS_MAX: u64 = 1_000;
/// A silent connection is asked after so long, and given up after the second figure, in milliseconds.
const KEEPALIVE_MS: u64 = 1_000;
const KEEPALIVE_LATE_MS: u64 = 2_000;
/// Addresses that are kept.
const PEERS_MAX: usize = 4_096;

pub type Client = ShardsClient<Channel>;

#[derive(Default)]
pub struct Peers {
    tls: Option<ClientTlsConfig>,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Peers {
    #[must_use]
    pub fn new(tls: Option<ClientTlsConfig>) -> Self {
        Self {
            tls,
            channels: Mutex::default(),
        }
    }

    /// A client for the node at `host:port`. Connects with the first call.
    pub fn client(&self, addr: &str) -> Result<Client, Error> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(addr) {
            Some(channel) => channel.clone(),
            None => {
                if channels.len() >= PEERS_MAX {
                    channels.clear();
                }
                let channel = self.endpoint(addr)?.connect_lazy();
                channels.insert(addr.to_owned(), channel.clone());
                channel
            }
        };
        Ok(ShardsClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn endpoint(&self, addr: &str) -> Result<Endpoint, Error> {
        let wrong = |error: tonic::transport::Error| Error::Unreachable(format!("{addr}: {error}"));
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}")).map_err(wrong)?;
        let endpoint = endpoint
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .http2_keep_alive_interval(Duration::from_millis(KEEPALIVE_MS))
            .keep_alive_timeout(Duration::from_millis(KEEPALIVE_LATE_MS))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(wrong),
            None => Ok(endpoint),
        }
    }
}
