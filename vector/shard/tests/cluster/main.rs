//! Clusters of real nodes over loopback, with real tonic: what callers see through kills, takeovers,
//! splits and cuts. Each node has a runtime of its own; a kill drops it.

mod backup;
mod coordination;
mod faults;
mod harness;
mod load;
mod moves;
mod placing;
mod serving;
#[cfg(feature = "etcd")]
#[path = "../support/etcd.rs"]
mod support;
mod watching;
