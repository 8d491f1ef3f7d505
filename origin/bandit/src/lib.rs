//! Bandit statistics: the embedded ledger and its snapshots.
