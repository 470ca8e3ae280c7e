//! Waits between tries: doubled each time, a little random, so that several who wait do not come at once.

use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self {
            first,
            last,
            next: first,
        }
    }

    /// The next wait, within a quarter of its nominal length.
    pub fn next(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.last);
        nominal.mul_f64(0.75 + rand::random::<f64>() / 2.0)
    }

    /// It worked: the next failure waits for the first time again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_begin_again_after_a_success() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        for nominal in [1, 2, 4, 5, 5] {
            let wait = backoff.next().as_secs_f64() / f64::from(nominal);
            assert!((0.75..1.25).contains(&wait), "{wait}");
        }
        backoff.reset();
        assert!(backoff.next() < 2 * second);
    }
}
