//! `/data/policy.db`.

pub(crate) mod job;
pub(crate) mod memory;
