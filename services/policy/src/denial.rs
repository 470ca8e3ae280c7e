//! Why a call is denied.

use bailey_proto::policy::v1 as proto;

/// A refusal: final for the attempt, audited, and explained to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) reason: Reason,
    /// One sentence.
    pub(crate) detail: String,
}

macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident = $token:literal;)*) => {
        /// The kinds of refusal. Tokens are stable: programs and tests read them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            $($(#[$meta])* $variant,)*
        }

        impl Reason {
            pub(crate) const fn token(self) -> &'static str {
                match self {
                    $(Self::$variant => $token,)*
                }
            }
        }
    };
}

reasons! {
    /// Nothing was ever locked.
    LockMissing = "lock_missing";
    /// The lock is not the broker's, or of another stack, or malformed.
    LockRefused = "lock_refused";
    /// The lock has been replaced by a newer one before.
    LockOlder = "lock_older";
    /// The plugin is not in the lock.
    PluginNotLocked = "plugin_not_locked";
    /// The plugin was locked for another account than the configuration names.
    NotLockedAccount = "not_locked_account";
    /// The plugin's manifest has no such command.
    NoSuchCommand = "no_such_command";
    /// The request is not one that every parser reads the same way, or does not fit the job.
    BadRequest = "bad_request";
    /// Nobody who may stand for it has signed the origin.
    OriginInvalid = "origin_invalid";
    /// The origin has stood for another job already.
    OriginUsed = "origin_used";
    /// The request carries another payload than the one that was asked for.
    PayloadDiffers = "payload_differs";
    /// The token's scopes do not cover it.
    ScopeMissing = "scope_missing";
    /// Nothing in the locked configuration allows it.
    NoContract = "no_contract";
    /// The parent's decision is not one of ours.
    ParentInvalid = "parent_invalid";
    /// No locked pipeline leads from the parent to this step.
    NoSuchEdge = "no_such_edge";
    /// Another job has followed from the same event already.
    EdgeUsedUp = "edge_used_up";
    /// It was asked for so long ago that policy may have forgotten what it was used for.
    TooOld = "too_old";
    /// The job has rested on something else before.
    JobUsed = "job_used";
    /// The job was decided about as often as its retries can explain.
    AttemptsUsedUp = "attempts_used_up";
    /// The plugin's folder has changed since it was sealed, and there is no account `untrusted`.
    Drifted = "drifted";
    /// The command is what a service lasts by.
    Lasts = "lasts";
    /// No cells of the plugin may be started ahead.
    NotPooled = "not_pooled";
}

impl Reason {
    /// The denial for this reason.
    pub(crate) fn because(self, detail: impl Into<String>) -> Denial {
        Denial {
            reason: self,
            detail: detail.into(),
        }
    }
}

impl From<Denial> for proto::Denied {
    fn from(Denial { reason, detail }: Denial) -> Self {
        Self {
            reason: reason.token().to_owned(),
            detail,
        }
    }
}
