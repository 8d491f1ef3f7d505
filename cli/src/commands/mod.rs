//! One file per command.

pub mod bench;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod get;
pub mod keys;
