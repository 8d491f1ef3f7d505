//! What one origin answers and stores over QUIC, on real data, with the client in the same process:
//! `cargo run --release -p skerry-origin-gateway --example measure -- ml-latest-small [SECONDS] [IN_FLIGHT] [FOLDER]`
//! (with FOLDER the state is kept, and found again by the next run)

use bytes::Bytes;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skerry_origin_gateway::{Data, Options, Step};
use skerry_types::{Ask, Event, EventId, EventKind, Hlc, ItemId, TenantId, Uid, UserId};
use skerry_wire::codec::Schema;
use skerry_wire::frame::{
    ALPN, AnswerFrame, AskFrame, Control, Hello, PROTOCOL, SERVER_NAME, Stage,
};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("give a folder of data")?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let in_flight: u64 = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = arguments
        .next()
        .map_or_else(|| temporary.path().to_owned(), std::path::PathBuf::from);
    let client = keys(&dir.join("keys"))?;
    for round in ["first start", "second start"] {
        let mut options = Options::new(dir.join("state"), dir.join("keys"));
        options.data = Some(Data::Path(data.clone().into()));
        options.progress = Arc::new(|step| {
            if let Step::Note(note) = step {
                println!("  {note}");
            }
        });
        let began = Instant::now();
        let origin = options.build().await?;
        let handle = origin.handle();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(origin.run(async {
            let _ = stopped.await;
        }));
        handle.started().await?;
        println!(
            "{round}: ready after {} ms, {} events",
            began.elapsed().as_millis(),
            handle.events()?
        );
        if round == "second start" {
            let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
            let connection = endpoint
                .connect_with(client.clone(), handle.quic_addr(), SERVER_NAME)?
                .await?;
            let control = greet(&connection).await?;
            asks(&connection, seconds, in_flight).await?;
            events(control, seconds).await?;
        }
        drop(stop);
        running.await??;
    }
    Ok(())
}

async fn asks(connection: &Connection, seconds: u64, in_flight: u64) -> Result<(), Failed> {
    let cpu = cpu_us()?;
    let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut workers = Vec::new();
    for worker in 0..in_flight {
        let (connection, done, failed) =
            (connection.clone(), Arc::clone(&done), Arc::clone(&failed));
        workers.push(tokio::spawn(async move {
            let (mut times, mut stages) = (Vec::new(), [0u64; 6]);
            let mut n = worker;
            while Instant::now() < until {
                n += in_flight;
                let began = Instant::now();
                let answer = question(&connection, &(1 + n % 610).to_string(), n).await?;
                times.push(u64::try_from(began.elapsed().as_micros())?);
                let counter = if answer.outcome.is_ok() {
                    &done
                } else {
                    &failed
                };
                counter.fetch_add(1, Ordering::Relaxed);
                for (stage, us) in answer.stages {
                    if let Some(at) = Stage::ALL.iter().position(|one| *one == stage) {
                        stages[at] += u64::from(us);
                    }
                }
            }
            Ok::<_, Failed>((times, stages))
        }));
    }
    let (mut times, mut stages) = (Vec::new(), [0u64; 6]);
    for worker in workers {
        let (mine, by_stage) = worker.await??;
        times.extend(mine);
        stages
            .iter_mut()
            .zip(by_stage)
            .for_each(|(sum, us)| *sum += us);
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let done = done.load(Ordering::Relaxed);
    println!(
        "asks: {} per second ({in_flight} in flight, {} refused), p50 {} us, p99 {} us",
        done / seconds,
        failed.load(Ordering::Relaxed),
        at(0.5),
        at(0.99)
    );
    println!(
        "  {} us of processor time each, client included",
        (cpu_us()? - cpu) / done.max(1)
    );
    for (stage, us) in Stage::ALL.iter().zip(stages) {
        println!("  {}: {} us on average", stage.as_str(), us / done.max(1));
    }
    Ok(())
}

async fn greet(connection: &Connection) -> Result<(quinn::SendStream, quinn::RecvStream), Failed> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let hello = Hello {
        protocol: PROTOCOL,
        pop: "measure".into(),
        region: "local".into(),
        held: vec![],
        invalidated: 0,
    };
    write(&mut send, &Control::Hello(hello)).await?;
    let _: Control = read(&mut recv).await?;
    let pushes = connection.clone();
    tokio::spawn(async move {
        while let Ok(mut stream) = pushes.accept_uni().await {
            let _ = stream.read_to_end(64 << 20).await;
        }
    });
    Ok((send, recv))
}

async fn question(connection: &Connection, user: &str, seed: u64) -> Result<AnswerFrame, Failed> {
    let frame = AskFrame {
        request_id: Uid::v7(1_800_000_000_000 + seed, u128::from(seed)),
        ask: Ask {
            user: Some(UserId::new(user)?),
            budget_ms: 5_000,
            explain: true,
            ..Ask::default()
        },
        left_ms: 5_000,
        seed,
        pending: vec![],
        known_context: 0,
    };
    let (mut send, mut recv) = connection.open_bi().await?;
    write(&mut send, &frame).await?;
    send.finish()?;
    read(&mut recv).await
}

/// Batches of 100, eight of them on their way at once.
async fn events(
    streams: (quinn::SendStream, quinn::RecvStream),
    seconds: u64,
) -> Result<(), Failed> {
    let (mut send, mut recv) = streams;
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let cpu = cpu_us()?;
    let (mut sent, mut acked) = (0, 0);
    while Instant::now() < until || acked < sent {
        while sent < acked + 8 && Instant::now() < until {
            sent += 1;
            write(
                &mut send,
                &Control::Events {
                    seq: sent,
                    events: batch(sent)?,
                },
            )
            .await?;
        }
        if let Control::Ack { seq } = read(&mut recv).await? {
            acked = seq;
        }
    }
    println!(
        "events: {} us of processor time a batch, client included",
        (cpu_us()? - cpu) / acked.max(1)
    );
    let per_second = acked as f64 * 100.0 / began.elapsed().as_secs_f64();
    println!("events: {per_second:.0} per second durable and acknowledged, in batches of 100");
    Ok(())
}

/// Processor time of this process so far, in microseconds.
fn cpu_us() -> Result<u64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(") ").ok_or("/proc/self/stat")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks * 10_000)
}

fn batch(seq: u64) -> Result<Vec<Event>, Failed> {
    (0..100)
        .map(|n| {
            Ok(Event {
                tenant: TenantId::default(),
                id: EventId::new(&format!("measure:{seq}:{n}"))?,
                kind: EventKind::View,
                user: Some(UserId::new(&(1 + (seq * 7 + n) % 610).to_string())?),
                session: None,
                item: Some(ItemId::new(&(1 + n).to_string())?),
                value: None,
                at_ms: 1_800_000_000_000 + seq,
                accepted_ms: 1_800_000_000_000 + seq,
                surface: None,
                request_id: None,
                positions: vec![],
                hlc: Hlc::default(),
                region: "local".into(),
                pop: "measure".into(),
            })
        })
        .collect()
}

async fn write<T: Schema + serde::Serialize>(
    send: &mut quinn::SendStream,
    frame: &T,
) -> Result<(), Failed> {
    let bytes = Bytes::from(skerry_wire::encode(frame)?);
    let length = Bytes::copy_from_slice(&u32::try_from(bytes.len())?.to_le_bytes());
    Ok(send.write_all_chunks(&mut [length, bytes]).await?)
}

async fn read<T: Schema + serde::de::DeserializeOwned>(
    recv: &mut quinn::RecvStream,
) -> Result<T, Failed> {
    let mut length = [0; 4];
    recv.read_exact(&mut length).await?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    recv.read_exact(&mut bytes).await?;
    Ok(skerry_wire::decode(&bytes)?)
}

/// A CA, the origin's certificate in `dir`, and a PoP's client settings.
fn keys(dir: &Path) -> Result<ClientConfig, Failed> {
    std::fs::create_dir_all(dir)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let issue = |uri: &str, dns: &str| -> Result<(String, String), Failed> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![dns.to_owned()])?;
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        Ok((params.signed_by(&key, &ca)?.pem(), key.serialize_pem()))
    };
    let (certificate, key) = issue("skerry://local/origin/o", SERVER_NAME)?;
    std::fs::write(dir.join("ca.crt"), ca.pem())?;
    std::fs::write(dir.join("origin.crt"), certificate)?;
    std::fs::write(dir.join("origin.key"), key)?;
    let (certificate, key) = issue("skerry://local/pop/measure", "pop.skerry")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])?
    .with_root_certificates(roots)
    .with_client_auth_cert(
        vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
        PrivateKeyDer::from_pem_slice(key.as_bytes())?,
    )?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let mut client = ClientConfig::new(Arc::new(
        quinn::crypto::rustls::QuicClientConfig::try_from(config)?,
    ));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(500)));
    client.transport_config(Arc::new(transport));
    Ok(client)
}
