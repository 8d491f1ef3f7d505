//! The service: what each call checks, in the order in which it checks it.
//!
//! Invariants: a request that is not admitted costs nothing; a search is answered under one table,
//! looked at before and after (a replica could have lost records to a sweep in between); a write is
//! checked against the table with the gate open.

use crate::backup;
use crate::clock;
use crate::coordination::View;
use crate::error::Error;
use crate::feed;
use crate::lead::{self, Writes};
use crate::moving::verify;
use crate::node::Shared;
use crate::operate;
use crate::peers::MESSAGE_BYTES_MAX;
use crate::replica::{Replica, blocking};
use crate::slots::{SlotSet, slot_of};
use crate::status;
use crate::table::{Shard, ShardId};
use crate::tls;
use crate::wire::{self, grpc as g};
use g::shards_server::{Shards, ShardsServer};
use skerry_telemetry::VectorOp;
use skerry_types::Budget;
use skerry_vector_index::{Found, Query, RESULTS_MAX};
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Longest time that a request may ask for, in milliseconds.
pub const REQUEST_MS_MAX: u32 = 30_000;
/// Requests of one connection at a time.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;
/// Ids of one `get`, at most.
pub const GETS_MAX: usize = 1_000;

pub async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    drain: impl Future<Output = ()>,
) -> Result<(), Error> {
    let failed = |error: tonic::transport::Error| Error::Listen {
        addr: shared.options.listen.to_string(),
        reason: error.to_string(),
    };
    let service = ShardsServer::new(Service(Arc::clone(&shared)))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(5)));
    if let Some(tls) = &shared.options.tls {
        server = server.tls_config(tls.server.clone()).map_err(failed)?;
    }
    // What the server's builder says about TCP is not for sockets that are given to it: without this an
    // answer in two pieces waits for the delayed acknowledgement of its first, 40 ms.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = if shared.options.tls.is_some() {
        let checked = InterceptedService::new(service, tls::check_peer);
        let server = server.add_service(checked);
        server.serve_with_incoming_shutdown(incoming, drain).await
    } else {
        let server = server.add_service(service);
        server.serve_with_incoming_shutdown(incoming, drain).await
    };
    served.map_err(failed)
}

struct Service(Arc<Shared>);

fn budget(left_ms: u32) -> Budget {
    Budget::starting(clock::now(), left_ms.min(REQUEST_MS_MAX))
}

/// The shard of a request, where the table means by it what the caller means.
fn entry(view: &View, shard: ShardId, epoch: u64) -> Result<&Shard, Error> {
    let current = view.table.epoch();
    let entry = view.table.shard(shard).ok_or(Error::NotHere(shard))?;
    if epoch < entry.since {
        return Err(Error::Epoch { epoch: current });
    }
    Ok(entry)
}

/// The nearest of the shard's own records: while slots move, or until a sweep is done, a store holds
/// others too.
fn search_own(
    replica: &Replica,
    slots: &SlotSet,
    queries: &[Query],
) -> Result<Vec<Vec<Found>>, Error> {
    let store = replica.store();
    let mut lists = store.search_batch(queries)?;
    for (list, query) in lists.iter_mut().zip(queries) {
        let mut asked = query.k;
        loop {
            let got = list.len();
            list.retain(|found| slots.contains(slot_of(&found.id)));
            let short = list.len() < query.k && got >= asked && asked < RESULTS_MAX;
            if !short {
                break;
            }
            asked = asked.saturating_mul(4).min(RESULTS_MAX);
            let wider = Query {
                k: asked,
                ..query.clone()
            };
            *list = store.search_batch(&[wider])?.pop().unwrap_or_default();
        }
        list.truncate(query.k);
    }
    Ok(lists)
}

impl Service {
    fn view(&self) -> Result<Arc<View>, Error> {
        let view = self.0.view();
        view.ok_or(Error::Coordination(
            crate::coordination::CoordinationError::NoTable,
        ))
    }

    /// What reads share: a replica that is new enough, and the table that it is read under.
    async fn readable(
        &self,
        shard: u32,
        epoch: u64,
        min_seq: u64,
        budget: Budget,
    ) -> Result<(Arc<Replica>, Shard), Error> {
        self.0.table_since(epoch).await?;
        let view = self.view()?;
        let entry = entry(&view, ShardId(shard), epoch)?.clone();
        let replica = self.0.replica(entry.id)?;
        if !replica.is_caught_up() {
            return Err(Error::Starting(entry.id));
        }
        replica
            .reach(min_seq.max(entry.base_seq), budget, clock::now())
            .await?;
        Ok((replica, entry))
    }

    fn still(&self, shard: ShardId, epoch: u64) -> Result<(), Error> {
        entry(self.view()?.as_ref(), shard, epoch).map(|_| ())
    }

    async fn search(&self, request: g::SearchRequest) -> Result<g::SearchReply, Error> {
        let budget = budget(request.left_ms);
        let places = &self.0.search_places;
        let _place = places
            .try_acquire()
            .map_err(|_| Error::Overloaded("searches"))?;
        let queries = wire::queries_in(request.queries)?;
        let epoch = request.epoch;
        let (replica, entry) = self
            .readable(request.shard, epoch, request.min_seq, budget)
            .await?;
        let left_ms = u64::from(budget.left_ms(clock::now()));
        let turn = Arc::clone(&self.0.searches).acquire_owned();
        let turn = clock::within(left_ms, turn).await.ok_or(Error::Deadline)?;
        if budget.spent(clock::now()) {
            return Err(Error::Deadline);
        }
        let (began, count) = (clock::now(), queries.len());
        let (shard, seq) = (entry.id, replica.seq());
        // A caller that goes away does not make room before its search has ended.
        let lists = blocking(move || {
            let _turn = turn;
            search_own(&replica, &entry.slots, &queries)
        })
        .await?;
        self.still(shard, epoch)?;
        self.0.meter.searched(count, began);
        Ok(g::SearchReply {
            lists: lists.into_iter().map(wire::found_out).collect(),
            seq,
        })
    }

    async fn get(&self, request: g::GetRequest) -> Result<g::GetReply, Error> {
        let budget = budget(request.left_ms);
        let places = &self.0.search_places;
        let _place = places
            .try_acquire()
            .map_err(|_| Error::Overloaded("searches"))?;
        if request.ids.len() > GETS_MAX {
            return Err(Error::Request(format!(
                "{} ids, at most {GETS_MAX}",
                request.ids.len()
            )));
        }
        let epoch = request.epoch;
        let (replica, entry) = self
            .readable(request.shard, epoch, request.min_seq, budget)
            .await?;
        let shard = entry.id;
        let mine = request
            .ids
            .iter()
            .all(|id| entry.slots.contains(slot_of(id)));
        if !mine {
            return Err(Error::NotOwned(shard));
        }
        let records = blocking(move || {
            let store = replica.store();
            let mut records = Vec::new();
            for id in request.ids {
                if let Some((record, seq)) = store.get(&id)? {
                    records.push(g::LogRecord {
                        seq,
                        write: Some(wire::write_out(skerry_vector_index::Write::Upsert(record))),
                    });
                }
            }
            Ok(records)
        })
        .await?;
        self.still(shard, epoch)?;
        Ok(g::GetReply { records })
    }

    async fn write(&self, request: g::WriteRequest) -> Result<g::WriteReply, Error> {
        let budget = budget(request.left_ms);
        let _place = self
            .0
            .writes
            .try_acquire()
            .map_err(|_| Error::Overloaded("writes"))?;
        let began = clock::now();
        let writes = wire::writes_in(request.writes)?;
        let count = writes.len();
        self.0.table_since(request.epoch).await?;
        let shard = ShardId(request.shard);
        let replica = self.0.replica(shard)?;
        let leading = replica.leading().ok_or(Error::NotLeader(shard))?;
        let left_ms = u64::from(budget.left_ms(clock::now()));
        let gate = Arc::clone(&leading.gate).read_owned();
        let open = clock::within(left_ms, gate)
            .await
            .ok_or(Error::Overloaded("writes at the gate"))?;
        let view = self.view()?;
        let entry = entry(&view, shard, request.epoch)?;
        let mine = |write| entry.slots.contains(slot_of(wire::id_of(write)));
        if !writes.iter().all(mine) {
            return Err(Error::NotOwned(shard));
        }
        lead::ready(&leading, budget).await?;
        let coordination = &self.0.options.coordination;
        let committed =
            lead::commit(&replica, &leading, coordination, Writes::Of(writes), open).await?;
        self.0.meter.wrote(count, began);
        Ok(g::WriteReply {
            first_seq: committed.first_seq,
            last_seq: committed.last_seq,
        })
    }

    /// For the giving leader of a migration: the receiver's records, as the leader that it followed.
    async fn fingerprint(
        &self,
        request: g::FingerprintRequest,
    ) -> Result<g::FingerprintReply, Error> {
        let shard = ShardId(request.shard);
        let replica = self.0.replica(shard)?;
        let leading = replica.leading().ok_or(Error::NotLeader(shard))?;
        if leading.lease.token != request.token || !leading.lease.holds(clock::now()) {
            return Err(Error::NotLeader(shard));
        }
        let pairs = request.slots.chunks_exact(2);
        let ranges = pairs.map(|pair| match *pair {
            [first, last] => Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?)),
            _ => None,
        });
        let ranges = ranges.collect::<Option<Vec<_>>>();
        let slots = ranges.and_then(|ranges| SlotSet::try_from(ranges).ok());
        let slots = slots.ok_or_else(|| Error::Request("slots that are none".to_owned()))?;
        let place = feed::place(&self.0)?;
        let _place = place;
        leading.moved.lock().step = "verify";
        let (found, seq) =
            verify::fingerprint(&replica, &leading, request.migration, slots).await?;
        Ok(g::FingerprintReply {
            count: found.count,
            hash: found.hash,
            seq,
        })
    }

    fn stats(&self) -> Result<g::StatsReply, Error> {
        let view = self.view()?;
        let replicas: Vec<Arc<Replica>> = self.0.replicas.read().values().cloned().collect();
        let shards = replicas.iter().map(|replica| {
            let leading = replica.leading();
            let store = replica.store();
            let moved = leading.as_ref().map(|leading| *leading.moved.lock());
            let moved = moved.filter(|stats| stats.migration > 0);
            g::ShardStats {
                shard: replica.shard.0,
                role: status::role(replica).as_str().to_owned(),
                seq: store.seq(),
                records: store.len(),
                token: replica.token(),
                in_sync: leading.as_ref().map_or_else(Vec::new, |leading| {
                    let members = leading.tracker.lock().members();
                    members.into_iter().map(String::from).collect()
                }),
                moved: moved.map(|stats| g::MoveStats {
                    migration: stats.migration,
                    step: stats.step.to_owned(),
                    copied: stats.copied,
                    copy_total: stats.copy_total,
                    attempts: stats.attempts,
                }),
            }
        });
        Ok(g::StatsReply {
            node: self.0.options.id.to_string(),
            view: view
                .encode()
                .map_err(|error| Error::Peer(error.to_string()))?,
            shards: shards.collect(),
        })
    }

    fn counted<T>(&self, op: VectorOp, result: Result<T, Error>) -> Result<Response<T>, Status> {
        self.0.meter.ended(op, &result);
        self.answer(result)
    }

    fn answer<T>(&self, result: Result<T, Error>) -> Result<Response<T>, Status> {
        match result {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => {
                tracing::debug!(code = error.code(), %error, "refused");
                Err(error.status(self.0.epoch()))
            }
        }
    }
}

#[tonic::async_trait]
impl Shards for Service {
    type FollowStream = feed::Out<g::FollowReply>;
    type SnapshotStream = feed::Out<g::SnapshotReply>;
    type ScanStream = feed::Out<g::ScanReply>;
    type BackupStream = feed::Out<g::BackupReply>;

    async fn write(
        &self,
        request: Request<g::WriteRequest>,
    ) -> Result<Response<g::WriteReply>, Status> {
        self.counted(
            VectorOp::Write,
            Self::write(self, request.into_inner()).await,
        )
    }

    async fn search(
        &self,
        request: Request<g::SearchRequest>,
    ) -> Result<Response<g::SearchReply>, Status> {
        self.counted(
            VectorOp::Search,
            Self::search(self, request.into_inner()).await,
        )
    }

    async fn get(&self, request: Request<g::GetRequest>) -> Result<Response<g::GetReply>, Status> {
        self.counted(VectorOp::Get, Self::get(self, request.into_inner()).await)
    }

    async fn follow(
        &self,
        request: Request<Streaming<g::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.answer(feed::follow(&self.0, request.into_inner()).await)
    }

    async fn snapshot(
        &self,
        request: Request<g::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.answer(feed::snapshot(&self.0, request.into_inner()).await)
    }

    async fn scan(
        &self,
        request: Request<g::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        self.answer(feed::scan(&self.0, request.into_inner()).await)
    }

    async fn fingerprint(
        &self,
        request: Request<g::FingerprintRequest>,
    ) -> Result<Response<g::FingerprintReply>, Status> {
        self.answer(Self::fingerprint(self, request.into_inner()).await)
    }

    async fn backup(
        &self,
        request: Request<g::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        self.answer(backup::serve(&self.0, request.into_inner()).await)
    }

    async fn stats(&self, _: Request<g::StatsRequest>) -> Result<Response<g::StatsReply>, Status> {
        self.answer(Self::stats(self))
    }

    async fn migrate(
        &self,
        request: Request<g::MigrateRequest>,
    ) -> Result<Response<g::MigrateReply>, Status> {
        self.answer(operate::migrate(&self.0, request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests;
