//! Implicit-feedback embeddings, order affinities, the default ranker.
