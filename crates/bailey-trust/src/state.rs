//! How much a plugin may keep between calls.

use bailey_plugin::StateBounds;
use serde::{Deserialize, Serialize};

/// How much a plugin may keep between calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateLimit {
    /// Bytes on the disk, all files together.
    pub total_bytes: u64,
    /// Files, folders and links.
    pub files: u32,
}

impl Default for StateLimit {
    fn default() -> Self {
        Self {
            total_bytes: 1 << 30,
            files: 100_000,
        }
    }
}

/// What only the operator may raise above its default.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TooMuch {
    /// Asked for by the manifest alone.
    #[error("state_limit.bytes")]
    Bytes,
    /// Asked for by the manifest alone.
    #[error("state_limit.files")]
    Files,
}

impl StateLimit {
    /// The operator's bounds, or the manifest's where those are no more than the default: no plugin helps itself to the host's disk.
    pub fn of(operator: StateBounds, manifest: StateBounds) -> Result<Self, TooMuch> {
        let default = Self::default();
        if operator.total_bytes.is_none() && manifest.total_bytes > Some(default.total_bytes) {
            return Err(TooMuch::Bytes);
        }
        if operator.files.is_none() && manifest.files > Some(default.files) {
            return Err(TooMuch::Files);
        }
        let total_bytes = operator.total_bytes.or(manifest.total_bytes);
        let files = operator.files.or(manifest.files);
        Ok(Self {
            total_bytes: total_bytes.unwrap_or(default.total_bytes),
            files: files.unwrap_or(default.files),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: StateBounds = StateBounds {
        total_bytes: None,
        files: None,
    };

    fn bytes(bytes: u64) -> StateBounds {
        StateBounds {
            total_bytes: Some(bytes),
            ..NOTHING
        }
    }

    fn files(files: u32) -> StateBounds {
        StateBounds {
            files: Some(files),
            ..NOTHING
        }
    }

    #[test]
    fn a_manifest_may_ask_for_less_and_only_the_operator_for_more() {
        let default = StateLimit::default();
        assert_eq!(StateLimit::of(NOTHING, NOTHING), Ok(default));
        let small = StateLimit::of(NOTHING, bytes(1 << 20)).unwrap();
        assert_eq!((small.total_bytes, small.files), (1 << 20, default.files));
        assert_eq!(StateLimit::of(NOTHING, bytes(2 << 30)), Err(TooMuch::Bytes));
        assert_eq!(StateLimit::of(NOTHING, files(100_001)), Err(TooMuch::Files));
        let granted = StateLimit::of(bytes(2 << 30), bytes(4 << 30)).unwrap();
        assert_eq!(granted.total_bytes, 2 << 30);
        // Each key for itself.
        assert_eq!(
            StateLimit::of(bytes(2 << 30), files(200_000)),
            Err(TooMuch::Files)
        );
    }

    #[test]
    fn a_lock_from_before_has_the_default() {
        let walls: crate::Walls = serde_json::from_str("{}").unwrap();
        assert_eq!(walls.state_limit, StateLimit::default());
    }
}
