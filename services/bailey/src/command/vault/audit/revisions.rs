//! Whether the vault that is there is the one that the audit log knows: each change has a number, in both.

use std::collections::BTreeSet;

use bailey_audit_log::Leaf;
use serde_json::Value;

/// Kinds of records that may have such a number.
const KINDS: [&str; 5] = ["vault.", "secret.", "principal.", "token.", "lock."];
/// What was on record already and was not done, or of which that is not known.
const NOT_DONE: [&str; 2] = ["vault.not_changed", "vault.maybe_changed"];
/// What follows a change once it is durable.
const KEPT: &str = "vault.kept";
/// After these the numbers may be smaller.
const ANOTHER: [&str; 3] = ["vault.made", "vault.restored", "vault.adopted"];

/// The numbers of changes, followed through the log.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    /// Of the last change that was made.
    last: Option<u64>,
    /// When the log had it, RFC 3339.
    last_at: String,
    /// What the broker did before the log had it: kind, time and number. A record of it may come twice.
    told: BTreeSet<(String, String, u64)>,
    /// The last number of which the log knows that it was durable.
    kept: Option<u64>,
    /// The last entry that was looked at.
    seq: u64,
    /// When a change had a smaller number than one before it.
    went_back: Option<String>,
}

impl Revisions {
    /// Takes in one entry. Where the reader begins anew, so does this.
    pub(super) fn follow(&mut self, leaf: &Leaf<'_>) {
        if leaf.seq <= self.seq {
            *self = Self::default();
        }
        self.seq = leaf.seq;
        if leaf.actor != "broker" || !KINDS.iter().any(|kind| leaf.kind.starts_with(kind)) {
            return;
        }
        let fields: Value = serde_json::from_str(leaf.fields.get()).unwrap_or_default();
        let Some(revision) = fields.get("revision").and_then(Value::as_u64) else {
            return;
        };
        if leaf.kind == KEPT {
            // It is told behind what follows it at times; and after a restore it counts from above all that there was.
            self.kept = Some(revision);
            self.last = self.last.max(Some(revision));
            return;
        }
        if NOT_DONE.contains(&leaf.kind.as_str()) {
            // It was recorded first and then not done, or perhaps not. Of an earlier one nothing follows.
            if self.last == Some(revision) {
                self.last = Some(revision.saturating_sub(1));
            }
            return;
        }
        let done_at = fields.get("at").and_then(Value::as_str);
        if let Some(at) = done_at {
            let told = (leaf.kind.clone(), at.to_owned(), revision);
            if !self.told.insert(told) {
                // Told twice, or an old vault in which it still waits was put in place: neither is a change.
                return;
            }
        }
        // Another vault than the one before, and the log says so; unless the vault that says it is itself an old one.
        let is_another = ANOTHER.contains(&leaf.kind.as_str())
            && done_at.is_none_or(|at| at >= self.last_at.as_str());
        if is_another {
            self.kept = None;
        }
        if !is_another && self.last.is_some_and(|last| revision < last) {
            self.went_back = Some(leaf.at.to_rfc3339());
        }
        self.last = Some(revision);
        self.last_at = leaf.at.to_rfc3339();
    }

    /// What is not as it should be; `present` is the number that the vault has now.
    pub(super) fn suspicion(self, present: Option<u64>) -> Option<String> {
        if let Some(at) = self.went_back {
            return Some(format!(
                "the vault that was changed at {at} was older than what had been recorded before: somebody had put an earlier vault in place"
            ));
        }
        let (last, present) = (self.last?, present?);
        if self.kept.is_some_and(|kept| present < kept) {
            return Some(format!(
                "the audit log has the change {last} of the vault, and the vault that is there is at {present}: an earlier vault was put in place"
            ));
        }
        (present < last).then(|| {
            format!(
                "the audit log has the change {last} of the vault, and the vault that is there is at {present}: either an earlier vault was put in place, or the broker was killed just before it made that change"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use bailey_types::Timestamp;
    use serde_json::value::RawValue;

    use super::*;

    /// Entries with the minute in which the log took them; beginning with `@minute `, a kind says when it was done.
    fn followed_at(entries: &[(i64, &str, u64)]) -> Revisions {
        let mut revisions = Revisions::default();
        let minute = |minute: i64| Timestamp(minute * 60_000);
        for (seq, (at, kind, revision)) in (1..).zip(entries) {
            let (done, kind) = match kind.strip_prefix('@').and_then(|it| it.split_once(' ')) {
                Some((done, kind)) => (Some(minute(done.parse().unwrap())), kind),
                None => (None, *kind),
            };
            let fields = match done {
                Some(done) => format!("{{\"revision\":{revision},\"at\":\"{done}\"}}"),
                None => format!("{{\"revision\":{revision}}}"),
            };
            let fields = RawValue::from_string(fields).unwrap();
            revisions.follow(&Leaf {
                v: 1,
                seq,
                at: minute(*at),
                actor: "broker".to_owned(),
                kind: kind.to_owned(),
                fields: &fields,
                salt: String::new(),
            });
        }
        revisions
    }

    fn followed(entries: &[(&str, u64)]) -> Revisions {
        let entries: Vec<_> = entries.iter().map(|(kind, it)| (0, *kind, *it)).collect();
        followed_at(&entries)
    }

    fn suspicion(entries: &[(&str, u64)], present: u64) -> Option<String> {
        followed(entries).suspicion(Some(present))
    }

    #[test]
    fn a_vault_that_is_as_the_log_says_raises_no_suspicion() {
        let log = [("vault.made", 1), ("secret.set", 2), ("secret.set", 2)];
        assert_eq!(suspicion(&log, 2), None);
        // Changed again since the log was read.
        assert_eq!(suspicion(&log, 3), None);
        assert_eq!(followed(&log).suspicion(None), None);
        // What was recorded and not done, and then done.
        let tried = [("secret.set", 5), ("vault.not_changed", 5)];
        assert_eq!(suspicion(&tried, 4), None);
        assert_eq!(suspicion(&[tried[0], tried[1], ("secret.set", 5)], 5), None);
        // A copy that was restored says so.
        assert_eq!(
            suspicion(&[("secret.set", 9), ("vault.restored", 4)], 4),
            None
        );
    }

    #[test]
    fn an_earlier_vault_in_its_place_shows_before_and_after_it_is_changed() {
        let log = [("secret.set", 7), ("secret.revoked", 8)];
        assert!(
            suspicion(&log, 6)
                .unwrap()
                .contains("the change 8 of the vault")
        );
        let changed = [log[0], log[1], ("secret.set", 7)];
        assert!(suspicion(&changed, 7).unwrap().contains("older than what"));
    }

    #[test]
    fn what_is_known_to_be_kept_leaves_no_other_reason() {
        let log = [("secret.set", 7), ("vault.kept", 7), ("secret.set", 8)];
        assert_eq!(suspicion(&log, 8), None);
        // Killed just before, or the last change taken back: only what follows tells.
        assert!(
            suspicion(&log, 7)
                .unwrap()
                .contains("or the broker was killed")
        );
        let kept = [log[0], log[1], log[2], ("vault.kept", 8)];
        assert!(
            suspicion(&kept, 7)
                .unwrap()
                .ends_with("an earlier vault was put in place")
        );
        assert_eq!(suspicion(&kept, 8), None);
        // Told behind the next change, or again, it is no change that went back;
        let late = [("secret.set", 8), ("vault.kept", 7), ("vault.kept", 8)];
        assert_eq!(suspicion(&late, 8), None);
        // after a restore it counts from above all that there was.
        let restored = [("secret.set", 9), ("vault.restored", 4), ("vault.kept", 10)];
        assert_eq!(suspicion(&restored, 10), None);
        let just = [("vault.kept", 9), ("vault.adopted", 4)];
        assert_eq!(suspicion(&just, 4), None);
        assert_eq!(
            suspicion(
                &[restored[0], restored[1], restored[2], ("secret.set", 11)],
                11
            ),
            None
        );
    }

    #[test]
    fn an_old_vault_in_which_a_restore_still_waits_is_no_restore() {
        let log = [
            (1, "@1 vault.made", 1),
            (2, "secret.set", 2),
            (3, "secret.set", 3),
        ];
        // The vault of the first minute put back tells again that it was made; told or not, it is older.
        let again = [log[0], log[1], log[2], (4, "@1 vault.made", 1)];
        assert!(followed_at(&again).suspicion(Some(1)).is_some());
        let changed = [again[0], again[1], again[2], again[3], (5, "secret.set", 2)];
        assert!(followed_at(&changed).suspicion(Some(2)).is_some());
        // A restore of which the log never heard, done before what it has.
        let early = [log[1], log[2], (4, "@2 vault.restored", 1)];
        assert!(followed_at(&early).suspicion(Some(1)).is_some());
        // The permitted neighbours: one that is done later, and what is told twice on a failing disk.
        let later = [log[1], log[2], (4, "@4 vault.restored", 1)];
        assert_eq!(followed_at(&later).suspicion(Some(1)), None);
        let twice = [
            (1, "@1 secret.revoked", 5),
            (1, "secret.set", 6),
            (2, "@1 secret.revoked", 5),
        ];
        assert_eq!(followed_at(&twice).suspicion(Some(6)), None);
    }

    #[test]
    fn a_change_that_was_refused_hides_no_earlier_vault() {
        // Rolled back from 10 to 3, and then a change was tried while audit was away.
        let log = [("secret.set", 10), ("vault.not_changed", 4)];
        assert!(suspicion(&log, 3).is_some());
        let changed = [log[0], log[1], ("secret.set", 4)];
        assert!(suspicion(&changed, 4).unwrap().contains("older than what"));
        // The permitted neighbours: at 10, the eleventh was refused, or may be lost with the power.
        assert_eq!(suspicion(&[log[0], ("vault.not_changed", 11)], 10), None);
        let maybe = [("secret.set", 11), ("vault.maybe_changed", 11)];
        assert_eq!(suspicion(&maybe, 10), None);
        assert_eq!(suspicion(&maybe, 11), None);
        assert!(suspicion(&maybe, 9).is_some());
    }
}
