//! The service over its wire, with an audit service that keeps what it is told.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod bounds;
mod checks;
mod connections;
mod ends;
mod exchange;
mod exchanges;
mod hostile;
mod leases;
mod limits;
mod locks;
mod memory;
mod rates;
mod script;
mod server;
mod tls;
mod world;
