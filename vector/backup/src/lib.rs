//! Snapshots of collections in a folder or an object store, and the way back.
//!
//! Invariants: a snapshot is there when its manifest is, which is written last; what a manifest names
//! is never changed, and removed only after it; a segment that an earlier snapshot has is not sent
//! again; what is restored is checked while it comes, and is a collection only when all of it is
//! there; memory has a bound, whatever the size of a segment. `docs/formats/snapshots.md` has the
//! objects.
//!
//! Nothing here knows of nodes: a snapshot has named parts, each a collection, and what its maker
//! wants to keep beside them.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod error;
mod fetch;
mod locks;
mod manifest;
mod names;
mod place;
mod prune;
#[cfg(feature = "s3")]
mod s3;
mod send;
mod stamp;

pub use error::{CODES, Error};
pub use manifest::{Kind, Manifest, Part, PartFile};
pub use names::SnapshotId;
pub use place::{Listed, Snapshots};
pub use prune::Pruned;
pub use send::Take;
pub use stamp::Stamp;

use futures::future::BoxFuture;
use futures::stream;

/// Bytes of an object that are held in memory at a time; also of a part of a multipart upload, unless
/// there would be too many.
const CHUNK_BYTES: usize = 8 << 20;
/// Objects that are sent or fetched at a time.
const OBJECTS_MAX: usize = 4;
/// Small requests (heads, removals) at a time.
const REQUESTS_MAX: usize = 8;

/// Futures to run some at a time. Boxed and in a list: the compiler does not see that a stream of
/// closures that borrow can be sent to another thread, and no task could be made of the whole.
fn some_of<'a, T>(
    all: impl Iterator<Item = BoxFuture<'a, T>>,
) -> stream::Iter<std::vec::IntoIter<BoxFuture<'a, T>>> {
    stream::iter(all.collect::<Vec<_>>())
}

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    pub bytes_done: u64,
    pub bytes_total: u64,
    /// Of those done, the bytes that went over the wire: others were there.
    pub bytes_moved: u64,
}

/// Is told how far a transfer is, often.
pub type OnProgress<'a> = &'a (dyn Fn(&Progress) + Send + Sync);
