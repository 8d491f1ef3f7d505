//! The origin's pipeline: features, candidates, rank, explore, rules, reasons.
