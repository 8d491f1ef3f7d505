//! The edge's side of an evaluation: a platform on which the wanted capability, and nothing above
//! it, is there.

use super::world::EvalWorld;
use anyhow::{Context, ensure};
use futures::executor::block_on;
use serde_json::Value;
use skerry_edge_core::ports::{
    AskFailure, Body, CacheEntry, Epochs, Found, Host, KvValue, LogLevel, Method, NO_ROW, Plan,
    Request,
};
use skerry_edge_core::{WorkerState, serve};
use skerry_origin_core::{Question, answer};
use skerry_types::{Cause, Event, ItemHash, ItemId, Millis, Rung, Tick, Uid, UserContext};
use skerry_wire::frame::{Answer, AnswerFrame, AskFrame, RegionState};
use skerry_wire::value::{
    ConfigBlob, EventBatch, PoolItem, PoolItems, PopularItem, PopularList, StoredContext,
    StoredDecision,
};
use skerry_wire::{decode, encode};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// The time at which all questions are asked. Recency is by position, never by the clock.
pub const NOW: Millis = 1_800_000_000_000;
/// Items on the popular list: what a user may have seen is taken out of it.
const POPULAR_ITEMS: usize = 3_000;

/// The best capability that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    Origin,
    /// A pool of so many items.
    Pool(usize),
    Popular,
}

pub struct EvalHost<'a> {
    world: &'a EvalWorld,
    capability: Capability,
    worker: WorkerState,
    held: Held,
}

/// What the ports read.
struct Held {
    context: RefCell<UserContext>,
    epochs: Epochs,
    arrays: Vec<u8>,
    items: Vec<PoolItem>,
    places: HashMap<ItemId, u32>,
    config: Vec<u8>,
    popular: Vec<u8>,
}

/// The platform for one request.
struct Platform<'a> {
    world: &'a EvalWorld,
    capability: Capability,
    held: &'a Held,
}

impl<'a> EvalHost<'a> {
    pub fn new(world: &'a EvalWorld, capability: Capability) -> anyhow::Result<Self> {
        let model = &world.model;
        let (rows, arrays) = match capability {
            Capability::Pool(capacity) => {
                let (rows, pool) = model.edge_pool(capacity);
                (rows, pool.to_bytes())
            }
            Capability::Origin | Capability::Popular => (Vec::new(), Vec::new()),
        };
        let item = |row: &u32| {
            world.card_of(*row).map(|card| PoolItem {
                id: card.id.clone(),
                genre: card.genre.clone(),
                fields: card.metadata.clone(),
            })
        };
        let items: Vec<PoolItem> = rows.iter().filter_map(item).collect();
        ensure!(
            items.len() == rows.len(),
            "the model knows items that the catalogue does not"
        );
        let popular = model
            .trending(POPULAR_ITEMS)
            .into_iter()
            .filter_map(|(row, score)| {
                let card = world.card_of(row)?;
                Some(PopularItem {
                    id: card.id.clone(),
                    score,
                    fields: card.metadata.clone(),
                })
            });
        let epochs = Epochs {
            config: 1,
            pool: u64::from(!rows.is_empty()),
            pool_as_of: NOW,
            mask_until: Millis::MAX,
            popular: 1,
            ..Epochs::default()
        };
        let held = Held {
            context: RefCell::default(),
            epochs,
            arrays,
            places: items.iter().map(|item| item.id.clone()).zip(0..).collect(),
            items,
            config: encode(&config())?,
            popular: encode(&PopularList {
                as_of_ms: NOW,
                items: popular.collect(),
            })?,
        };
        Ok(Self {
            world,
            capability,
            worker: WorkerState::default(),
            held,
        })
    }

    /// Ids of the ten best items for a user with this context. The answer must be on `rung`, or
    /// below it where nothing is known that the rung could work from.
    pub fn recommend(
        &mut self,
        user: u32,
        context: UserContext,
        rung: &str,
    ) -> anyhow::Result<Vec<String>> {
        self.world.ask_for(user, context.clone());
        *self.held.context.borrow_mut() = context;
        let request = Request {
            method: Method::Get,
            target: "/v1/recommend/case?n=10".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            now: NOW,
            tick: Tick::default(),
            entropy: 1,
            loopback: true,
            revalidate: false,
            epochs: self.held.epochs,
        };
        let platform = Platform {
            world: self.world,
            capability: self.capability,
            held: &self.held,
        };
        let response = block_on(serve(&platform, &mut self.worker, request));
        let body = match response.body {
            Body::Inline(bytes) => bytes,
            Body::Keep(keep) => keep.bytes,
            Body::Stored(_) => anyhow::bail!("nothing is cached here"),
        };
        let answer: Value = serde_json::from_slice(&body)?;
        ensure!(response.status == 200, "{answer}");
        let served = answer["served"]["rung"].as_str().context("no rung")?;
        ensure!(
            served == rung || served == "popular",
            "{served} instead of {rung}: {}",
            answer["served"]
        );
        let items = answer["items"].as_array().context("no items")?;
        Ok(items
            .iter()
            .filter_map(|item| Some(item["id"].as_str()?.to_owned()))
            .collect())
    }
}

fn config() -> ConfigBlob {
    ConfigBlob {
        pop: Arc::from("eval"),
        region: Arc::from("eval"),
        sealing_key: [0; 32],
        surfaces: Vec::new(),
        public_names_users: None,
        keys: Vec::new(),
        fresh_active_ms: 300_000,
        fresh_idle_ms: 900_000,
    }
}

impl Host for Platform<'_> {
    async fn lookup(&self, _: &[u8], _: &str, _: u64, _: Millis) -> Found {
        Found {
            context_version: 1,
            ..Found::default()
        }
    }

    async fn store(&self, _: &[u8], _: &[String], _: CacheEntry) {}

    async fn purge(&self, _: &str) {}

    async fn kv_get(&self, _: &str) -> Option<KvValue> {
        let context = self.held.context.borrow().clone();
        let stored = StoredContext {
            written_ms: NOW,
            expires_ms: NOW + 3_600_000,
            mark: 0,
            context,
        };
        Some(KvValue {
            bytes: encode(&stored).ok()?,
            version: 1,
        })
    }

    async fn kv_put(&self, _: &str, _: Vec<u8>, expected: u64) -> Option<u64> {
        Some(expected + 1)
    }

    async fn config(&self) -> Vec<u8> {
        self.held.config.clone()
    }

    async fn pool(&self) -> Vec<u8> {
        self.held.arrays.clone()
    }

    async fn rows(&self, ids: &[&str]) -> Vec<u32> {
        ids.iter()
            .map(|id| {
                let place = ItemId::new(id)
                    .ok()
                    .and_then(|id| self.held.places.get(&id));
                place.copied().unwrap_or(NO_ROW)
            })
            .collect()
    }

    async fn items(&self, rows: &[u32]) -> Vec<u8> {
        let items = rows
            .iter()
            .filter_map(|row| self.held.items.get(*row as usize).cloned())
            .collect();
        encode(&PoolItems { items }).unwrap_or_default()
    }

    async fn popular(&self, _: &str, _: &str) -> Option<Vec<u8>> {
        Some(self.held.popular.clone())
    }

    async fn bandit(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    async fn forbidden(&self, hashes: &[ItemHash], _: Millis, _: &str) -> Vec<bool> {
        vec![false; hashes.len()]
    }

    fn plan(&self, _: u64, _: u32) -> Plan {
        match self.capability {
            Capability::Origin => Plan {
                ask: true,
                best: Rung::Full,
                cause: None,
            },
            Capability::Pool(_) | Capability::Popular => Plan {
                ask: false,
                best: Rung::Edge,
                cause: Some(Cause::OriginDown),
            },
        }
    }

    async fn ask(&self, _: &[u8], question: Vec<u8>, _: u32) -> Result<Vec<u8>, AskFailure> {
        let frame: AskFrame = decode(&question).map_err(|_| AskFailure::Error)?;
        let question = Question {
            ask: &frame.ask,
            decision_id: Uid(1),
            seed: frame.seed,
            pending: &[],
            now: NOW,
            explore: false,
        };
        let outcome = answer(self.world, &question);
        let decision = StoredDecision {
            decision: outcome.decision,
        };
        let decision = encode(&decision).map_err(|_| AskFailure::Error)?;
        let state = RegionState::default();
        let reply = AnswerFrame {
            outcome: Ok(Answer {
                decision,
                newest_ms: NOW,
                context: None,
            }),
            state,
            stages: Vec::new(),
        };
        encode(&reply).map_err(|_| AskFailure::Error)
    }

    async fn append(&self, _: &[Event], _: &[String]) -> Result<(), String> {
        Ok(())
    }

    async fn pending(&self, _: &str) -> Vec<u8> {
        encode(&EventBatch::default()).unwrap_or_default()
    }

    fn tick(&self) -> Tick {
        Tick::default()
    }

    fn log(&self, level: LogLevel, message: &str) {
        if matches!(level, LogLevel::Warn | LogLevel::Error) {
            tracing::warn!(message);
        }
    }
}
