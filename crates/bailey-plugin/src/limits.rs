//! What one cell may use.

use serde::{Deserialize, Serialize};

use crate::Container;

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
        Self {
            memory_bytes: 256 << 20,
            millicpus: 1000,
            pids: 128,
            tmp_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// The limits of a plugin: for each, the first of `sources` that names it, else the default. The order is configuration, manifest,
    /// account.
    pub fn resolve(sources: &[&Container]) -> Self {
        let default = Self::default();
        let find =
            |field: fn(&Container) -> Option<u64>| sources.iter().find_map(|source| field(source));
        let small =
            |field: fn(&Container) -> Option<u32>| sources.iter().find_map(|source| field(source));
        let memory_bytes = find(|c| c.memory_bytes).unwrap_or(default.memory_bytes);
        Self {
            memory_bytes,
            millicpus: small(|c| c.millicpus).unwrap_or(default.millicpus),
            pids: small(|c| c.pids).unwrap_or(default.pids),
            // A default `/tmp` never exceeds half of a small cell's memory: filling it must not kill the plugin.
            tmp_bytes: find(|c| c.tmp_bytes).unwrap_or(default.tmp_bytes.min(memory_bytes / 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_source_that_names_a_limit_decides_it() {
        let config = Container {
            pids: Some(9),
            ..Container::default()
        };
        let manifest = Container {
            pids: Some(10),
            memory_bytes: Some(32 << 20),
            ..Container::default()
        };
        let account = Container {
            memory_bytes: Some(1 << 30),
            millicpus: Some(1),
            ..Container::default()
        };
        let limits = Limits::resolve(&[&config, &manifest, &account]);
        let expected = Limits {
            memory_bytes: 32 << 20,
            millicpus: 1,
            pids: 9,
            tmp_bytes: 16 << 20,
        };
        assert_eq!(limits, expected);
        assert_eq!(Limits::resolve(&[]), Limits::default());
    }
}
