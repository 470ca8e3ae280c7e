//! What was done to the vault while the broker did not run. The audit log could not be told then; it is as soon as it can be reached.

use bailey_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::Document;

/// One of those deeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offline {
    /// What.
    pub deed: Deed,
    /// When.
    pub at: Timestamp,
}

/// What can be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Another age key.
    KeyRotated,
    /// Another admin token.
    AdminTokenRotated,
    /// Brought back from a copy.
    Restored,
}

impl Deed {
    /// What the audit log calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::KeyRotated => "vault.key_rotated",
            Self::AdminTokenRotated => "vault.admin_token_rotated",
            Self::Restored => "vault.restored",
        }
    }
}

impl Document {
    /// Notes a deed for the audit log.
    pub fn did_offline(&mut self, deed: Deed, at: Timestamp) {
        self.unrecorded.push(Offline { deed, at });
    }

    /// Forgets the deeds that the audit log has.
    pub fn recorded(&mut self, deeds: &[Offline]) {
        self.unrecorded.retain(|deed| !deeds.contains(deed));
    }
}
