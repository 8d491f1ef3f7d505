//! Whole origins in this process, with real certificates, sockets and files.

mod breaches;
mod http;
mod metrics;
mod path;
mod restart;
mod similar;
pub mod world;
