//! What one cell may use.

use serde::{Deserialize, Serialize};

/// Resource limits of a cell, resolved: every field has its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory without swap, bytes.
    pub memory_bytes: u64,
    /// Thousandths of a core.
    pub millicpus: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Size of `/tmp`, bytes; counted against memory too.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, millicpus: 1000, pids: 128, tmp_bytes: 64 << 20 }
    }
}
