//! The proxy in front of a real Docker Engine: needs one on this machine, and makes what it needs in it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod attach;
mod books;
mod collect;
mod engine_away;
mod events;
mod holders;
mod mutations;
mod pool;
mod postures;
mod quota;
mod refusals;
mod seal;
mod stand;
