//! How often exchanges begin: a captured client, or whoever has an upstream checked, spends no more of the owner's money, and of the audit log.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailey_types::Service;
use bailey_yaml::Rate;

/// Checks of one upstream, of all tokens together. Apart from what the clients have: neither is kept from it by the other.
pub(crate) const CHECKS: Rate = Rate::per_minute(30);

/// Who begins an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Beginner {
    /// A client, for itself.
    Client(Service),
    /// Somebody who has the upstream checked.
    Check,
}

/// What has begun with one upstream.
pub(crate) struct Rates {
    client: Rate,
    buckets: Mutex<BTreeMap<Beginner, Bucket>>,
}

/// A bucket of exchanges that refills one by one (ITU-T I.371, annex A).
#[derive(Clone, Copy)]
struct Bucket {
    /// When it will be, or was, full.
    full_at: Instant,
}

/// No more for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) rate: Rate,
    /// Until the next one.
    pub(crate) wait: Duration,
}

impl Rates {
    /// For clients of which each has `client`.
    pub(crate) fn new(client: Rate) -> Self {
        Self {
            client,
            buckets: Mutex::default(),
        }
    }

    /// Takes one exchange of `beginner`'s.
    pub(crate) fn take(&self, beginner: Beginner, now: Instant) -> Result<(), Spent> {
        let rate = match beginner {
            Beginner::Client(_) => self.client,
            Beginner::Check => CHECKS,
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(beginner).or_insert(Bucket { full_at: now });
        let taken = bucket.take(rate, now);
        taken.map_err(|wait| Spent { rate, wait })
    }
}

impl Bucket {
    /// Takes one, or says how long until there is one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + rate.each();
        let whole = rate.each() * rate.count().get();
        let missing = full_at.duration_since(now);
        match missing.checked_sub(whole) {
            None | Some(Duration::ZERO) => {
                self.full_at = full_at;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: Beginner = Beginner::Client(Service::Engine);

    /// How many of ten it takes.
    fn taken(rates: &Rates, beginner: Beginner, now: Instant) -> usize {
        (0..10)
            .filter(|_| rates.take(beginner, now).is_ok())
            .count()
    }

    #[test]
    fn so_many_begin_at_once_and_then_one_by_one() {
        let (rates, start) = (Rates::new("3/min".parse().unwrap()), Instant::now());
        let after = |s| start + Duration::from_secs(s);
        assert_eq!(taken(&rates, ENGINE, start), 3);
        let spent = rates.take(ENGINE, after(5)).unwrap_err();
        assert_eq!(spent.wait, Duration::from_secs(15));
        assert_eq!(taken(&rates, ENGINE, after(19)), 0);
        assert_eq!(taken(&rates, ENGINE, after(20)), 1);
        assert_eq!(taken(&rates, ENGINE, after(60)), 2);
        assert_eq!(taken(&rates, ENGINE, after(1000)), 3);
    }

    #[test]
    fn nobody_spends_what_another_has() {
        let (rates, now) = (Rates::new("3/h".parse().unwrap()), Instant::now());
        assert_eq!(taken(&rates, ENGINE, now), 3);
        assert_eq!(taken(&rates, Beginner::Client(Service::Worker), now), 3);
        assert_eq!(taken(&rates, Beginner::Check, now), 10);
        assert_eq!(taken(&rates, Beginner::Check, now), 10);
        assert_eq!(taken(&rates, Beginner::Check, now), 10);
        assert_eq!(taken(&rates, Beginner::Check, now), 0);
    }
}
