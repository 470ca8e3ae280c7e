//! Which refusals are recorded one by one. A hostile client makes as many as it likes, and they wait in the same queue as the records of
//! what has passed: beyond a budget they are only counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals that are recorded one by one: of a lease, or of a uid in a minute.
const RECORDED: u64 = 32;
const MINUTE: Duration = Duration::from_mins(1);

/// The refusals of one lease.
#[derive(Default)]
pub(crate) struct Budget(AtomicU64);

/// The refusals that belong to no lease, by the uid of the peer.
#[derive(Default)]
pub(crate) struct ByUid(Mutex<HashMap<u32, Minute>>);

struct Minute {
    began: Instant,
    budget: Budget,
}

impl Budget {
    /// Counts one more; whether it is recorded.
    pub(crate) fn take(&self) -> bool {
        self.0.fetch_add(1, Ordering::AcqRel) < RECORDED
    }

    /// How many were only counted. The count begins anew, so a refusal that comes later is not lost.
    pub(crate) fn only_counted(&self) -> u64 {
        self.0.swap(0, Ordering::AcqRel).saturating_sub(RECORDED)
    }
}

impl ByUid {
    /// Counts one more of `uid`; whether it is recorded.
    pub(crate) fn take(&self, uid: u32, now: Instant) -> bool {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minutes.entry(uid).or_insert_with(|| Minute {
            began: now,
            budget: Budget::default(),
        });
        minute.budget.take()
    }

    /// Ends the minutes that are over at `now`, or all of them; the uids whose refusals were only counted, and how many.
    pub(crate) fn only_counted(&self, now: Option<Instant>) -> Vec<(u32, u64)> {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |minute: &Minute| {
            now.is_none_or(|now| now.saturating_duration_since(minute.began) >= MINUTE)
        };
        let ended = minutes.extract_if(|_, minute| over(minute));
        ended
            .map(|(uid, minute)| (uid, minute.budget.only_counted()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_its_budget_a_lease_is_only_counted() {
        let budget = Budget::default();
        assert_eq!((0..40).filter(|_| budget.take()).count(), 32);
        assert_eq!(budget.only_counted(), 8);
        // What comes after the end is recorded, and counted once.
        assert!(budget.take());
        assert_eq!(budget.only_counted(), 0);
    }

    #[test]
    fn each_uid_has_its_own_budget_every_minute() {
        let (by_uid, start) = (ByUid::default(), Instant::now());
        assert_eq!((0..40).filter(|_| by_uid.take(1, start)).count(), 32);
        assert!(by_uid.take(2, start));
        let early = start + Duration::from_secs(59);
        assert_eq!(by_uid.only_counted(Some(early)), []);
        assert!(!by_uid.take(1, early));
        assert_eq!(by_uid.only_counted(Some(start + MINUTE)), [(1, 9)]);
        assert!(by_uid.take(1, start + MINUTE));
        assert_eq!((0..40).filter(|_| by_uid.take(3, start)).count(), 32);
        assert_eq!(by_uid.only_counted(None), [(3, 8)]);
    }
}
