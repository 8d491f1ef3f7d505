//! Shards of a collection: who has which slots, nodes that hold replicas, and the router that asks
//! them.
//!
//! Invariants: every slot has exactly one shard, under one epoch that never goes back; a write is
//! acknowledged when it is on the leader's disk and on that of every member of the in-sync set; an old
//! leader is refused wherever it turns; a search is answered under one table, or says so. There is no
//! consensus here: the table and the leads live behind [`coordination::Coordination`].

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod admin;
pub mod backup;
mod clock;
mod collection;
pub mod coordination;
mod digest;
mod error;
mod feed;
mod files;
mod follow;
mod insync;
mod lead;
pub mod memory;
mod meter;
mod moving;
mod node;
mod operate;
mod peers;
mod placing;
mod replica;
mod router;
mod service;
pub mod slots;
mod status;
pub mod store;
pub mod table;
mod tend;
mod terms;
pub mod tls;
mod vectors;
pub mod wire;

pub use admin::Admin;
pub use collection::Collections;
pub use coordination::{Coordination, CoordinationError, Directory, View};
pub use error::{CODES, Error};
pub use node::{Handle, Limits, Node, Options};
pub use peers::{Client, Peers};
pub use router::{Ask, Counts, Failure, ReadToken, Router, Searched, Written};
pub use slots::{SlotSet, slot_of};
pub use table::{Draft, Migration, NodeId, Placing, Shard, ShardId, ShardTable, TableError};
pub use tls::Tls;
pub use tonic::transport::ClientTlsConfig;
pub use vectors::Vectors;
