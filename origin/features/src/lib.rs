//! The online feature store: user contexts by tenant.
