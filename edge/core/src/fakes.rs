//! Fakes of the ports, written by hand: in memory, and failing on cue.

use crate::ports::{
    AskFailure, Body, CacheEntry, Epochs, Found, Host, Keep, KvValue, LogLevel, Method, NO_ROW,
    Plan, Request, Response,
};
use crate::{WorkerState, serve};
use sha2::{Digest, Sha256};
use skerry_decide::score::{Blend, DIM, EdgePool, FoldIn, PoolRow};
use skerry_types::{
    Ask, Attributes, Event, ItemHash, ItemId, Millis, Rung, Source, Surface, TenantId, Tick, Uid,
    UserContext, UserId, Value,
};
use skerry_wire::frame::{AnswerFrame, AskFrame};
use skerry_wire::value::{
    ApiKey, ConfigBlob, EventBatch, Exposure, KeyClass, NextItem, NextPage, PoolItem, PoolItems,
    PopularList, StoredContext, exposure, metadata,
};
use skerry_wire::{decode, encode};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Noon of some day: tests count from here.
pub const NOON: Millis = 1_700_000_000_000;

pub fn item_id(n: usize) -> ItemId {
    ItemId::new(&n.to_string()).unwrap()
}

pub fn config_with_keys() -> ConfigBlob {
    let key = |text: &str, class| ApiKey {
        sha256: Sha256::digest(text.as_bytes()).into(),
        class,
        tenant: TenantId::default(),
    };
    ConfigBlob {
        pop: "pop1".into(),
        region: "here".into(),
        sealing_key: [9; 32],
        surfaces: vec![Surface::default()],
        public_names_users: None,
        keys: vec![
            key("public", KeyClass::Public),
            key("secret", KeyClass::Secret),
            key("pop", KeyClass::Pop),
        ],
        fresh_active_ms: 300_000,
        fresh_idle_ms: 900_000,
    }
}

pub fn ask() -> Ask {
    Ask {
        user: Some(UserId::new("1").unwrap()),
        ..Ask::default()
    }
}

pub fn next_page() -> NextPage {
    NextPage {
        tenant: TenantId::default(),
        subject: Some("u:1".into()),
        surface: Surface::default(),
        expires_ms: NOON,
        decision_id: Uid(7),
        rung: Rung::Full,
        cause: None,
        as_of_ms: 1,
        model: "ranker@1".into(),
        seed: 2,
        snapshot: 3,
        shown: 10,
        explain: false,
        fields: vec!["title".into()],
        because: Vec::new(),
        rest: vec![NextItem {
            id: item_id(5),
            score: 0.5,
            source: Source::Vector,
            propensity: 1.0,
            reason: None,
        }],
    }
}

pub fn request(method: &str, target: &str, body: &str) -> Request {
    Request {
        method: match method {
            "POST" => Method::Post,
            "DELETE" => Method::Delete,
            _ => Method::Get,
        },
        target: target.to_owned(),
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
        now: NOON,
        tick: Tick(0),
        entropy: 1,
        loopback: true,
        revalidate: false,
        epochs: Epochs::default(),
    }
}

type Cached = (CacheEntry, Vec<String>, Option<Keep>);
type FakeOrigin = Box<dyn Fn(&AskFrame) -> Result<AnswerFrame, AskFailure>>;

/// A platform in memory.
pub struct FakeHost {
    pub epochs: Cell<Epochs>,
    pub now: Cell<Millis>,
    requests: Cell<u64>,
    cache: RefCell<HashMap<Vec<u8>, Cached>>,
    kv: RefCell<HashMap<String, (Vec<u8>, u64)>>,
    pub arrays: RefCell<Vec<u8>>,
    pub items: RefCell<Vec<PoolItem>>,
    pub list: RefCell<Option<PopularList>>,
    pub hidden: RefCell<BTreeSet<ItemHash>>,
    pub snapshot: RefCell<Option<Vec<u8>>>,
    pub origin: RefCell<FakeOrigin>,
    pub plan: Cell<Plan>,
    pub asked: Cell<usize>,
    pub spool: RefCell<Vec<(Event, String)>>,
    pub spool_full: Cell<bool>,
    pub shown: RefCell<Vec<Exposure>>,
    /// The body that the last lookup found, as the real host holds it.
    last: RefCell<Option<Keep>>,
}

impl FakeHost {
    /// A host with a configuration and nothing else; its origin is down.
    pub fn empty() -> Self {
        Self {
            epochs: Cell::new(Epochs {
                config: 1,
                mask_until: Millis::MAX,
                ..Epochs::default()
            }),
            now: Cell::new(NOON),
            requests: Cell::new(0),
            cache: RefCell::default(),
            kv: RefCell::default(),
            arrays: RefCell::default(),
            items: RefCell::default(),
            list: RefCell::default(),
            hidden: RefCell::default(),
            snapshot: RefCell::default(),
            origin: RefCell::new(Box::new(|_| Err(AskFailure::Down))),
            plan: Cell::new(Plan {
                ask: true,
                best: Rung::Full,
                cause: None,
            }),
            asked: Cell::new(0),
            spool: RefCell::default(),
            spool_full: Cell::new(false),
            shown: RefCell::default(),
            last: RefCell::default(),
        }
    }

    pub fn with_origin(
        self,
        origin: impl Fn(&AskFrame) -> Result<AnswerFrame, AskFailure> + 'static,
    ) -> Self {
        self.set_origin(origin);
        self
    }

    pub fn set_origin(
        &self,
        origin: impl Fn(&AskFrame) -> Result<AnswerFrame, AskFailure> + 'static,
    ) {
        *self.origin.borrow_mut() = Box::new(origin);
    }

    /// A pool of items 0 to n - 1, in which each item is followed by the next three.
    pub fn with_pool(self, n: usize) -> Self {
        let mut identity = vec![0.0; DIM * DIM];
        (0..DIM).for_each(|at| identity[at * DIM + at] = 1.0);
        let fold = FoldIn::new(&identity).unwrap();
        let row = |at: usize| PoolRow {
            vector: std::array::from_fn(|dim| if dim == at % 3 { 1.0 } else { 0.01 * at as f32 }),
            followers: (1..4)
                .map(|next| (((at + next) % n) as u32, 1.0 / next as f32))
                .collect(),
            prior: 0.0,
        };
        let rows: Vec<PoolRow> = (0..n).map(row).collect();
        let pool = EdgePool::build(
            fold,
            Blend {
                vector: 1.0,
                order: 1.0,
                prior: 0.1,
            },
            &rows,
        );
        *self.arrays.borrow_mut() = pool.to_bytes();
        *self.items.borrow_mut() = (0..n)
            .map(|at| PoolItem {
                id: item_id(at),
                genre: skerry_decide::rules::first_genre(&fields(at)).map(Arc::from),
                fields: metadata::of(&fields(at)),
            })
            .collect();
        self.change(|epochs| {
            epochs.pool += 1;
            epochs.pool_as_of = NOON - 10_000;
        });
        self
    }

    /// Items 0 to n - 1 on the popular list.
    pub fn with_list(self, n: usize) -> Self {
        let item = |at: usize| skerry_wire::value::PopularItem {
            id: item_id(at),
            score: 0.5,
            fields: metadata::of(&fields(at)),
        };
        *self.list.borrow_mut() = Some(PopularList {
            as_of_ms: NOON - 5_000,
            items: (0..n).map(item).collect(),
        });
        self.change(|epochs| epochs.popular += 1);
        self
    }

    /// The user liked these items, and the context lies in the KV.
    pub fn with_context(self, user: &str, liked: &[usize]) -> Self {
        let context = context(user, liked);
        let stored = StoredContext {
            written_ms: NOON,
            expires_ms: NOON + 1,
            mark: 0,
            context,
        };
        let key = skerry_types::context_key(&TenantId::default(), &format!("u:{user}"));
        self.kv
            .borrow_mut()
            .insert(key, (encode(&stored).unwrap(), 1));
        self
    }

    pub fn hide(&self, item: &ItemId) {
        self.hidden.borrow_mut().insert(item.hash());
        self.change(|epochs| epochs.mask += 1);
    }

    pub fn change(&self, change: impl Fn(&mut Epochs)) {
        let mut epochs = self.epochs.get();
        change(&mut epochs);
        self.epochs.set(epochs);
    }

    /// When the one list in the cache stops being fresh.
    pub fn expires(&self) -> Millis {
        let cache = self.cache.borrow();
        let mut entries = cache.values().map(|(entry, ..)| entry.expires);
        entries.next().unwrap()
    }

    pub fn later(&self, ms: Millis) {
        self.now.set(self.now.get() + ms);
    }

    /// Sends a request through a worker; the response and its whole body.
    pub fn send(
        &self,
        worker: &mut WorkerState,
        method: &str,
        target: &str,
        body: &str,
    ) -> (Response, String) {
        let n = self.requests.get() + 1;
        self.requests.set(n);
        let request = Request {
            now: self.now.get(),
            entropy: u128::from(n) << 64 | u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            epochs: self.epochs.get(),
            ..request(method, target, body)
        };
        let response = futures::executor::block_on(serve(self, worker, request.clone()));
        if response.revalidate {
            let again = Request {
                revalidate: true,
                ..request
            };
            let nothing = futures::executor::block_on(serve(self, worker, again));
            assert_eq!((nothing.status, nothing.revalidate), (204, false));
            assert!(nothing.exposure.is_empty());
        }
        if !response.exposure.is_empty() {
            let shown = exposure::read(&response.exposure).unwrap();
            self.shown.borrow_mut().push(shown);
        }
        let bytes = match &response.body {
            Body::Inline(bytes) => bytes.clone(),
            Body::Keep(keep) => {
                if let Some((_, _, rendered)) = self.cache.borrow_mut().get_mut(&keep.key) {
                    *rendered = Some(keep.clone());
                }
                keep.bytes.clone()
            }
            Body::Stored(patches) => {
                let found = self.last.borrow().clone().unwrap();
                let (mut bytes, mut left) = (found.bytes, &patches[..]);
                for (at, length) in found.slots {
                    let (at, length) = (at as usize, length as usize);
                    let (patch, rest) = left.split_at(length);
                    bytes[at..at + length].copy_from_slice(patch);
                    left = rest;
                }
                assert!(left.is_empty());
                bytes
            }
        };
        (response, String::from_utf8(bytes).unwrap())
    }
}

/// Metadata of item `n`: a title, a year, a genre by its number.
pub fn fields(n: usize) -> Attributes {
    let genre = ["Drama", "Comedy", "Crime"][n % 3];
    Attributes::from([
        ("title".into(), Value::text(&format!("Title {n}"))),
        ("year".into(), Value::Int(1990 + n as i64 % 30)),
        ("genre".into(), Value::List(vec![Value::text(genre)])),
    ])
}

pub fn like(user: &str, item: usize, n: u64) -> Event {
    let id = format!("e{user}-{item}-{n}");
    skerry_testkit::like(&id, user, item_id(item).as_str(), NOON - 1_000 + n)
}

pub fn context(user: &str, liked: &[usize]) -> UserContext {
    let mut context = UserContext::default();
    for (at, item) in liked.iter().enumerate() {
        assert!(context.apply(&like(user, *item, at as u64)));
    }
    context
}

impl Host for FakeHost {
    async fn lookup(&self, key: &[u8], subject: &str, render: u64, now: Millis) -> Found {
        let context_version = self
            .kv
            .borrow()
            .get(subject)
            .map_or(0, |(_, version)| *version);
        let cache = self.cache.borrow();
        let Some((entry, _, rendered)) = cache.get(key) else {
            return Found {
                context_version,
                ..Found::default()
            };
        };
        let rendered = rendered.as_ref().filter(|keep| {
            keep.render == render && keep.context_version == context_version && now < keep.until
        });
        *self.last.borrow_mut() = rendered.cloned();
        let rendered = rendered.map(|keep| keep.head.clone());
        Found {
            context_version,
            rendered,
            entry: Some(entry.clone()),
        }
    }

    async fn store(&self, key: &[u8], tags: &[String], entry: CacheEntry) {
        self.cache
            .borrow_mut()
            .insert(key.to_vec(), (entry, tags.to_vec(), None));
    }

    async fn purge(&self, tag: &str) {
        self.cache
            .borrow_mut()
            .retain(|_, (_, tags, _)| !tags.iter().any(|known| known == tag));
    }

    async fn kv_get(&self, key: &str) -> Option<KvValue> {
        self.kv.borrow().get(key).map(|(bytes, version)| KvValue {
            bytes: bytes.clone(),
            version: *version,
        })
    }

    async fn kv_put(&self, key: &str, bytes: Vec<u8>, expected: u64) -> Option<u64> {
        let mut kv = self.kv.borrow_mut();
        let version = kv.get(key).map_or(0, |(_, version)| *version);
        (version == expected).then(|| {
            kv.insert(key.to_owned(), (bytes, version + 1));
            version + 1
        })
    }

    async fn config(&self) -> Vec<u8> {
        encode(&config_with_keys()).unwrap()
    }

    async fn pool(&self) -> Vec<u8> {
        self.arrays.borrow().clone()
    }

    async fn rows(&self, ids: &[&str]) -> Vec<u32> {
        let items = self.items.borrow();
        let row = |id: &&str| items.iter().position(|item| item.id.as_str() == *id);
        ids.iter()
            .map(|id| row(id).map_or(NO_ROW, |row| u32::try_from(row).unwrap()))
            .collect()
    }

    async fn items(&self, rows: &[u32]) -> Vec<u8> {
        let items = self.items.borrow();
        encode(&PoolItems {
            items: rows
                .iter()
                .map(|row| items[*row as usize].clone())
                .collect(),
        })
        .unwrap()
    }

    async fn popular(&self, _surface: &str, _locale: &str) -> Option<Vec<u8>> {
        self.list
            .borrow()
            .as_ref()
            .map(|list| encode(list).unwrap())
    }

    async fn bandit(&self, _surface: &str) -> Option<Vec<u8>> {
        self.snapshot.borrow().clone()
    }

    async fn forbidden(&self, hashes: &[ItemHash], _now: Millis, _country: &str) -> Vec<bool> {
        hashes
            .iter()
            .map(|hash| self.hidden.borrow().contains(hash))
            .collect()
    }

    fn plan(&self, _subject_hash: u64, _left_ms: u32) -> Plan {
        self.plan.get()
    }

    async fn ask(
        &self,
        _key: &[u8],
        question: Vec<u8>,
        _left_ms: u32,
    ) -> Result<Vec<u8>, AskFailure> {
        self.asked.set(self.asked.get() + 1);
        let question: AskFrame = decode(&question).unwrap();
        (self.origin.borrow())(&question).map(|answer| encode(&answer).unwrap())
    }

    async fn append(&self, events: &[Event], subjects: &[String]) -> Result<(), String> {
        if self.spool_full.get() {
            return Err("the event spool is full".to_owned());
        }
        self.spool
            .borrow_mut()
            .extend(events.iter().cloned().zip(subjects.iter().cloned()));
        Ok(())
    }

    async fn pending(&self, subject: &str) -> Vec<u8> {
        let spool = self.spool.borrow();
        let events = spool
            .iter()
            .filter(|(_, known)| known == subject)
            .map(|(event, _)| event.clone())
            .collect();
        encode(&EventBatch { events }).unwrap()
    }

    fn tick(&self) -> Tick {
        Tick(0)
    }

    fn log(&self, _level: LogLevel, message: &str) {
        eprintln!("{message}");
    }
}
