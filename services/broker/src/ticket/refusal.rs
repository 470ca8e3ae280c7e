//! Why there is no ticket.

use bailey_error::{Classify, Kind};
use serde_json::{Map, Value as Json};

/// What the audit log is told: names only.
pub type Fields = Map<String, Json>;

/// Why there is no ticket, as a stable token for logs and the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not signed by policy, or malformed.
    BadDecision,
    /// Its time is over, or has not come.
    Expired,
    /// Of another life of the broker.
    WrongEpoch,
    /// Other bytes than those that were decided about.
    WrongRequest,
    /// Bytes that may not be spliced into.
    BadRequest,
    /// There is no usable lock.
    NoLock,
    /// Decided under an older lock than the present one.
    OlderLock,
    /// Decided under a lock that the broker does not see yet.
    NewerLock,
    /// The lock on disk is older than the last one that was signed.
    StaleLock,
    /// The plugin is not in the lock.
    NotLocked,
    /// Another image than the locked one.
    WrongImage,
    /// Another account or other egress than the locked ones.
    WrongGrant,
    /// The tree's MAC is not of this vault.
    WrongSeal,
    /// The vault cannot be opened.
    VaultSealed,
    /// The plugin may not run without a vault that knows it.
    RequiresVault,
    /// The plugin's principal was revoked.
    PrincipalRevoked,
    /// The plugin's principal is no plugin.
    WrongPrincipal,
    /// The plugin's config refers to a secret that nobody ever set.
    NoSuchSecret,
    /// The plugin's config refers to a secret that its principal may not have.
    PrincipalNotAuthorized,
    /// The plugin's config refers to a secret that was revoked.
    SecretRevoked,
    /// The plugin's config refers to a secret, and its folder has changed since it was sealed.
    FingerprintMismatch,
    /// The decision was used before.
    DecisionUsed,
    /// Too many tickets at once.
    Busy,
    /// Signing or sealing failed.
    Internal,
}

impl Reason {
    /// The stable token.
    pub const fn token(self) -> &'static str {
        match self {
            Self::BadDecision => "bad_decision",
            Self::Expired => "expired",
            Self::WrongEpoch => "wrong_epoch",
            Self::WrongRequest => "wrong_request",
            Self::BadRequest => "bad_request",
            Self::NoLock => "no_lock",
            Self::OlderLock => "older_lock",
            Self::NewerLock => "newer_lock",
            Self::StaleLock => "stale_lock",
            Self::NotLocked => "not_locked",
            Self::WrongImage => "wrong_image",
            Self::WrongGrant => "wrong_grant",
            Self::WrongSeal => "wrong_seal",
            Self::VaultSealed => "vault_sealed",
            Self::RequiresVault => "requires_vault",
            Self::PrincipalRevoked => "principal_revoked",
            Self::WrongPrincipal => "wrong_principal",
            Self::NoSuchSecret => "no_such_secret",
            Self::PrincipalNotAuthorized => "principal_not_authorized",
            Self::SecretRevoked => "secret_revoked",
            Self::FingerprintMismatch => "fingerprint_mismatch",
            Self::DecisionUsed => "decision_used",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

/// A refusal, for the caller and the audit.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", reason.token())]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// One sentence.
    pub detail: String,
    /// What is known of the decision, for the audit: names only, and only if policy signed it.
    pub record: Fields,
}

impl Refused {
    /// A refusal before anything was looked at.
    pub fn early(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            record: Fields::new(),
        }
    }
}

impl Classify for Refused {
    fn kind(&self) -> Kind {
        match self.reason {
            Reason::BadDecision
            | Reason::WrongRequest
            | Reason::BadRequest
            | Reason::NotLocked
            | Reason::WrongImage
            | Reason::WrongGrant
            | Reason::WrongSeal
            | Reason::RequiresVault
            | Reason::PrincipalRevoked
            | Reason::WrongPrincipal
            | Reason::NoSuchSecret
            | Reason::PrincipalNotAuthorized
            | Reason::SecretRevoked
            | Reason::FingerprintMismatch
            | Reason::DecisionUsed => Kind::PermissionDenied,
            // What was decided is outdated: the next decision is not.
            Reason::Expired | Reason::WrongEpoch | Reason::OlderLock => Kind::FailedPrecondition,
            // Each of these passes: a retry with a new decision is right.
            Reason::NoLock | Reason::NewerLock | Reason::StaleLock | Reason::VaultSealed => {
                Kind::Unavailable
            }
            Reason::Busy => Kind::ResourceExhausted,
            Reason::Internal => Kind::Internal,
        }
    }
}
