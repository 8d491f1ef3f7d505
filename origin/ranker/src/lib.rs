//! The native ranker and its model artifact.
