//! Time as Bailey stores and signs it, and the clock it is read from.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This instant moved into the future by `duration`; stops at the largest instant.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// This instant moved into the past by `duration`; stops at the smallest instant.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long it is from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The instant as RFC 3339 in UTC with milliseconds.
    pub fn to_rfc3339(self) -> String {
        self.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// The instant as chrono's UTC time; instants beyond chrono's range become its limits.
    pub fn to_utc(self) -> DateTime<Utc> {
        let limit = if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        };
        DateTime::from_timestamp_millis(self.0).unwrap_or(limit)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Where the time comes from: the machine's clock, or one that a test moves by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Fixed>>);

#[derive(Debug)]
struct Fixed {
    now: AtomicI64,
    passed_ns: AtomicU64,
}

/// What [`Clock::steady`] of the machine's clock counts from.
static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `at` until [`Clock::set`] or [`Clock::pass`] moves it.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Some(Arc::new(Fixed {
            now: AtomicI64::new(at.0),
            passed_ns: AtomicU64::new(0),
        })))
    }

    /// Sets a fixed clock, in no time; the machine's clock is not moved.
    pub fn set(&self, at: Timestamp) {
        if let Some(fixed) = &self.0 {
            fixed.now.store(at.0, Ordering::SeqCst);
        }
    }

    /// Lets `time` pass on a fixed clock; the machine's clock is not moved.
    pub fn pass(&self, time: Duration) {
        if let Some(fixed) = &self.0 {
            let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            fixed.passed_ns.fetch_add(nanos, Ordering::SeqCst);
            self.set(self.now().plus(time));
        }
    }

    /// How much time has passed since some moment of this process, which stays the same: setting the clock does not move this.
    pub fn steady(&self) -> Duration {
        self.0.as_ref().map_or_else(
            || FIRST.elapsed(),
            |fixed| Duration::from_nanos(fixed.passed_ns.load(Ordering::SeqCst)),
        )
    }

    /// The time now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    pub fn now(&self) -> Timestamp {
        self.0.as_ref().map_or_else(
            || Utc::now().into(),
            |fixed| Timestamp(fixed.now.load(Ordering::SeqCst)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(
            Timestamp(i64::MAX).plus(Duration::from_secs(1)),
            Timestamp(i64::MAX)
        );
        assert_eq!(Timestamp(1000).since(Timestamp(3000)), Duration::ZERO);
        assert_eq!(Timestamp(0).to_rfc3339(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_fixed_clock_stands_until_it_is_set() {
        let clock = Clock::fixed(Timestamp(5));
        let other = clock.clone();
        other.set(Timestamp(9));
        assert_eq!(clock.now(), Timestamp(9));
    }

    #[test]
    fn setting_a_clock_takes_no_time() {
        let clock = Clock::fixed(Timestamp(5));
        let before = clock.steady();
        clock.set(Timestamp(9_000));
        assert_eq!(clock.steady(), before);
        clock.pass(Duration::from_secs(2));
        assert_eq!(clock.steady(), before + Duration::from_secs(2));
        assert_eq!(clock.now(), Timestamp(11_000));
        let first = Clock::system().steady();
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        assert!(Clock::system().steady() >= first + Duration::from_millis(1));
    }
}
