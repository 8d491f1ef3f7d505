//! Vector search over one segment: exact below 20,000 vectors, hnsw_rs behind a validator above.
