//! What operators ask a node for: each is a change of the table by compare-and-swap, after a look at
//! the table as it is now. What follows from it is the nodes' to do.

use crate::coordination::View;
use crate::error::Error;
use crate::moving;
use crate::node::Shared;
use crate::table::{Draft, NodeId, ShardId, ShardTable, TableError};
use crate::wire::grpc as g;
use std::sync::Arc;

pub async fn migrate(
    shared: &Shared,
    request: g::MigrateRequest,
) -> Result<g::MigrateReply, Error> {
    use g::migrate_request::Verb;
    let table = shared.refresh().await?;
    let verb = request
        .verb
        .ok_or_else(|| Error::Request("no verb".to_owned()))?;
    let draft = match verb {
        Verb::Split(split) => {
            let replicas = nodes(&split.replicas)?;
            table.split(ShardId(split.shard), &replicas)?
        }
        Verb::Move(moved) => {
            let slots = moved
                .slots
                .iter()
                .filter_map(|slot| u16::try_from(*slot).ok());
            table.move_slots(ShardId(moved.from), ShardId(moved.to), slots.collect())?
        }
        Verb::Abort(abort) => {
            let table = moving::abort(shared, abort.migration).await?;
            return Ok(g::MigrateReply {
                migration: abort.migration,
                epoch: table.epoch(),
                ..Default::default()
            });
        }
        Verb::Replace(replace) => {
            let draft = replaced(shared, &table, &replace).await?;
            return place(shared, ShardId(replace.shard), draft).await;
        }
        Verb::PutBack(back) => {
            let shard = ShardId(back.shard);
            return place(shared, shard, table.put_back(shard)?).await;
        }
    };
    let table = swap(shared, draft).await?;
    let migration = table
        .migration()
        .ok_or_else(|| Error::Peer("no migration".to_owned()))?;
    Ok(g::MigrateReply {
        migration: migration.id,
        from: migration.from.0,
        to: migration.to.0,
        slots: migration.slots.len(),
        epoch: table.epoch(),
    })
}

fn nodes(names: &[String]) -> Result<Vec<NodeId>, TableError> {
    names.iter().map(|name| NodeId::new(name)).collect()
}

async fn swap(shared: &Shared, draft: Draft) -> Result<Arc<ShardTable>, Error> {
    let table = shared
        .coordination()
        .compare_and_swap(draft, Vec::new())
        .await?;
    shared.adopt(&table);
    Ok(table)
}

/// A list of nodes that are there, and how many replicas are in sync now.
async fn replaced(
    shared: &Shared,
    table: &ShardTable,
    replace: &g::Replace,
) -> Result<Draft, Error> {
    let (shard, to) = (ShardId(replace.shard), nodes(&replace.replicas)?);
    let set = shared.coordination().in_sync(shard).await?;
    let held = set.map_or(1, |set| set.members.len());
    let draft = table.replace(shard, &to, u32::try_from(held).unwrap_or(u32::MAX))?;
    let view = shared.view();
    let is_there = |node: &NodeId| view.as_ref().and_then(|view: &Arc<View>| view.addr(node));
    let has_one = |node: &NodeId| {
        let entry = table.shard(shard);
        entry.is_some_and(|entry| entry.replicas.contains(node))
    };
    match to
        .into_iter()
        .find(|node| !has_one(node) && is_there(node).is_none())
    {
        Some(absent) => Err(Error::NoNode(absent)),
        None => Ok(draft),
    }
}

async fn place(shared: &Shared, shard: ShardId, draft: Draft) -> Result<g::MigrateReply, Error> {
    let table = swap(shared, draft).await?;
    let placing = table
        .placing(shard)
        .ok_or_else(|| Error::Peer("no change of replicas".to_owned()))?;
    Ok(g::MigrateReply {
        migration: placing.id,
        from: shard.0,
        to: shard.0,
        slots: 0,
        epoch: table.epoch(),
    })
}
