//! The origin's front: QUIC for PoPs, HTTP admin API, pushes, drain.
