//! Where on the time line a schedule's starts lie. Pure: no clock, no storage.

use std::time::Duration;

use bailey_config::{CatchUp, When};
use bailey_types::Timestamp;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A start that was missed by less than this is made up for, whatever `catch_up` says: a restart must not cost the nightly job.
pub const GRACE: Duration = Duration::from_secs(30);

/// Most missed starts that `run_all` makes up for.
pub const MAX_CAUGHT_UP: usize = 100;

/// Why there is no next start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parser of the configuration took what croner does not.
    #[error("the cron expression {expression:?} cannot be used: {reason}")]
    Cron {
        /// The fields.
        expression: String,
        /// What croner says.
        reason: String,
    },
    /// An interval of nothing.
    #[error("an interval must be at least a millisecond")]
    NoInterval,
}

/// A schedule's grid.
pub enum Rhythm {
    /// Again and again after `interval_ms`, from the anchor on.
    Every { anchor: Timestamp, interval_ms: i64 },
    /// At wall clock times of a place. Boxed: a parsed expression is large.
    Cron { expression: Box<Cron>, timezone: Tz },
}

impl Rhythm {
    /// The grid of `when`; intervals hang on `anchor`.
    pub fn new(when: &When, anchor: Timestamp) -> Result<Self, Error> {
        match when {
            When::Every(interval) => match i64::try_from(interval.as_millis()) {
                Ok(interval_ms) if interval_ms > 0 => Ok(Self::Every {
                    anchor,
                    interval_ms,
                }),
                Ok(_) | Err(_) => Err(Error::NoInterval),
            },
            When::Cron {
                expression,
                timezone,
            } => {
                let parser = CronParser::builder()
                    .seconds(Seconds::Disallowed)
                    .year(Year::Disallowed)
                    .build();
                let parsed = parser.parse(expression);
                let parsed = parsed.map_err(|e| Error::Cron {
                    expression: expression.clone(),
                    reason: e.to_string(),
                })?;
                Ok(Self::Cron {
                    expression: Box::new(parsed),
                    timezone: *timezone,
                })
            }
        }
    }

    /// The first start after `time`; `None` where there is none any more ("30 February").
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every { anchor, .. } if time < *anchor => Some(*anchor),
            Self::Every {
                anchor,
                interval_ms,
            } => {
                let passed = time.0.saturating_sub(anchor.0).checked_div(*interval_ms)?;
                let slot = passed
                    .checked_add(1)?
                    .checked_mul(*interval_ms)?
                    .checked_add(anchor.0)?;
                Some(Timestamp(slot))
            }
            Self::Cron {
                expression,
                timezone,
            } => {
                let found = expression
                    .find_next_occurrence(&wall_clock(time, *timezone), false)
                    .ok()?;
                Some(found.with_timezone(&Utc).into())
            }
        }
    }

    /// The last start that is not after `time`.
    fn not_after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every { interval_ms, .. } => self
                .after(time)
                .map(|slot| Timestamp(slot.0.saturating_sub(*interval_ms))),
            Self::Cron {
                expression,
                timezone,
            } => {
                let found = expression
                    .find_previous_occurrence(&wall_clock(time, *timezone), true)
                    .ok()?;
                Some(found.with_timezone(&Utc).into())
            }
        }
    }

    /// What is to be started at `now`, given that everything before `slot` was: the slots, oldest first.
    pub fn missed(&self, slot: Timestamp, now: Timestamp, catch_up: CatchUp) -> Vec<Timestamp> {
        if slot > now {
            return Vec::new();
        }
        let latest = self.not_after(now).map_or(slot, |latest| latest.max(slot));
        match catch_up {
            CatchUp::Skip if now.since(latest) > GRACE => Vec::new(),
            CatchUp::Skip | CatchUp::RunOnce => vec![latest],
            CatchUp::RunAll => self.last_until(slot, latest),
        }
    }

    /// The newest [`MAX_CAUGHT_UP`] slots from `first` to `latest`.
    fn last_until(&self, first: Timestamp, latest: Timestamp) -> Vec<Timestamp> {
        let before = |slot: &Timestamp| self.not_after(Timestamp(slot.0.saturating_sub(1)));
        let back = std::iter::successors(Some(latest), before).take_while(|slot| *slot >= first);
        let mut slots: Vec<_> = back.take(MAX_CAUGHT_UP).collect();
        slots.reverse();
        slots
    }
}

/// Cron knows whole minutes; a fraction of a second would stick to every answer.
fn wall_clock(time: Timestamp, timezone: Tz) -> DateTime<Tz> {
    let second = Timestamp(time.0.div_euclid(1000).saturating_mul(1000));
    second.to_utc().with_timezone(&timezone)
}

#[cfg(test)]
mod tests;
