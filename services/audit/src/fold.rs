//! Folding of equal refusals, so that a peer that is refused in a loop does not fill the volume.

use std::collections::HashMap;
use std::time::Duration;

use bailey_types::{Service, Sha256, Timestamp};

use crate::entry::Received;

/// How long refusals are counted before the count is recorded.
const WINDOW: Duration = Duration::from_mins(1);

/// Different refusals of one caller that are told apart at a time. Beyond that, those of one kind are counted together.
const MAX_PER_CALLER: usize = 256;

/// What is equal is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    caller: Service,
    kind: String,
    /// Hash of the fields; `None` where the caller has too many different ones.
    fields: Option<Sha256>,
}

#[derive(Clone, Copy)]
struct Fold {
    first_index: u64,
    count: u64,
    until: Timestamp,
}

/// A finished window in which there was more than the first refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) caller: Service,
    pub(crate) kind: String,
    /// Index of the entry that carries the fields.
    pub(crate) first_index: u64,
    /// How many followed it.
    pub(crate) count: u64,
}

/// The open windows.
#[derive(Default)]
pub(crate) struct Folds {
    open: HashMap<Key, Fold>,
}

impl Folds {
    /// Counts the refusal, if an equal one opened a window; otherwise opens one for it, as entry `index`, and answers its key.
    pub(crate) fn take(
        &mut self,
        caller: Service,
        entry: &Received,
        index: u64,
        now: Timestamp,
    ) -> Option<Key> {
        let fields = Some(Sha256::of(entry.fields.get().as_bytes()));
        let mut key = Key {
            caller,
            kind: entry.kind.clone(),
            fields,
        };
        if !self.open.contains_key(&key) && self.of(caller) >= MAX_PER_CALLER {
            key.fields = None;
        }
        if let Some(fold) = self.open.get_mut(&key) {
            fold.count += 1;
            return None;
        }
        self.open.insert(
            key.clone(),
            Fold {
                first_index: index,
                count: 0,
                until: now.plus(WINDOW),
            },
        );
        Some(key)
    }

    fn of(&self, caller: Service) -> usize {
        self.open.keys().filter(|key| key.caller == caller).count()
    }

    /// Forgets a window whose first entry could not be appended.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.open.remove(key);
    }

    /// Ends the windows that are over at `now`.
    pub(crate) fn end(&mut self, now: Timestamp) -> Vec<Folded> {
        self.end_where(|fold| fold.until <= now)
    }

    /// Ends all windows.
    pub(crate) fn end_all(&mut self) -> Vec<Folded> {
        self.end_where(|_| true)
    }

    fn end_where(&mut self, over: impl Fn(&Fold) -> bool) -> Vec<Folded> {
        let ended = self
            .open
            .extract_if(|_, fold| over(fold))
            .filter(|(_, fold)| fold.count > 0);
        let mut folded: Vec<_> = ended
            .map(
                |(
                    key,
                    Fold {
                        first_index, count, ..
                    },
                )| Folded {
                    caller: key.caller,
                    kind: key.kind,
                    first_index,
                    count,
                },
            )
            .collect();
        folded.sort_by_key(|folded| folded.first_index);
        folded
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn refusal(kind: &str, n: usize) -> Received {
        let fields = RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap();
        Received {
            kind: kind.into(),
            fields,
            refusal: true,
        }
    }

    #[test]
    fn equal_refusals_of_one_caller_are_counted_until_the_window_ends() {
        let mut folds = Folds::default();
        let entry = refusal("rpc.refused", 1);
        assert!(folds.take(Service::Engine, &entry, 7, NOW).is_some());
        assert!(folds.take(Service::Engine, &entry, 8, NOW).is_none());
        assert!(folds.take(Service::Engine, &entry, 8, NOW).is_none());
        assert!(folds.take(Service::Runner, &entry, 8, NOW).is_some());
        assert!(
            folds
                .take(Service::Engine, &refusal("rpc.refused", 2), 9, NOW)
                .is_some()
        );
        assert!(folds.end(NOW).is_empty());
        let folded = Folded {
            caller: Service::Engine,
            kind: "rpc.refused".into(),
            first_index: 7,
            count: 2,
        };
        assert_eq!(folds.end(NOW.plus(WINDOW)), [folded]);
        assert!(folds.take(Service::Engine, &entry, 10, NOW).is_some());
    }

    #[test]
    fn ever_new_fields_do_not_escape_the_folding() {
        let mut folds = Folds::default();
        let recorded = (0..10_000).filter(|n| {
            folds
                .take(Service::Engine, &refusal("rpc.refused", *n), 0, NOW)
                .is_some()
        });
        assert_eq!(recorded.count(), MAX_PER_CALLER + 1);
        assert_eq!(
            folds
                .end_all()
                .iter()
                .map(|folded| folded.count)
                .sum::<u64>(),
            10_000 - 257
        );
    }
}
