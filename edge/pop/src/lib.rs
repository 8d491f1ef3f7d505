//! The PoP host: wasmtime pool, HTTP listener, cache, KV, event spool, QUIC to the origin.
