//! The engine over its wire.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail"
)]

mod broker;
mod intake;
mod pipeline;
mod policy;
mod recovery;
mod runner;
mod service;
mod stack;
mod stored;
mod ticket;
mod upstream;
mod work;
