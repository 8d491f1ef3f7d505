//! One file per command.

pub mod bench;
pub mod config;
pub mod doctor;
pub mod eval;
pub mod explain;
pub mod get;
pub mod import;
pub mod keys;
pub mod origin;
pub mod pop;
pub mod shard;
pub mod train;
pub mod up;
pub mod vector;
