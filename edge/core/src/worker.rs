//! What a worker keeps between requests: decoded copies of what the host holds, keyed by epoch, and
//! nothing of any request. A copy is made when first needed and replaced when its epoch moves.

use crate::ports::{Epochs, Host, LogLevel, NO_ROW};
use skerry_decide::bandit::Snapshot;
use skerry_decide::score::{EdgePool, Scratch};
use skerry_types::{ItemHash, Surface};
use skerry_wire::value::{ConfigBlob, PopularList, schema};
use skerry_wire::{codec, decode};
use std::rc::Rc;

/// Popular lists kept decoded, at most (surface and locale).
const LISTS_MAX: usize = 16;
/// Bandit snapshots kept decoded, at most (surfaces).
const SNAPSHOTS_MAX: usize = 8;

/// Decoded copies in the worker's memory.
#[derive(Default)]
pub struct WorkerState {
    config: Option<(u64, Rc<ConfigBlob>)>,
    pool: Option<(u64, Rc<EdgePool>)>,
    pub(crate) scratch: Scratch,
    lists: Vec<(u64, String, String, Rc<PopularList>)>,
    snapshots: Vec<(u64, u64, Surface, Rc<Arms>)>,
}

/// A surface's bandit snapshot, with where its arms are in the pool.
pub(crate) struct Arms {
    pub snapshot: Snapshot,
    /// Hash and pool row of each arm, in the snapshot's order; [`NO_ROW`] where it has none.
    pub rows: Vec<(ItemHash, u32)>,
}

impl WorkerState {
    pub(crate) async fn config<H: Host>(
        &mut self,
        host: &H,
        epochs: &Epochs,
    ) -> Option<Rc<ConfigBlob>> {
        if let Some((epoch, config)) = &self.config
            && *epoch == epochs.config
        {
            return Some(Rc::clone(config));
        }
        match decode::<ConfigBlob>(&host.config().await) {
            Ok(config) => {
                let config = Rc::new(config);
                self.config = Some((epochs.config, Rc::clone(&config)));
                Some(config)
            }
            Err(error) => {
                host.log(
                    LogLevel::Error,
                    &format!("the configuration does not decode: {error}"),
                );
                self.config.as_ref().map(|(_, config)| Rc::clone(config))
            }
        }
    }

    /// The numeric pool; `None` where the host has none.
    pub(crate) async fn pool<H: Host>(
        &mut self,
        host: &H,
        epochs: &Epochs,
    ) -> Option<Rc<EdgePool>> {
        if epochs.pool == 0 {
            return None;
        }
        if let Some((epoch, pool)) = &self.pool
            && *epoch == epochs.pool
        {
            return Some(Rc::clone(pool));
        }
        // The old copy goes first: two of them would not fit an instance's share of memory.
        self.pool = None;
        match EdgePool::from_bytes(&host.pool().await) {
            Ok(pool) => {
                let pool = Rc::new(pool);
                self.pool = Some((epochs.pool, Rc::clone(&pool)));
                Some(pool)
            }
            Err(error) => {
                host.log(
                    LogLevel::Error,
                    &format!("the item pool does not decode: {error}"),
                );
                None
            }
        }
    }

    /// The popular list for a surface and locale. Where the host has lost it, the last one that this
    /// worker has seen.
    pub(crate) async fn popular<H: Host>(
        &mut self,
        host: &H,
        epochs: &Epochs,
        surface: &str,
        locale: &str,
    ) -> Option<Rc<PopularList>> {
        let same =
            |list: &&(u64, String, String, Rc<PopularList>)| list.1 == surface && list.2 == locale;
        if let Some((epoch, _, _, list)) = self.lists.iter().find(same)
            && *epoch == epochs.popular
        {
            return Some(Rc::clone(list));
        }
        let fresh = host
            .popular(surface, locale)
            .await
            .and_then(|bytes| decode::<PopularList>(&bytes).ok());
        match fresh {
            Some(list) => {
                let list = Rc::new(list);
                self.lists.retain(|known| !same(&known));
                if self.lists.len() >= LISTS_MAX {
                    self.lists.remove(0);
                }
                self.lists.push((
                    epochs.popular,
                    surface.to_owned(),
                    locale.to_owned(),
                    Rc::clone(&list),
                ));
                Some(list)
            }
            None => {
                let last = self.lists.iter().find(same).or(self.lists.last());
                last.map(|(_, _, _, list)| Rc::clone(list))
            }
        }
    }

    /// What to explore on a surface, with the arms' rows in the pool.
    pub(crate) async fn arms<H: Host>(
        &mut self,
        host: &H,
        epochs: &Epochs,
        surface: &Surface,
    ) -> Option<Rc<Arms>> {
        if epochs.bandit == 0 || epochs.pool == 0 {
            return None;
        }
        let known = self
            .snapshots
            .iter()
            .find(|(.., known, _)| known == surface);
        if let Some((bandit, pool, _, arms)) = known
            && (*bandit, *pool) == (epochs.bandit, epochs.pool)
        {
            return Some(Rc::clone(arms));
        }
        let bytes = host.bandit(surface.as_str()).await?;
        let snapshot: Snapshot = match codec::decode_as(schema::BANDIT_SNAPSHOT, &bytes) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                host.log(
                    LogLevel::Error,
                    &format!("a bandit snapshot does not decode: {error}"),
                );
                return None;
            }
        };
        let ids: Vec<&str> = snapshot.arms.iter().map(|arm| arm.item.as_str()).collect();
        let found = host.rows(&ids).await;
        let rows = snapshot.arms.iter().enumerate();
        let rows = rows
            .map(|(at, arm)| (arm.item.hash(), found.get(at).copied().unwrap_or(NO_ROW)))
            .collect();
        let arms = Rc::new(Arms { snapshot, rows });
        self.snapshots.retain(|(.., known, _)| known != surface);
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            self.snapshots.remove(0);
        }
        self.snapshots.push((
            epochs.bandit,
            epochs.pool,
            surface.clone(),
            Rc::clone(&arms),
        ));
        Some(arms)
    }
}
