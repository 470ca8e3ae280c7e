//! `/data/policy.db`.

pub(crate) mod decision;
pub(crate) mod edge_use;
pub(crate) mod memory;
pub(crate) mod origin_use;
