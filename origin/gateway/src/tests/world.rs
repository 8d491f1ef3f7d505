//! An origin with a small world, a PoP's side of the wire, and plain HTTP.

use crate::{Data, Handle, Options, Step};
use bytes::Bytes;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use skerry_types::{Ask, Attributes, Event, Item, ItemId, Rights, Uid, UserId, Value};
use skerry_wire::codec::Schema;
use skerry_wire::frame::{
    ALPN, AnswerFrame, AskFrame, Control, Hello, PROTOCOL, PushHeader, PushKind, SERVER_NAME,
    Welcome,
};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const ITEMS: usize = 80;
pub const USERS: usize = 60;

pub fn item(n: usize) -> Item {
    let genre = ["Drama", "Comedy", "Horror", "War"][n % 4];
    let attributes = Attributes::from([
        ("title".into(), Value::text(&format!("Item {n}"))),
        ("genre".into(), Value::List(vec![Value::text(genre)])),
        ("year".into(), Value::Int(1980 + n as i64 % 40)),
    ]);
    Item {
        id: ItemId::new(&n.to_string()).unwrap(),
        attributes,
        rights: Rights::default(),
    }
}

pub use skerry_testkit::like as event;

/// Users like items of one genre, in an order.
pub fn data(digest: u8, users: usize) -> Data {
    let mut events = Vec::new();
    for user in 0..users {
        for step in 0..12 {
            let n = (user % 4 + 4 * ((user / 4 + step * 3) % (ITEMS / 4))) % ITEMS;
            events.push(event(
                &format!("d:{user}:{n}"),
                &user.to_string(),
                &n.to_string(),
                1_000_000 + 100 * step as u64,
            ));
        }
    }
    Data::Made {
        digest: [digest; 32],
        items: (0..ITEMS).map(item).collect(),
        events,
    }
}

pub struct Certificates {
    pub ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        Self {
            ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    /// Certificate and key in PEM.
    pub fn issue(&self, uri: &str, dns: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(uri.try_into().unwrap()));
        (
            params.signed_by(&key, &self.ca).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    pub fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("ca.crt"), self.ca.pem()).unwrap();
        let (certificate, key) = self.issue("skerry://local/origin/o", SERVER_NAME);
        std::fs::write(dir.join("origin.crt"), certificate).unwrap();
        std::fs::write(dir.join("origin.key"), key).unwrap();
    }

    /// A client's settings; `uri: None` is a client without certificate.
    pub fn client(&self, uri: Option<&str>) -> ClientConfig {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match uri {
            Some(uri) => {
                let (certificate, key) = self.issue(uri, "pop.skerry");
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(
                        chain,
                        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                    )
                    .unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = ClientConfig::new(Arc::new(
            quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap(),
        ));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(500)));
        client.transport_config(Arc::new(transport));
        client
    }
}

pub struct Running {
    pub handle: Handle,
    pub dir: tempfile::TempDir,
    pub certificates: Certificates,
    pub notes: Arc<parking_lot::Mutex<Vec<Step>>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), crate::Error>>>,
}

pub fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.join("state"), dir.join("keys"));
    // The least that makes a model: quality is tested where training lives.
    options.train.trees = 2;
    options.train.als.iterations = 2;
    options.train.folds = 2;
    options.train.fold_iterations = 1;
    options.train.groups_max = 40;
    options.limits.frame_ms = 400;
    options.limits.drain_ms = 2_000;
    options
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::new();
        certificates.write(&dir.path().join("keys"));
        Self::start_in(dir, certificates, |options| {
            options.data = Some(data(1, USERS));
            change(options);
        })
        .await
        .unwrap()
    }

    pub async fn start_in(
        dir: tempfile::TempDir,
        certificates: Certificates,
        change: impl FnOnce(&mut Options),
    ) -> Result<Self, crate::Error> {
        let notes: Arc<parking_lot::Mutex<Vec<Step>>> = Arc::default();
        let mut options = options(dir.path());
        let taken = Arc::clone(&notes);
        options.progress = Arc::new(move |step| taken.lock().push(step));
        change(&mut options);
        let origin = options.build().await?;
        let handle = origin.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(origin.run(async {
            let _ = stopped.await;
        }));
        let running = Self {
            handle,
            dir,
            certificates,
            notes,
            stop: Some(stop),
            task: Some(task),
        };
        tokio::time::timeout(Duration::from_secs(60), running.handle.started())
            .await
            .unwrap()?;
        Ok(running)
    }

    /// Drains and hands the folder back.
    pub async fn stop(mut self) -> (tempfile::TempDir, Certificates) {
        drop(self.stop.take());
        self.task.take().unwrap().await.unwrap().unwrap();
        (self.dir, self.certificates)
    }

    pub async fn pop(&self, name: &str) -> Pop {
        Pop::connect(&self.certificates, self.handle.quic_addr(), name, vec![]).await
    }

    /// A connection of a PoP that begins with `first`.
    pub async fn begin(&self, first: &Control) -> Begun {
        Begun::with(&self.certificates, self.handle.quic_addr(), "p", first).await
    }

    pub async fn http(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> (u16, String, serde_json::Value) {
        http(self.handle.admin_addr(), method, path, &[], body).await
    }
}

pub fn endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
}

/// A connection of a PoP that has said its first word.
pub struct Begun {
    pub connection: Connection,
    pub send: SendStream,
    pub recv: RecvStream,
    _endpoint: Endpoint,
}

impl Begun {
    async fn with(
        certificates: &Certificates,
        addr: SocketAddr,
        name: &str,
        first: &Control,
    ) -> Self {
        let endpoint = endpoint();
        let config = certificates.client(Some(&format!("skerry://local/pop/{name}")));
        let connection = endpoint
            .connect_with(config, addr, SERVER_NAME)
            .unwrap()
            .await
            .unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        write(&mut send, first).await;
        Self {
            connection,
            send,
            recv,
            _endpoint: endpoint,
        }
    }

    pub async fn ask(&self, frame: &AskFrame) -> AnswerFrame {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        write(&mut send, frame).await;
        send.finish().unwrap();
        read(&mut recv).await
    }
}

/// A PoP's side.
pub struct Pop {
    begun: Begun,
    pub welcome: Welcome,
}

impl std::ops::Deref for Pop {
    type Target = Begun;

    fn deref(&self) -> &Begun {
        &self.begun
    }
}

impl std::ops::DerefMut for Pop {
    fn deref_mut(&mut self) -> &mut Begun {
        &mut self.begun
    }
}

impl Pop {
    pub async fn connect(
        certificates: &Certificates,
        addr: SocketAddr,
        name: &str,
        held: Vec<(PushKind, u64, [u8; 32])>,
    ) -> Self {
        let hello = Hello {
            protocol: PROTOCOL,
            pop: name.into(),
            region: "local".into(),
            held,
            invalidated: 0,
        };
        let mut begun = Begun::with(certificates, addr, name, &Control::Hello(hello)).await;
        let Control::Welcome(welcome) = read(&mut begun.recv).await else {
            panic!("not a welcome")
        };
        Self { begun, welcome }
    }

    /// The next control frame that is not a region frame.
    pub async fn control(&mut self) -> Control {
        loop {
            match read(&mut self.recv).await {
                Control::Region(state) => assert_eq!(&*state.region, "local"),
                other => return other,
            }
        }
    }

    pub async fn deliver(&mut self, seq: u64, events: Vec<Event>) {
        write(&mut self.send, &Control::Events { seq, events }).await;
        loop {
            match self.control().await {
                Control::Ack { seq: acked } if acked == seq => break,
                Control::Ack { .. } | Control::Invalidate { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next push.
    pub async fn push(&self) -> (PushHeader, Vec<u8>) {
        let accept = async {
            let mut stream = self.connection.accept_uni().await.unwrap();
            let header: PushHeader = read(&mut stream).await;
            let body = stream.read_to_end(64 << 20).await.unwrap();
            (header, body)
        };
        tokio::time::timeout(Duration::from_secs(10), accept)
            .await
            .expect("a push within 10 s")
    }

    /// The next push of a kind.
    pub async fn push_of(&self, kind: PushKind) -> (PushHeader, Vec<u8>) {
        loop {
            let push = self.push().await;
            if push.0.kind == kind {
                return push;
            }
        }
    }
}

pub async fn write<T: Schema + serde::Serialize>(send: &mut SendStream, frame: &T) {
    let bytes = Bytes::from(skerry_wire::encode(frame).unwrap());
    let length = Bytes::copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    send.write_all_chunks(&mut [length, bytes]).await.unwrap();
}

pub async fn read<T: Schema + serde::de::DeserializeOwned>(recv: &mut RecvStream) -> T {
    let mut length = [0; 4];
    let whole = async {
        recv.read_exact(&mut length).await.unwrap();
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        recv.read_exact(&mut bytes).await.unwrap();
        skerry_wire::decode(&bytes).unwrap()
    };
    tokio::time::timeout(Duration::from_secs(10), whole)
        .await
        .expect("a frame within 10 s")
}

pub fn ask(user: Option<&str>, n: u64) -> AskFrame {
    let user = user.map(|user| UserId::new(user).unwrap());
    AskFrame {
        request_id: Uid::v7(u64::from(u32::MAX) * 400, crate::clock::entropy()),
        ask: Ask {
            user,
            n: skerry_types::Count::new(n).unwrap(),
            budget_ms: 5_000,
            explain: true,
            ..Ask::default()
        },
        left_ms: 5_000,
        seed: 7,
        pending: vec![],
        known_context: 0,
    }
}

/// One request on a connection of its own: status, headers, body.
pub async fn http(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String, serde_json::Value) {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses by the length may close before it has read the body.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes))
        .await
        .expect("an answer within 10 s");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    (
        status,
        head.to_ascii_lowercase(),
        serde_json::from_str(body).unwrap_or(serde_json::Value::String(body.to_owned())),
    )
}
