//! The event log, deduplication, and the consumers that keep contexts and rewards current.
