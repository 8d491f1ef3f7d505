//! The public JSON, version 1.
