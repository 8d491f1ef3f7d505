//! Seeded catalogue, users and events; fake clock; fault scripts.
