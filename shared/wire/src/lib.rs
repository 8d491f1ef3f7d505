//! The only codecs: binary frames and stored values, JSON v1.
