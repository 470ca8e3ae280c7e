//! What was done to the vault before the audit log had it: with no way to the log, before the stack was up, while the broker was sealed or
//! did not run; and what only takes away, which waits for no log. It is in the vault with the change itself, in one write, until the log has it.

use bailey_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::document::Document;

/// One of those deeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offline {
    /// What.
    pub deed: Deed,
    /// When.
    pub at: Timestamp,
    /// Which change of the vault it was.
    #[serde(default)]
    pub revision: u64,
    /// To what, where the deed alone does not say: names only.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Json>,
}

/// What can be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// The vault itself.
    Made,
    /// The age key was put right, so that it opened again.
    Unsealed,
    /// Another age key.
    KeyRotated,
    /// Another admin token.
    AdminTokenRotated,
    /// Brought back from a copy.
    Restored,
    /// A vault that did not say who wrote it, taken over by somebody who knows.
    Adopted,
    /// A secret was taken from some that had it.
    SecretNarrowed,
    /// A secret, for ever.
    SecretRevoked,
    /// A principal, which gets nothing any more.
    PrincipalRevoked,
    /// A principal with every grant to it.
    PrincipalPurged,
    /// An API token.
    TokenRevoked,
    /// Somebody who could open the vault.
    RecipientRemoved,
}

impl Deed {
    /// Those after which another vault counts than before.
    pub const TAKEOVERS: [Self; 3] = [Self::Made, Self::Restored, Self::Adopted];
    /// Those that only take away.
    const TAKING: [Self; 6] = [
        Self::SecretNarrowed,
        Self::SecretRevoked,
        Self::PrincipalRevoked,
        Self::PrincipalPurged,
        Self::TokenRevoked,
        Self::RecipientRemoved,
    ];

    /// What the audit log calls it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Made => "vault.made",
            Self::Unsealed => "vault.unsealed",
            Self::KeyRotated => "vault.key_rotated",
            Self::AdminTokenRotated => "vault.admin_token_rotated",
            Self::Restored => "vault.restored",
            Self::Adopted => "vault.adopted",
            Self::SecretNarrowed => "secret.narrowed",
            Self::SecretRevoked => "secret.revoked",
            Self::PrincipalRevoked => "principal.revoked",
            Self::PrincipalPurged => "principal.purged",
            Self::TokenRevoked => "token.revoked",
            Self::RecipientRemoved => "vault.recipient_removed",
        }
    }

    /// The deed that a change is which would be recorded as `kind` and only takes away.
    pub fn taking(kind: &str) -> Option<Self> {
        // With a kind of its own the log takes it where it takes nothing that gives, and what waits behind it is told.
        if kind == "secret.set" {
            return Some(Self::SecretNarrowed);
        }
        Self::TAKING.into_iter().find(|deed| deed.kind() == kind)
    }
}

impl Document {
    /// Notes a deed for the audit log. That the vault was opened again is no change of it, and is noted once, however often it was: on a disk that
    /// fails again and again the note itself would seal it each time.
    pub fn did_offline(&mut self, deed: Deed, at: Timestamp) {
        let waits = |done: &Offline| done.deed == deed;
        if deed == Deed::Unsealed && self.unrecorded.iter().any(waits) {
            return;
        }
        if deed != Deed::Unsealed {
            self.revision += 1;
        }
        self.tell_later(deed, Map::new(), at);
    }

    /// Notes for the audit log what this very change does.
    pub fn tell_later(&mut self, deed: Deed, fields: Map<String, Json>, at: Timestamp) {
        self.unrecorded.push(Offline {
            deed,
            at,
            revision: self.revision,
            fields,
        });
    }

    /// Forgets the deeds that the audit log has.
    pub fn recorded(&mut self, deeds: &[Offline]) {
        self.unrecorded.retain(|deed| !deeds.contains(deed));
    }
}
