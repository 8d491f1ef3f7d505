//! The worker: compiled once, instantiated lazily, reused, bounded in memory, time and number.
//!
//! Invariants: an instance serves one request at a time and none after a trap; a guest that computes
//! for [`EPOCHS_MAX`] epochs without the host having a say is interrupted; compiled code is loaded
//! only from a file that this program wrote (private folder, digest beside it) for exactly this
//! component and engine.

use crate::error::Error;
use crate::files;
use crate::origin::Line;
use crate::shared::Shared;
use crate::world::skerry::edge::types::{Request, Response};
use crate::world::{Edge, EdgePre, HostState};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimitsBuilder,
    UpdateDeadline,
};
use xxhash_rust::xxh3::Xxh3;

/// Instances in the process, at most.
pub const INSTANCES_MAX: usize = 64;
/// Linear memory of one instance, at most, in bytes.
pub const MEMORY_BYTES_MAX: usize = 32 << 20;
/// Address space of one instance, and what lies unmapped behind it, in bytes.
const RESERVED_BYTES: u64 = 4 << 30;
const GUARD_BYTES: u64 = 32 << 20;
/// Of an instance's memory this much stays resident between uses of its slot, in bytes.
const KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Requests that one instance serves before it is replaced: bounds what a guest's leak can hold.
const USES_MAX: u32 = 100_000;
/// How often the epoch moves, in milliseconds.
const EPOCH_MS: u64 = 10;
/// Epochs that a guest may compute without a host call that waits: 200 ms.
const EPOCHS_MAX: u32 = 20;
/// A request waits this long for a free instance, in milliseconds.
const INSTANCE_WAIT_MS_MAX: u64 = 50;
/// Stack of a guest's fiber, in bytes; host calls run on it too.
const FIBER_STACK_BYTES: usize = 1 << 20;
const WASM_STACK_BYTES: usize = 512 << 10;

/// Why the worker has no answer. The host answers in its place.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("no instance is free")]
    Exhausted,
    #[error("the worker failed")]
    Failed(#[source] wasmtime::Error),
}

/// The compiled worker and the thread that moves its clock.
pub struct Worker {
    engine: Engine,
    pre: EdgePre<HostState>,
    memory_bytes: usize,
    /// Dropped with the worker; ends the thread.
    _ticker: Sender<()>,
}

impl Worker {
    /// Compiles the component, or loads what an earlier start compiled into `cache`. An instance may
    /// have `memory_bytes` of memory, at most [`MEMORY_BYTES_MAX`].
    pub fn new(component: &[u8], cache: &Path, memory_bytes: usize) -> Result<Self, Error> {
        let engine = Engine::new(&config())?;
        let component = load(&engine, component, cache)?;
        let mut linker: Linker<HostState> = Linker::new(&engine);
        Edge::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |state| state)?;
        let pre = EdgePre::new(linker.instantiate_pre(&component)?)?;
        let (stop, stopped) = channel::<()>();
        let clock = engine.clone();
        std::thread::Builder::new()
            .name("skerry-epoch".into())
            .spawn(move || {
                let tick = Duration::from_millis(EPOCH_MS);
                while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                    clock.increment_epoch();
                }
            })
            .map_err(Error::Thread)?;
        Ok(Self {
            engine,
            pre,
            memory_bytes: memory_bytes.min(MEMORY_BYTES_MAX),
            _ticker: stop,
        })
    }

    async fn instantiate(&self, shared: &Arc<Shared>, line: &Line) -> wasmtime::Result<Instance> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.memory_bytes)
            .instances(8)
            .memories(2)
            .tables(4)
            .build();
        let began = shared.cache.mark();
        let state = HostState {
            shared: shared.clone(),
            line: line.clone(),
            limits,
            found: None,
            began,
            epochs: 0,
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let state = store.data_mut();
            state.epochs += 1;
            match state.epochs {
                0..EPOCHS_MAX => Ok(UpdateDeadline::Yield(1)),
                _ => Ok(UpdateDeadline::Interrupt),
            }
        });
        let edge = self.pre.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            edge,
            uses: 0,
        })
    }
}

/// One instance with its store.
struct Instance {
    store: Store<HostState>,
    edge: Edge,
    uses: u32,
}

/// The instances of one thread.
pub struct Instances {
    worker: Arc<Worker>,
    shared: Arc<Shared>,
    line: Line,
    free: RefCell<Vec<Instance>>,
    places: Semaphore,
}

impl Instances {
    /// At most `max` at once, which ask over `line`.
    #[must_use]
    pub fn new(worker: Arc<Worker>, shared: Arc<Shared>, line: Line, max: usize) -> Rc<Self> {
        Rc::new(Self {
            worker,
            shared,
            line,
            free: RefCell::default(),
            places: Semaphore::new(max),
        })
    }

    /// Serves a request. `found` receives the rendered body that the response may refer to.
    pub async fn call(
        &self,
        request: &Request,
    ) -> Result<(Response, Option<crate::cache::Rendered>), WorkerError> {
        let _place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                let wait = Duration::from_millis(INSTANCE_WAIT_MS_MAX);
                let place = tokio::time::timeout(wait, self.places.acquire()).await;
                place
                    .map_err(|_| WorkerError::Exhausted)?
                    .map_err(|_| WorkerError::Exhausted)?
            }
        };
        let pooled = self.free.borrow_mut().pop();
        let used = pooled.as_ref().is_some_and(|instance| instance.uses > 0);
        match self.try_call(pooled, request).await {
            // A used instance may have come to the end of its memory: a fresh one gets one try.
            Err(error) if used => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a used worker instance failed"
                );
                self.try_call(None, request).await
            }
            result => result,
        }
        .map_err(WorkerError::Failed)
    }

    async fn try_call(
        &self,
        pooled: Option<Instance>,
        request: &Request,
    ) -> wasmtime::Result<(Response, Option<crate::cache::Rendered>)> {
        let mut instance = match pooled {
            Some(instance) => instance,
            None => self.worker.instantiate(&self.shared, &self.line).await?,
        };
        let mark = self.shared.cache.mark();
        let state = instance.store.data_mut();
        (state.found, state.began, state.epochs) = (None, mark, 0);
        instance.store.set_epoch_deadline(2);
        // An error drops the instance with its store.
        let response = instance
            .edge
            .call_handle(&mut instance.store, request)
            .await?;
        let found = instance.store.data_mut().found.take();
        instance.uses += 1;
        if instance.uses < USES_MAX {
            self.free.borrow_mut().push(instance);
        }
        Ok((response, found))
    }
}

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let instances = u32::try_from(INSTANCES_MAX).unwrap_or(64) + 8;
    pool.total_component_instances(instances)
        .total_core_instances(instances * 4)
        .total_memories(instances)
        .total_tables(instances * 4)
        .total_stacks(instances)
        .max_memory_size(MEMORY_BYTES_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // Address space, not memory: with all that 32 bits reach reserved for each instance, an access
        // out of bounds faults by itself, and compiled code needs no check before each one.
        .memory_reservation(RESERVED_BYTES)
        .memory_guard_size(GUARD_BYTES)
        .epoch_interruption(true)
        .wasm_component_model_async(false)
        // A call then is one fiber switch and no event loop of its own.
        .concurrency_support(false)
        .wasm_relaxed_simd(false)
        .async_stack_size(FIBER_STACK_BYTES)
        .max_wasm_stack(WASM_STACK_BYTES)
        .native_unwind_info(false);
    config
}

/// The compiled component: from the cache where this program put it, else compiled and cached.
fn load(engine: &Engine, component: &[u8], cache: &Path) -> Result<Component, Error> {
    let state = |source| Error::State {
        path: cache.to_owned(),
        source,
    };
    files::make_private(cache).map_err(state)?;
    // The same in every process.
    let mut hasher = Xxh3::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let name = format!(
        "{}-{:016x}",
        hex(&Sha256::digest(component)[..16]),
        hasher.finish()
    );
    let code = cache.join(format!("{name}.cwasm"));
    let digest = cache.join(format!("{name}.sha256"));
    if let (Ok(bytes), Ok(known)) = (fs::read(&code), fs::read_to_string(&digest))
        && hex(&Sha256::digest(&bytes)) == known
        && let Some(component) = deserialize(engine, &bytes)
    {
        return Ok(component);
    }
    let bytes = engine.precompile_component(component)?;
    // Without a cache the next start compiles again; that is all.
    let kept = clear(cache)
        .and_then(|()| files::write_whole(&code, &[&bytes]))
        .and_then(|()| files::write_whole(&digest, &[hex(&Sha256::digest(&bytes)).as_bytes()]));
    if let Err(error) = kept {
        tracing::warn!(%error, path = %cache.display(), "the compiled worker is not kept");
    }
    deserialize(engine, &bytes)
        .ok_or_else(|| Error::Worker(wasmtime::Error::msg("the compiled worker does not load")))
}

#[expect(
    unsafe_code,
    reason = "wasmtime cannot prove where compiled code comes from; this module can"
)]
fn deserialize(engine: &Engine, bytes: &[u8]) -> Option<Component> {
    // SAFETY: `bytes` come from `precompile_component` of this process, or from a file in a folder of
    // mode 0700 whose SHA-256 is the one that this program wrote beside it.
    unsafe { Component::deserialize(engine, bytes) }.ok()
}

/// Removes what earlier components left.
fn clear(cache: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cache)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            use std::fmt::Write as _;
            let _ = write!(out, "{byte:02x}");
            out
        })
}
