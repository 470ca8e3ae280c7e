//! What the tests of the assembled stack and the benchmarks share: a stack of their own, and a client for it.

mod client;
pub mod hardening;
mod stack;

pub use client::{Answer, Client};
pub use stack::{Stack, checkout};
