//! The service over its wire, with an audit service that keeps what it is told.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod connections;
mod leases;
mod limits;
mod server;
mod stack;
mod tls;
mod world;
