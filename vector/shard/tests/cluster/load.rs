//! Writers that keep a model, searchers beside them, and what compares the model with what is there.

use crate::harness::{ALL, ask, query, until, upsert};
use parking_lot::Mutex;
use skerry_types::Value;
use skerry_vector_index::{Found, Write};
use skerry_vector_shard::{Ask, Router};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What must be there: versions by id; ids that were deleted are not in it.
pub type Model = BTreeMap<String, i64>;

/// Compares all that the router finds with the model.
pub async fn check(router: &Router, model: &Model, token: &skerry_vector_shard::ReadToken) {
    let asked = Ask {
        budget_ms: 5_000,
        after: Some(token),
        slots: None,
    };
    let found = router.search(&[query(ALL)], asked).await.unwrap();
    assert!(!found.is_partial(), "missing {:?}", found.missing);
    let mut ids: Vec<&str> = found.lists[0]
        .iter()
        .map(|found: &Found| &*found.id)
        .collect();
    ids.sort_unstable();
    let want: Vec<&str> = model.keys().map(String::as_str).collect();
    let lost: Vec<_> = want
        .iter()
        .filter(|id| ids.binary_search(id).is_err())
        .collect();
    let extra: Vec<_> = ids.iter().filter(|id| !model.contains_key(**id)).collect();
    assert!(
        lost.is_empty() && extra.is_empty(),
        "lost {lost:?}, extra {extra:?}"
    );
    assert_eq!(ids.len(), want.len(), "twice");
    for chunk in want.chunks(500) {
        for (record, _) in router.get(chunk, asked).await.unwrap() {
            let version = record.payload.get("v").cloned();
            assert_eq!(
                version,
                Some(Value::Int(model[&*record.id])),
                "{}",
                record.id
            );
        }
    }
}

/// Writers and searchers that run until they are told to stop.
pub struct Load {
    stop: CancellationToken,
    writers: Vec<tokio::task::JoinHandle<(Model, skerry_vector_shard::ReadToken, u64)>>,
    searchers: Vec<tokio::task::JoinHandle<()>>,
    pub searched: Arc<AtomicU64>,
    pub failed: Arc<Mutex<Vec<String>>>,
}

impl Load {
    /// Each writer has ids of its own, writes them over and over, deletes some, and repeats a write
    /// until it is acknowledged.
    pub fn start(router: &Router, writers: usize, ids: usize, searchers: usize) -> Self {
        let stop = CancellationToken::new();
        let (searched, failed) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let write = |writer: usize| {
            let (router, stop) = (router.clone(), stop.clone());
            async move {
                let mut model = Model::new();
                let mut token = skerry_vector_shard::ReadToken::default();
                let (mut version, mut again) = (0, 0u64);
                while !stop.is_cancelled() {
                    version += 1;
                    let at = |k: usize| (version as usize * 7 + k * 3) % ids;
                    let mut chosen: Vec<usize> = (0..5).map(at).collect();
                    chosen.dedup();
                    let name = |at: &usize| format!("w{writer}-{at}");
                    let deletes = version % 11 == 0;
                    let batch: Vec<Write> = chosen
                        .iter()
                        .map(|at| match deletes {
                            true => Write::Delete(name(at).into()),
                            false => upsert(&name(at), version),
                        })
                        .collect();
                    loop {
                        match router.write(batch.clone(), 2_000).await {
                            Ok(written) if written.failed.is_empty() => {
                                token.merge(&written.token);
                                break;
                            }
                            _ => again += 1,
                        }
                    }
                    for at in &chosen {
                        if deletes {
                            model.remove(&name(at));
                        } else {
                            model.insert(name(at), version);
                        }
                    }
                }
                (model, token, again)
            }
        };
        let search = || {
            let (router, stop) = (router.clone(), stop.clone());
            let (searched, failed) = (Arc::clone(&searched), Arc::clone(&failed));
            async move {
                while !stop.is_cancelled() {
                    match router.search(&[query(10)], ask(2_000)).await {
                        Ok(found) if found.is_partial() => {
                            failed.lock().push(format!("missing {:?}", found.missing));
                        }
                        Ok(_) => {}
                        Err(error) => failed.lock().push(format!("{}: {error}", error.code())),
                    }
                    searched.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        };
        Self {
            writers: (0..writers).map(|at| tokio::spawn(write(at))).collect(),
            searchers: (0..searchers).map(|_| tokio::spawn(search())).collect(),
            stop,
            searched,
            failed,
        }
    }

    /// What all writers wrote, and how often a write was repeated.
    pub async fn end(self) -> (Model, skerry_vector_shard::ReadToken, u64) {
        self.stop.cancel();
        let mut all = (Model::new(), skerry_vector_shard::ReadToken::default(), 0);
        for writer in self.writers {
            let (model, token, again) = writer.await.unwrap();
            all.0.extend(model);
            all.1.merge(&token);
            all.2 += again;
        }
        for searcher in self.searchers {
            searcher.await.unwrap();
        }
        let failed = self.failed.lock();
        let searched = self.searched.load(Ordering::SeqCst);
        assert!(
            failed.is_empty(),
            "{} of {searched} searches failed: {:?}",
            failed.len(),
            failed.first()
        );
        assert!(searched > 0);
        println!(
            "{searched} searches, 0 failed; {} records; {} writes repeated",
            all.0.len(),
            all.2
        );
        all
    }

    /// Waits until so many more searches were answered.
    pub async fn more(&self, searches: u64) {
        let from = self.searched.load(Ordering::SeqCst);
        until("searches go on", async || {
            self.searched.load(Ordering::SeqCst) >= from + searches
        })
        .await;
    }
}
