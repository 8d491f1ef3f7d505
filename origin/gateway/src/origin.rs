//! An origin from start to end: open, bind, load or import and train, publish, serve, drain.

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::handle::Handle;
use crate::hub::{Hub, Life, NEWS_MAX, Parts};
use crate::jobs::{self, Jobs};
use crate::kinds::Kinds;
use crate::pops::Pops;
use crate::rewards::Rewards;
use crate::similar::UserIndex;
use crate::similar::keep::{self, Follow};
use crate::spread::Spread;
use crate::state::{State, set_aside, write_whole};
use crate::tls::Keys;
use crate::trends::Trends;
use crate::users::Users;
use crate::{Error, Options, Step, admin, publish, quic, service, train};
use quinn::Endpoint;
use skerry_origin_bandit::Ledger;
use skerry_origin_events::{Answers, Consumer, Log};
use skerry_origin_features::Store;
use skerry_types::TenantId;
use skerry_wire::value::KeyClass;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// How often the memory of served users and the log's mark are written, in milliseconds.
const HOUSEKEEPING_MS: u64 = 5_000;
/// Names the last position of the log that was durable at some time: a log that ends before it has
/// lost acknowledged events.
const MARK: &str = "EVENTS_MARK";
const DATA_DIGEST: &str = "data_digest";

/// A bound origin, not yet running.
pub struct Origin {
    hub: Arc<Hub>,
    jobs: Arc<Jobs>,
    endpoint: Endpoint,
    admin: TcpListener,
    handle: Handle,
}

impl Options {
    /// Opens the state and binds both listeners. Nothing is served before [`Origin::run`].
    pub async fn build(self) -> Result<Origin, Error> {
        self.check()?;
        if !self.admin.ip().is_loopback()
            && !self
                .api_keys
                .iter()
                .any(|key| key.class == KeyClass::Secret)
        {
            return Err(Error::Open { addr: self.admin });
        }
        let keys = Keys::read(&self.keys)?;
        let limits = self.limits.clone();
        let (listen, admin) = (self.listen, self.admin);
        let hub = tokio::task::spawn_blocking(move || open(self))
            .await
            .map_err(|error| Error::Store(error.to_string()))??;
        let endpoint = quic::listen(listen, &keys, &limits)?;
        let refuse = |error: std::io::Error| Error::Listen {
            addr: admin,
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(admin).await.map_err(refuse)?;
        let quic = endpoint.local_addr().map_err(|error| Error::Listen {
            addr: listen,
            reason: error.to_string(),
        })?;
        let hub = Arc::new(hub);
        let jobs = Arc::new(Jobs::default());
        let handle = Handle::new(&hub, &jobs, quic, listener.local_addr().map_err(refuse)?);
        Ok(Origin {
            hub,
            jobs,
            endpoint,
            admin: listener,
            handle,
        })
    }
}

fn open(options: Options) -> Result<Hub, Error> {
    let clock = Clock::start();
    let dir = options.state.clone();
    let state = State::open(&dir, options.repair)?;
    let reader = Log::reader_of(&state.db)?;
    check_mark(&dir, reader.last_seq()?, options.repair)?;
    let tenant = TenantId::default();
    let features = Arc::new(Store::open(&state.db, &reader)?);
    let answers = Arc::new(Answers::open(&dir.join("answers"))?);
    let ledger = Arc::new(open_ledger(&dir.join("bandit"), &options)?);
    let rewards_changed = Arc::new(AtomicBool::new(false));
    let kinds = Kinds::new(&options.events);
    let rewards = Rewards::start(
        Arc::clone(&ledger),
        Arc::clone(&answers),
        Arc::clone(&rewards_changed),
        kinds.clone(),
    )
    .map_err(Error::io(&dir))?;
    let rewards = Arc::new(rewards);
    let surfaces = &options.surfaces;
    let trends = Trends::open(&state, &reader, &tenant, surfaces, kinds)?;
    let trends = Arc::new(trends);
    let news = broadcast::Sender::new(NEWS_MAX);
    let similar = UserIndex::open(&dir, &options.vectors, options.repair)?;
    let similar = Arc::new(similar);
    let consumers: Vec<Arc<dyn Consumer>> = vec![
        Arc::clone(&features) as Arc<dyn Consumer>,
        Arc::clone(&rewards) as Arc<dyn Consumer>,
        Arc::clone(&trends) as Arc<dyn Consumer>,
        Arc::new(Spread(news.clone())),
        Arc::new(Follow(tenant.clone(), Arc::clone(&similar))),
    ];
    let log = Log::open(&state.db, consumers)?;
    let parts = Parts {
        catalog: Catalog::open(&state, &tenant)?,
        users: Users::open(&state)?,
        pops: Pops::open(&state)?,
        options,
        clock,
        state,
        log,
        features,
        ledger,
        answers,
        trends,
        rewards,
        similar,
        rewards_changed,
        news,
    };
    Hub::new(parts)
}

fn open_ledger(path: &Path, options: &Options) -> Result<Ledger, Error> {
    use skerry_origin_bandit::Error as Failed;
    let refuse = |error: Failed| match error {
        Failed::Corrupt { path, reason } => Error::Corrupt { path, reason },
        Failed::Newer { path, found, known } => Error::Newer { path, found, known },
        other => Error::Store(other.to_string()),
    };
    match Ledger::open(path, &options.region) {
        Err(Failed::Corrupt { reason, .. }) if options.repair => {
            tracing::warn!(%reason, "the damaged bandit ledger was set aside");
            set_aside(path)?;
            Ledger::open(path, &options.region).map_err(refuse)
        }
        opened => opened.map_err(refuse),
    }
}

/// Refuses a log that ends before what was durable once.
fn check_mark(dir: &Path, last_seq: u64, repair: bool) -> Result<(), Error> {
    let path = dir.join(MARK);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let reason = match text.trim().parse::<u64>() {
        Ok(mark) if mark <= last_seq => return Ok(()),
        Ok(mark) => format!("the event log ends at {last_seq}, it once reached {mark}"),
        Err(_) => "it does not hold a number".to_owned(),
    };
    if repair {
        tracing::warn!(%reason, "the mark of the event log was set aside");
        set_aside(&path)?;
        return Ok(());
    }
    Err(Error::Corrupt { path, reason })
}

impl Origin {
    /// Addresses, readiness and what operators do.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `drain`, then finishes what is in flight. Import and training come first, while
    /// both listeners already answer (not ready).
    pub async fn run(self, drain: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            hub,
            jobs,
            endpoint,
            admin: listener,
            handle,
        } = self;
        let stop = CancellationToken::new();
        let draining = CancellationToken::new();
        let admin = tokio::spawn(admin::serve(
            Arc::clone(&hub),
            Arc::clone(&jobs),
            handle,
            listener,
            stop.clone(),
        ));
        let front = tokio::spawn(quic::serve(Arc::clone(&hub), endpoint, draining.clone()));
        let kept = tokio::spawn(publish::keep_current(Arc::clone(&hub), stop.clone()));
        let house = tokio::spawn(keep_house(Arc::clone(&hub), stop.clone()));
        let ending = keep::Ending(Arc::clone(&hub.similar));
        let similar = tokio::task::spawn_blocking({
            let hub = Arc::clone(&hub);
            move || keep::run(&hub)
        });
        let mut start = tokio::task::spawn_blocking({
            let hub = Arc::clone(&hub);
            move || prepare(&hub)
        });
        tokio::pin!(drain);
        let prepared = tokio::select! {
            prepared = &mut start => Some(prepared.map_err(|error| Error::Store(error.to_string())).and_then(|done| done)),
            () = &mut drain => None,
        };
        let result = match prepared {
            Some(Ok(())) => {
                hub.life.send_replace(Life::Running);
                drain.await;
                Ok(())
            }
            Some(Err(error)) => {
                hub.life.send_replace(Life::Failed(error.to_string()));
                Err(error)
            }
            // Going down in the middle of an import: it is repeated at the next start.
            None => Ok(()),
        };
        hub.draining.store(true, Ordering::Relaxed);
        draining.cancel();
        let _ = front.await;
        stop.cancel();
        drop(ending);
        for task in [admin, kept, house, similar] {
            let _ = task.await;
        }
        let closing = Arc::clone(&hub);
        let closed = tokio::task::spawn_blocking(move || close(&closing)).await;
        closed.map_err(|error| Error::Store(error.to_string()))?;
        result
    }
}

/// Loads the model, imports data that is not in the state yet, trains where needed, publishes.
fn prepare(hub: &Hub) -> Result<(), Error> {
    let progress = &hub.options.progress;
    if let Some(service) = service::load(&hub.options.state, hub.options.repair, &hub.catalog)? {
        hub.service.store(Some(Arc::new(service)));
    }
    let mut retrain = hub.service.load().is_none() && hub.log.reader().last_seq()? > 0;
    if let Some(data) = &hub.options.data {
        let digest = data.digest()?;
        let known = hub.state.get(DATA_DIGEST)?;
        if known.as_deref() != Some(&digest) {
            // PoPs get what there is while the rest is being made.
            publish::all(hub)?;
            if known.is_some() {
                progress(Step::Note(
                    "the data differs from the state: it is added, and the model is trained again"
                        .to_owned(),
                ));
            }
            let (summary, changed) = jobs::import(hub, data, progress, &|_| {})?;
            progress(Step::Note(format!(
                "imported {} items and {} events ({} rows refused)",
                summary.items, summary.events, summary.errors_total
            )));
            hub.log.flush()?;
            hub.state.settle()?;
            retrain |= changed.anything();
        }
        if retrain {
            retrained(hub)?;
        }
        // Last: a crash before repeats the import, which changes nothing that is there.
        if known.as_deref() != Some(&digest) {
            hub.state.put(DATA_DIGEST, &digest)?;
        }
    } else if retrain {
        retrained(hub)?;
    }
    publish::all(hub)
}

fn retrained(hub: &Hub) -> Result<(), Error> {
    match train::run(hub, &hub.options.progress) {
        // An empty start: ready once there is something to learn from.
        Err(Error::NoData) => Ok(()),
        trained => trained.map(|_| ()),
    }
}

async fn keep_house(hub: Arc<Hub>, stop: CancellationToken) {
    let mut due = tokio::time::interval(Duration::from_millis(HOUSEKEEPING_MS));
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = due.tick() => {
                let hub = Arc::clone(&hub);
                let _ = tokio::task::spawn_blocking(move || tidy(&hub)).await;
            }
        }
    }
}

fn tidy(hub: &Hub) {
    let now = hub.now();
    let mark = || -> Result<(), Error> {
        let text = hub.log.reader().last_seq()?.to_string();
        let path = hub.options.state.join(MARK);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_whole(&path, text.as_bytes())
    };
    if let Err(error) = hub.pops.write(now).and_then(|()| mark()) {
        tracing::warn!(%error, "housekeeping failed");
    }
    if let Err(error) = hub.ledger.sweep(now) {
        tracing::warn!(%error, "the bandit ledger was not swept");
    }
}

fn close(hub: &Hub) {
    tidy(hub);
    if let Err(error) = hub.ledger.sync() {
        tracing::warn!(%error, "the bandit ledger was not synced");
    }
    hub.log.close();
    if let Err(error) = hub.state.settle() {
        tracing::warn!(%error, "the journal was not settled");
    }
}
