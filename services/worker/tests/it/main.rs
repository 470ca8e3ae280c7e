//! The worker over its wire, and its binary as the engine room starts it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are not in test functions"
)]

mod binary;
mod retention;
