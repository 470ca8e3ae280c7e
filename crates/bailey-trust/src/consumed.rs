//! What was used already, of all that is good for one use: a decision for one ticket and one lease, a ticket for one cell, an origin for one check.
//!
//! It is remembered in memory only, so a process must also refuse what may have been used before it was started. What that is, is reckoned back
//! from the present time by how long the process has run, not compared with the time at its start. Of a clock that is set while it runs, this follows:
//!
//! - *On:* what was made before is outdated, or counts as made before the start; what is made then is good at once.
//! - *Back:* what was used is remembered beyond its time, so it stays used when its time comes again, and what is made then is good at once. Only
//!   where the clock goes back to a time of which something is forgotten already (by more than a day, or with more uses since than there is room for)
//!   is all of that time refused, since nobody knows: until it is over, or the process is started again.
//!
//! What it does not find: something that an earlier process used, in a clock that is set back to the minute in which that was good, by about as long as
//! this one runs.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailey_types::{Clock, Timestamp};

/// Why something is not used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotConsumed {
    /// It was.
    #[error("it was used before")]
    Used,
    /// An earlier process may have used it up.
    #[error("it was made before this process was started")]
    Older,
    /// It is as old as what is forgotten already: it is over, or the clock was set back.
    #[error("it is from a time of which is forgotten what was used")]
    Forgotten,
    /// Too much is valid at once.
    #[error("too many are in use at once")]
    Full,
}

/// What a time may lie before the one that it is of: it has no parts of a millisecond.
const ROUNDED: Duration = Duration::from_millis(1);

/// What was used and could still be valid, or become so if the clock is set back.
#[derive(Debug)]
pub struct Consumed<I> {
    clock: Clock,
    /// On [`Clock::steady`].
    began: Duration,
    limit: usize,
    inner: Mutex<Inner<I>>,
}

#[derive(Debug)]
struct Inner<I> {
    ids: HashSet<I>,
    by_expiry: BTreeSet<(Timestamp, I)>,
    /// Of what expires at or before this, something is not remembered, so nothing of that age is accepted, whatever the clock says.
    forgotten: Timestamp,
}

impl<I: Copy + Ord + Hash> Consumed<I> {
    /// As many may be valid at once: less than 10 MiB of them.
    pub const LIMIT: usize = 100_000;
    /// As many are remembered beyond their time, in less than 1 MiB.
    pub const KEPT: usize = 10_000;
    /// How long after its time something is remembered, while there is room: longer than a clock is wrong whose zone is.
    pub const REMEMBERED: Duration = Duration::from_hours(24);

    /// Remembers from now on.
    pub fn new(clock: Clock) -> Self {
        Self::limited(clock, Self::LIMIT)
    }

    fn limited(clock: Clock, limit: usize) -> Self {
        let inner = Inner {
            ids: HashSet::new(),
            by_expiry: BTreeSet::new(),
            forgotten: Timestamp(i64::MIN),
        };
        Self {
            began: clock.steady(),
            clock,
            limit,
            inner: Mutex::new(inner),
        }
    }

    /// Uses it up. Of two callers at once, one is refused.
    pub fn consume(
        &self,
        id: I,
        issued_at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), NotConsumed> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: whatever passes in between makes the start later and not earlier.
        let uptime = self.clock.steady().saturating_sub(self.began);
        let now = self.clock.now();
        if inner.ids.contains(&id) {
            return Err(NotConsumed::Used);
        }
        if issued_at < now.minus(uptime + ROUNDED) {
            return Err(NotConsumed::Older);
        }
        inner.forget(now, self.limit.min(Self::KEPT));
        if expires_at <= inner.forgotten {
            return Err(NotConsumed::Forgotten);
        }
        if inner.ids.len() >= self.limit {
            return Err(NotConsumed::Full);
        }
        inner.ids.insert(id);
        inner.by_expiry.insert((expires_at, id));
        Ok(())
    }
}

impl<I: Copy + Ord + Hash> Inner<I> {
    /// Forgets what is long over; where `kept` are remembered, what is over.
    fn forget(&mut self, now: Timestamp, kept: usize) {
        let long_ago = now.minus(Consumed::<I>::REMEMBERED);
        while let Some((expires_at, id)) = self.by_expiry.first().copied() {
            let is_full = self.ids.len() >= kept;
            if expires_at >= if is_full { now } else { long_ago } {
                return;
            }
            self.by_expiry.pop_first();
            self.ids.remove(&id);
            self.forgotten = expires_at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    /// A process that runs for a while.
    struct World {
        clock: Clock,
        consumed: Consumed<u32>,
    }

    impl World {
        fn running(time: Duration) -> Self {
            Self::limited(time, 10)
        }

        fn limited(time: Duration, limit: usize) -> Self {
            let clock = Clock::fixed(START);
            let consumed = Consumed::limited(clock.clone(), limit);
            clock.pass(time);
            Self { clock, consumed }
        }

        /// Uses what was made at `made` and is good for a minute.
        fn uses(&self, id: u32, made: Timestamp) -> Result<(), NotConsumed> {
            self.consumed.consume(id, made, made.plus(MINUTE))
        }

        /// Uses what was made just now.
        fn uses_new(&self, id: u32) -> Result<(), NotConsumed> {
            self.uses(id, self.clock.now())
        }

        fn set_on(&self, by: Duration) {
            self.clock.set(self.clock.now().plus(by));
        }

        fn set_back(&self, by: Duration) {
            self.clock.set(self.clock.now().minus(by));
        }
    }

    #[test]
    fn a_thing_is_used_once() {
        let world = World::running(MINUTE);
        assert_eq!(world.uses_new(1), Ok(()));
        assert_eq!(world.uses_new(1), Err(NotConsumed::Used));
        assert_eq!(world.uses_new(2), Ok(()));
    }

    #[test]
    fn what_is_older_than_the_process_may_have_been_used() {
        let world = World::running(10 * SECOND);
        let before = START.minus(2 * ROUNDED);
        assert_eq!(world.uses(1, before), Err(NotConsumed::Older));
        assert_eq!(world.uses(1, START), Ok(()));
        for set in [World::set_on, World::set_back] {
            set(&world, HOUR);
            let now = world.clock.now();
            let before = now.minus(10 * SECOND + 2 * ROUNDED);
            assert_eq!(world.uses(2, before), Err(NotConsumed::Older));
        }
    }

    #[test]
    fn what_is_made_in_the_millisecond_of_the_start_is_not_older() {
        let world = World::running(Duration::from_micros(200));
        // In these 200 microseconds the next millisecond began.
        world.clock.set(START.plus(ROUNDED));
        assert_eq!(world.uses(1, START), Ok(()));
    }

    #[test]
    fn whatever_the_clock_is_set_to_nothing_is_used_twice_and_something_new_at_once() {
        let sets = [SECOND, MINUTE, HOUR, DAY, 30 * DAY];
        let ways = [World::set_on, World::set_back];
        for (n, (by, way)) in sets
            .iter()
            .flat_map(|by| ways.map(|way| (by, way)))
            .enumerate()
        {
            let world = World::running(3 * MINUTE);
            let made = world.clock.now();
            assert_eq!(world.uses(1, made), Ok(()), "{n}");
            way(&world, *by);
            assert_ne!(world.uses(1, made), Ok(()), "{n}");
            assert_eq!(world.uses_new(2), Ok(()), "{n}");
            // And to the right time again.
            world.clock.set(made);
            assert_ne!(world.uses(1, made), Ok(()), "{n}");
            world.clock.pass(SECOND);
            assert_eq!(world.uses_new(3), Ok(()), "{n}");
        }
    }

    #[test]
    fn what_was_used_in_a_clock_that_was_ahead_stays_used_when_its_time_comes() {
        for ahead in [HOUR, DAY] {
            let world = World::running(MINUTE);
            world.set_on(ahead);
            let made = world.clock.now();
            assert_eq!(world.uses(1, made), Ok(()));
            world.set_back(ahead);
            assert_eq!(world.uses_new(2), Ok(()));
            world.clock.pass(ahead);
            assert_eq!(world.uses(1, made), Err(NotConsumed::Used));
            assert_eq!(world.uses_new(3), Ok(()));
        }
    }

    #[test]
    fn of_a_time_of_which_something_is_forgotten_nothing_is_accepted() {
        let world = World::running(MINUTE);
        let made = world.clock.now();
        assert_eq!(world.uses(1, made), Ok(()));
        world.clock.pass(2 * DAY);
        assert_eq!(world.uses_new(2), Ok(()));
        world.clock.set(made.plus(SECOND));
        assert_eq!(world.uses(1, made), Err(NotConsumed::Forgotten));
        assert_eq!(world.uses(3, made), Err(NotConsumed::Forgotten));
        // What was made then is good for longer than what is forgotten.
        assert_eq!(world.uses_new(3), Ok(()));
        world.set_back(HOUR);
        assert_eq!(world.uses_new(4), Err(NotConsumed::Forgotten));
        world.clock.pass(HOUR);
        assert_eq!(world.uses_new(4), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded_and_frees_itself() {
        let world = World::limited(MINUTE, 2);
        assert_eq!((world.uses_new(1), world.uses_new(2)), (Ok(()), Ok(())));
        assert_eq!(world.uses_new(3), Err(NotConsumed::Full));
        world.clock.pass(MINUTE + SECOND);
        assert_eq!(world.uses_new(3), Ok(()));
        // As many as are needed, and no more.
        assert_eq!(world.consumed.inner.lock().unwrap().ids.len(), 2);
        world.set_back(MINUTE);
        assert_eq!(world.uses_new(4), Err(NotConsumed::Full));
    }

    #[test]
    fn few_are_remembered_beyond_their_time_and_what_is_valid_is_not_forgotten_for_it() {
        let world = World::limited(MINUTE, usize::MAX);
        let count = || world.consumed.inner.lock().unwrap().ids.len();
        let kept = u32::try_from(Consumed::<u32>::KEPT).unwrap();
        for id in 0..2 * kept {
            assert_eq!(world.uses_new(id), Ok(()));
        }
        assert_eq!(count(), 2 * Consumed::<u32>::KEPT);
        world.clock.pass(MINUTE + SECOND);
        assert_eq!(world.uses_new(2 * kept), Ok(()));
        assert_eq!(count(), Consumed::<u32>::KEPT);
    }

    #[test]
    fn of_two_at_once_one_is_refused() {
        let consumed = Consumed::new(Clock::system());
        let made = Clock::system().now().plus(SECOND);
        let take = || consumed.consume(1, made, made.plus(MINUTE)).is_ok();
        let used = std::thread::scope(|scope| {
            let others: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            let joined = others.into_iter().map(|other| other.join().unwrap());
            joined.filter(|taken| *taken).count()
        });
        assert_eq!(used, 1);
    }
}
