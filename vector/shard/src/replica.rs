//! One replica of a shard on this node: its store, its terms, and what it is to its shard now.
//!
//! Invariants: the store that `CURRENT` names is whole; a snapshot takes its place only when it is
//! complete. The token that is known here never falls: what comes from an older leader is refused. A
//! replica serves searches only when it has once caught up with its leader.

use crate::error::Error;
use crate::files;
use crate::lead::Leading;
use crate::store::{Store, StoreError, Stores};
use crate::table::{NodeId, ShardId};
use crate::terms::Terms;
use parking_lot::{Mutex, RwLock};
use skerry_types::{Budget, Tick};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// Names the folder of the store in use.
const CURRENT: &str = "CURRENT";
const TERMS: &str = "TERMS";
const DATA: &str = "data";

/// A store, and the folder that it lies in.
struct Open {
    store: Arc<dyn Store>,
    dir: PathBuf,
    generation: u64,
}

pub struct Replica {
    pub shard: ShardId,
    pub me: NodeId,
    dir: PathBuf,
    stores: Arc<dyn Stores>,
    open: RwLock<Open>,
    terms: Mutex<Terms>,
    /// The greatest token that was heard of.
    token: AtomicU64,
    caught_up: AtomicBool,
    /// Held while a leader's records are applied, to the end of the work even where nobody waits for
    /// it any more: what comes next begins behind it.
    applying: Arc<tokio::sync::Mutex<()>>,
    /// The store does nothing more: it must be opened again.
    broken: AtomicBool,
    leading: RwLock<Option<Arc<Leading>>>,
    /// The number of the last write here.
    head: watch::Sender<u64>,
    /// Where the leader's log ended when it was last heard of.
    leader_head: AtomicU64,
}

/// Work that blocks, on a thread for it.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Worker(error.to_string()))?
}

impl Replica {
    /// Opens what `dir` holds, or makes an empty one. Blocks.
    pub fn open(
        shard: ShardId,
        me: NodeId,
        dir: &Path,
        stores: Arc<dyn Stores>,
    ) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let generation = match current(dir)? {
            Some(generation) => generation,
            None => {
                write_current(dir, 1)?;
                1
            }
        };
        sweep_folders(dir, generation)?;
        let open = open_generation(dir, generation, stores.as_ref())?;
        let terms = Terms::read(&open.dir.join(TERMS))?;
        let seq = open.store.seq();
        Ok(Self {
            shard,
            me,
            dir: dir.to_path_buf(),
            stores,
            caught_up: AtomicBool::new(!terms.is_empty() && seq > 0),
            token: AtomicU64::new(terms.last_token()),
            terms: Mutex::new(terms),
            open: RwLock::new(open),
            applying: Arc::default(),
            broken: AtomicBool::new(false),
            leading: RwLock::new(None),
            head: watch::Sender::new(seq),
            leader_head: AtomicU64::new(seq),
        })
    }

    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.open.read().store)
    }

    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms.lock().clone()
    }

    /// Takes terms over, on disk first. Blocks.
    pub fn set_terms(&self, terms: Terms) -> Result<(), Error> {
        let mut held = self.terms.lock();
        if *held != terms {
            terms.write(&self.open.read().dir.join(TERMS))?;
            *held = terms;
        }
        Ok(())
    }

    /// Waits until nothing that an earlier leader sent is still being applied.
    pub async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.applying).lock_owned().await
    }

    #[must_use]
    pub fn seq(&self) -> u64 {
        *self.head.borrow()
    }

    #[must_use]
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub fn on_head(&self, seq: u64) {
        self.head.send_if_modified(|head| {
            let grows = seq > *head;
            *head = seq.max(*head);
            grows
        });
    }

    pub fn on_leader_head(&self, seq: u64) {
        self.leader_head.store(seq, Ordering::Relaxed);
    }

    /// Records that the leader had, when it was last heard of, and this replica has not.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let head = self.leader_head.load(Ordering::Relaxed);
        head.saturating_sub(self.seq())
    }

    /// Refuses a token that is older than one that was heard of; remembers a newer one.
    pub fn hear(&self, token: u64) -> Result<(), Error> {
        let known = self.token.fetch_max(token, Ordering::SeqCst);
        if token < known {
            return Err(Error::Fenced { got: token, known });
        }
        Ok(())
    }

    #[must_use]
    pub fn token(&self) -> u64 {
        self.token.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn leading(&self) -> Option<Arc<Leading>> {
        self.leading.read().clone()
    }

    pub fn set_leading(&self, leading: Option<Arc<Leading>>) {
        *self.leading.write() = leading;
    }

    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::SeqCst) || self.leading.read().is_some()
    }

    pub fn set_caught_up(&self, yes: bool) {
        self.caught_up.store(yes, Ordering::SeqCst);
    }

    /// Waits until the log is here up to `seq`.
    pub async fn reach(&self, seq: u64, budget: Budget, now: Tick) -> Result<(), Error> {
        let mut heads = self.heads();
        let left = u64::from(budget.left_ms(now));
        let reached = heads.wait_for(|head| *head >= seq);
        match crate::clock::within(left, reached).await {
            Some(Ok(_)) => Ok(()),
            _ => Err(Error::Behind {
                shard: self.shard,
                seq: self.seq(),
                wanted: seq,
            }),
        }
    }

    /// A folder for a snapshot that comes in or goes out, empty.
    pub fn scratch(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(format!("tmp-{name}"));
        files::remove_dir(&dir).map_err(Error::io(&dir))?;
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(dir)
    }

    /// Puts what a snapshot holds in place of what is here. Searches go on with the old store until
    /// the new one is open. Blocks.
    pub fn replace(&self, snapshot: &Path, terms: Terms) -> Result<(), Error> {
        let before = self.open.read().generation;
        let generation = before + 1;
        let dir = generation_dir(&self.dir, generation);
        files::remove_dir(&dir).map_err(Error::io(&dir))?;
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        self.stores.restore(snapshot, &dir.join(DATA))?;
        terms.write(&dir.join(TERMS))?;
        files::sync_dir(&dir).map_err(Error::io(&dir))?;
        let open = open_generation(&self.dir, generation, self.stores.as_ref())?;
        write_current(&self.dir, generation)?;
        let seq = open.store.seq();
        let old = {
            let mut held = self.terms.lock();
            *held = terms;
            std::mem::replace(&mut *self.open.write(), open)
        };
        self.set_caught_up(false);
        self.head.send_replace(seq);
        drop(old);
        let gone = generation_dir(&self.dir, before);
        files::remove_dir(&gone).map_err(Error::io(&gone))
    }

    /// Remembers an error after which the store does nothing more; true for such a one.
    pub fn on_error(&self, error: &Error) -> bool {
        let fatal = matches!(error, Error::Store(StoreError::Failed { .. }));
        if fatal {
            tracing::error!(shard = %self.shard, code = error.code(), %error, "the store failed");
            self.broken.store(true, Ordering::SeqCst);
        }
        fatal
    }

    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }
}

/// The generation in use, if there is one.
fn current(dir: &Path) -> Result<Option<u64>, Error> {
    let path = dir.join(CURRENT);
    let Some(bytes) = files::read_whole(&path).map_err(Error::io(&path))? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).ok();
    let number = text.and_then(|text| text.trim().parse::<u64>().ok());
    number.map(Some).ok_or_else(|| Error::Corrupt {
        path,
        reason: "it does not hold a number".to_owned(),
    })
}

/// Where the store of a replica lies, whose folder this is.
pub fn store_dir(dir: &Path) -> Result<Option<PathBuf>, Error> {
    let generation = current(dir)?;
    Ok(generation.map(|generation| generation_dir(dir, generation).join(DATA)))
}

/// Where the store of a replica lies that is being made.
pub fn first_store_dir(dir: &Path) -> PathBuf {
    generation_dir(dir, 1).join(DATA)
}

/// Makes a folder a replica, whose store lies in [`first_store_dir`]. It has no terms: a leader of
/// others begins a new history, and followers with another one take a snapshot of it.
pub fn begin_with_first(dir: &Path) -> Result<(), Error> {
    let generation = generation_dir(dir, 1);
    files::sync_dir(&generation).map_err(Error::io(&generation))?;
    write_current(dir, 1)
}

fn generation_dir(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("g-{generation:06}"))
}

fn write_current(dir: &Path, generation: u64) -> Result<(), Error> {
    let path = dir.join(CURRENT);
    files::write_whole(&path, format!("{generation}\n").as_bytes()).map_err(Error::io(&path))
}

fn open_generation(dir: &Path, generation: u64, stores: &dyn Stores) -> Result<Open, Error> {
    let dir = generation_dir(dir, generation);
    fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    Ok(Open {
        store: stores.open(&dir.join(DATA))?,
        dir,
        generation,
    })
}

/// Takes away what an interrupted replacement left.
fn sweep_folders(dir: &Path, generation: u64) -> Result<(), Error> {
    let keep = generation_dir(dir, generation);
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path != keep && (name.starts_with("g-") || name.starts_with("tmp-")) {
            files::remove_dir(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}
