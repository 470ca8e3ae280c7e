//! Whether a vault is the one that the audit log knows, or an earlier one that somebody put in its place. A genuine vault opens whatever its
//! age; in an earlier one, what was revoked since is good again.
//!
//! The records of changes do not tell: each is on the log's disk *before* its change, which may then fail. So a change that is durable is
//! followed by the entry `vault.kept` with the revision that was reached, and this is the argument why no honest vault is taken for an earlier one:
//!
//! - `vault.kept` is sent only once the vault with that revision is on the disk and synced, and what was read is synced before it is used. Killed
//!   at any step of a change the vault is at the revision of the last such entry, or one further: never before it.
//! - What is done without the log (revocations, the verbs of `custody`) waits in the vault, each with its revision. With the record of each the log
//!   gets a `vault.kept` in the same call, which names the deed: a vault in which it still waits is later than one that does not know it. If it
//!   came only once the vault has forgotten the deed, whoever makes that write fail would take the deed back unseen. In a vault that has forgotten it, the
//!   revision before the first that waits, [`Document::told_until`], is at least that of the last `vault.kept`; and counting from there, changes
//!   made on top of an earlier vault do not make it a later one.
//! - A vault that the operator made, restored or took over says so itself: the deed waits in it. It is believed if the log never had that very
//!   deed, or has it as the last: a copy from the time when it waited is no new deed. No clock is asked. Its revision is then raised above all that the log has.
//! - All volumes brought back together agree, as they did when they were saved.
//!
//! What it does not find: a change taken back of which the log has no `vault.kept`, since the broker was killed, or restarted while audit was away,
//! before it could tell it. For what gives, closing that would mean to believe the record made before, and to lock out the owner whose broker was
//! killed one step earlier. Nor a takeover that was never told: whoever kept a copy in which it waits can put that back at any time.

use super::document::Document;
use super::offline::{Deed, Offline};

/// An entry of the audit log that says what revision the vault had reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its kind.
    pub kind: String,
    /// The revision.
    pub revision: u64,
    /// The revision of the change that it tells of.
    pub of: u64,
    /// Of what was told later: when it was done.
    pub at: Option<String>,
}

/// What follows from the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the vault of now.
    Present,
    /// The operator put it in the place of another, which had reached this revision.
    Another {
        /// The revision.
        after: u64,
    },
    /// It is earlier than the vault that had reached this revision.
    Earlier {
        /// The revision.
        known: u64,
    },
}

impl Mark {
    /// The entry that follows each durable change.
    pub const KEPT: &str = "vault.kept";

    /// The kinds of entries that say what revision was reached.
    pub fn kinds() -> Vec<String> {
        let mut kinds = Self::takeovers();
        kinds.push(Self::KEPT.to_owned());
        kinds
    }

    /// The kinds of deeds after which another vault counts than before.
    pub fn takeovers() -> Vec<String> {
        Deed::TAKEOVERS.map(|deed| deed.kind().to_owned()).into()
    }

    /// Whether it tells of `deed`, or that the vault in which it waits is kept.
    pub fn is_of(&self, deed: &Offline) -> bool {
        (self.kind == deed.deed.kind() || self.kind == Self::KEPT)
            && self.of == deed.revision
            && self.at.as_deref() == Some(deed.at.to_rfc3339().as_str())
    }
}

impl Document {
    /// The revision up to which the audit log knows everything.
    pub fn told_until(&self) -> u64 {
        self.told_without(0)
    }

    /// As [`Document::told_until`], once the log has so many of those that wait.
    pub fn told_without(&self, first: usize) -> u64 {
        // That it was opened again is no change.
        let changes = |deed: &Offline| u64::from(deed.deed != Deed::Unsealed);
        let waiting = self.unrecorded.iter().skip(first);
        let before = waiting.map(|deed| deed.revision.saturating_sub(changes(deed)));
        before.min().unwrap_or(self.revision)
    }

    /// Whether the vault comes after `last`, the last mark in the log.
    pub fn continues(&self, last: &Mark) -> bool {
        self.told_until() >= last.revision || self.unrecorded.iter().any(|deed| last.is_of(deed))
    }

    /// What the operator did to put this vault in the place of another, of which the log was not told yet as far as the vault knows.
    pub fn takeovers(&self) -> Vec<&Offline> {
        let waiting = self.unrecorded.iter();
        waiting
            .filter(|deed| Deed::TAKEOVERS.contains(&deed.deed))
            .collect()
    }
}

/// What is said of an earlier vault.
pub(super) fn earlier(known: u64, found: u64) -> String {
    format!(
        "it is earlier than the audit log knows: the log has revision {known}, and this is {found}; what was revoked since would be good again. If you did not put it there, somebody did: restore the vault of now. If you did, take it over. Stop the broker for both (`bailey vault restore COPY --replace`, `bailey vault adopt`; docs/how-to/recovery.md)"
    )
}

#[cfg(test)]
mod tests;
