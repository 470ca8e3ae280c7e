//! Which decisions were used: each is good for one ticket, and its ticket for one cell.
//!
//! Kept in memory only, so whoever remembers here must know what it cannot remember: a new life of the broker has a new epoch, which voids every
//! decision of an earlier one, and socket-proxy takes no ticket that is older than its own life.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use bailey_types::{DecisionId, Timestamp};

/// Why a decision is not consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotConsumed {
    /// It was used before.
    #[error("the decision was used already")]
    Used,
    /// It is as old as those that are forgotten already: the clock went back.
    #[error("the clock went back beyond the decision's time")]
    Forgotten,
    /// Too many decisions are valid at once.
    #[error("too many decisions are in use")]
    Full,
}

/// The decisions that were used and could still be valid.
#[derive(Debug)]
pub struct Consumed {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ids: HashSet<DecisionId>,
    by_expiry: BTreeSet<(Timestamp, DecisionId)>,
    /// Nothing that expires at or before this is remembered, so nothing of that age is accepted, whatever the clock says.
    forgotten: Timestamp,
}

impl Consumed {
    /// Remembers at most `limit` decisions.
    pub fn new(limit: usize) -> Self {
        let inner = Inner {
            ids: HashSet::new(),
            by_expiry: BTreeSet::new(),
            forgotten: Timestamp(i64::MIN),
        };
        Self {
            limit,
            inner: Mutex::new(inner),
        }
    }

    /// Uses the decision up. Of two callers at once, one is refused.
    pub fn consume(
        &self,
        id: DecisionId,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), NotConsumed> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(now);
        if inner.ids.contains(&id) {
            return Err(NotConsumed::Used);
        }
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

impl Inner {
    fn forget(&mut self, now: Timestamp) {
        while let Some((expires_at, id)) = self.by_expiry.first().copied() {
            if expires_at >= now {
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

    #[test]
    fn a_decision_is_used_once() {
        let consumed = Consumed::new(10);
        let (a, b) = (DecisionId::new(), DecisionId::new());
        assert_eq!(consumed.consume(a, Timestamp(100), Timestamp(50)), Ok(()));
        assert_eq!(
            consumed.consume(a, Timestamp(100), Timestamp(51)),
            Err(NotConsumed::Used)
        );
        assert_eq!(consumed.consume(b, Timestamp(100), Timestamp(51)), Ok(()));
    }

    #[test]
    fn a_clock_that_goes_back_revives_nothing() {
        let consumed = Consumed::new(10);
        let id = DecisionId::new();
        consumed.consume(id, Timestamp(100), Timestamp(50)).unwrap();
        consumed
            .consume(DecisionId::new(), Timestamp(300), Timestamp(200))
            .unwrap();
        let again = consumed.consume(id, Timestamp(100), Timestamp(60));
        assert_eq!(again, Err(NotConsumed::Forgotten));
    }

    #[test]
    fn the_memory_is_bounded_and_frees_itself() {
        let consumed = Consumed::new(2);
        let consume =
            |now| consumed.consume(DecisionId::new(), Timestamp(now + 60), Timestamp(now));
        assert_eq!((consume(0), consume(1)), (Ok(()), Ok(())));
        assert_eq!(consume(2), Err(NotConsumed::Full));
        assert_eq!(consume(62), Ok(()));
    }
}
