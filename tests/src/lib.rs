//! What the tests of the assembled stack and the benchmarks share: a stack of their own, and a client for it.

mod client;
pub mod fixture;
pub mod hardening;
mod stack;
pub mod suite;

pub use client::{Answer, Client};
pub use stack::{Stack, checkout, read_all};
