//! The whole edge path, platform-neutral: serve.rs is one request from top to bottom.
