//! How often something may be tried: a bucket of tries that refills with time.

use std::time::Duration;

use bailey_types::Timestamp;

/// A token bucket (ITU-T I.371 appendix A, as a leaky bucket with a meter).
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    burst: u32,
    refill: Duration,
    /// When the bucket will be, or was, full.
    full_at: Timestamp,
}

impl Limiter {
    /// A full bucket of `burst` tries, each of which comes back after `refill`.
    pub const fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            full_at: Timestamp(i64::MIN),
        }
    }

    /// Takes one try, if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let full_at = self.full_at.max(now).plus(self.refill);
        if full_at.since(now) > self.refill * self.burst {
            return false;
        }
        self.full_at = full_at;
        true
    }

    /// Whether there is a try to take.
    pub fn has_room(&self, now: Timestamp) -> bool {
        let mut copy = *self;
        copy.take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let mut limiter = Limiter::new(3, Duration::from_secs(6));
        let at = |s: i64| Timestamp(1_000_000 + s * 1000);
        let passed = |limiter: &mut Limiter, s| (0..10).filter(|_| limiter.take(at(s))).count();
        assert_eq!(passed(&mut limiter, 0), 3);
        assert_eq!(passed(&mut limiter, 5), 0);
        assert!(!limiter.has_room(at(5)));
        assert!(limiter.has_room(at(6)));
        assert_eq!(passed(&mut limiter, 6), 1);
        assert_eq!(passed(&mut limiter, 18), 2);
        assert_eq!(passed(&mut limiter, 1000), 3);
    }
}
