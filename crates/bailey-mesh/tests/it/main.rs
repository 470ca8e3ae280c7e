//! The mesh over real TLS: who gets in, who may call what, and what survives a renewal.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are not in test functions"
)]

mod audit;
mod authority;
mod bounds;
mod handshake;
mod join;
mod support;
mod table;
