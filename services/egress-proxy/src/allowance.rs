//! How many bytes a lease may have: a call so many in all, a service, which has no end, so many a day.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_hours(24);

/// See the module.
pub(crate) struct Allowance {
    lasts: bool,
    spent: Mutex<Spent>,
}

struct Spent {
    bytes: u64,
    since: Instant,
}

impl Allowance {
    /// Nothing is spent. One that `lasts` begins anew each day.
    pub(crate) fn new(lasts: bool) -> Self {
        Self::since(Instant::now(), lasts)
    }

    fn since(since: Instant, lasts: bool) -> Self {
        Self {
            lasts,
            spent: Mutex::new(Spent { bytes: 0, since }),
        }
    }

    /// Counts `bytes` that are about to pass; `false` if there would be more than `limit` then, and nothing is counted.
    pub(crate) fn spend(&self, bytes: u64, limit: u64) -> bool {
        self.at(Instant::now(), |spent| {
            let sum = spent.checked_add(bytes).filter(|sum| *sum <= limit);
            sum.map(|sum| *spent = sum).is_some()
        })
    }

    /// Whether anything may pass at all.
    pub(crate) fn has_left(&self, limit: u64) -> bool {
        self.at(Instant::now(), |spent| *spent < limit)
    }

    fn at<T>(&self, now: Instant, look: impl FnOnce(&mut u64) -> T) -> T {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lasts && now.duration_since(spent.since) >= DAY {
            *spent = Spent {
                bytes: 0,
                since: now,
            };
        }
        look(&mut spent.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_may_pass_and_no_more() {
        let allowance = Allowance::new(true);
        assert!(allowance.spend(60, 100));
        assert!(!allowance.spend(60, 100));
        assert!(allowance.spend(40, 100));
        assert!(!allowance.has_left(100));
    }

    #[test]
    fn a_service_begins_anew_each_day_and_a_call_never() {
        let begun = Instant::now();
        let spent = |allowance: &Allowance, after: Duration| allowance.at(begun + after, |s| *s);
        let (service, call) = (
            Allowance::since(begun, true),
            Allowance::since(begun, false),
        );
        for allowance in [&service, &call] {
            assert!(allowance.spend(100, 100));
        }
        assert_eq!(spent(&service, Duration::from_secs(86_399)), 100);
        assert_eq!(spent(&service, DAY), 0);
        assert_eq!(spent(&call, 2 * DAY), 100);
    }
}
