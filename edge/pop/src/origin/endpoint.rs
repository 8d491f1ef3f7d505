//! UDP sockets towards the origin.

use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime};
use skerry_wire::frame::{SERVER_NAME, SOCKET_BYTES};
use socket2::SockRef;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// A handshake must be over within this, in milliseconds.
const CONNECT_MS_MAX: u64 = 2_000;

/// One endpoint for each address family, made when first needed; driven by the runtime that asks.
#[derive(Default)]
pub(super) struct Endpoints {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Endpoints {
    /// A connection to the origin at `addr`, or why there is none.
    pub(super) async fn connect(
        &mut self,
        addr: SocketAddr,
        tls: ClientConfig,
    ) -> Result<Connection, String> {
        let endpoint = self.to(addr).map_err(|error| error.to_string())?;
        let connecting = endpoint
            .connect_with(tls, addr, SERVER_NAME)
            .map_err(|error| error.to_string())?;
        tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), connecting)
            .await
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| error.to_string())
    }

    fn to(&mut self, addr: SocketAddr) -> std::io::Result<&Endpoint> {
        let (slot, any) = match addr {
            SocketAddr::V4(_) => (&mut self.v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            SocketAddr::V6(_) => (&mut self.v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        if slot.is_none() {
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            // As much as the kernel gives: less costs datagrams in a burst, and nothing else.
            let _ = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES);
            let config = EndpointConfig::default();
            *slot = Some(Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?);
        }
        slot.as_ref()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// Waits until what was closed has said so to its peer.
    pub(super) async fn wait_idle(&self) {
        for endpoint in [&self.v4, &self.v6].into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
}
