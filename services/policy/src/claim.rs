//! What a job rests on is used up by it: an origin, or an event of another job. One job has it, at each of its attempts.
//!
//! Policy forgets a job that nobody has asked about for long ([ADR 15]). What is not known and so old that it may have been forgotten is
//! refused, so nothing is used a second time.
//!
//! [ADR 15]: ../../../docs/adr/0015-what-policy-forgets.md

use std::time::Duration;

use bailey_config::Retry;
use bailey_db::Connection;
use bailey_types::Timestamp;

use crate::db;
use crate::db::job::{Ground, Known, When};
use crate::denial::{Denial, Reason};
use crate::error::Error;
use crate::grounds::{Call, Grounds, Parent, Uses, Within};

/// How long a job may wait: for its first decision, and between any two beyond the pause that its retries explain.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// The longest pause between two attempts that is waited for; `retry.backoff_base` may be 7 days, and is doubled each time.
const LONGEST_PAUSE: Duration = Duration::from_hours(366 * 24);

/// Decisions for each configured attempt: an attempt whose cell never got its request does not count as one, but needs a decision.
const DECISIONS_PER_ATTEMPT: u64 = 3;

/// Most events of one result that jobs may follow from; what a service says has no end.
const MAX_EVENTS: u32 = 10_000;

/// Uses up what the call uses, for its job. Using it again for the same job is right: a job has several attempts. After a denial the
/// transaction is to be dropped.
pub(crate) async fn take(
    tx: &mut Connection,
    call: &Call,
    grounds: &Grounds,
    retry: Retry,
    now: Timestamp,
) -> Result<Result<(), Denial>, Error> {
    let known = db::job::find(tx, call.job).await?;
    let had = known.as_ref().map_or(0, |known| known.decisions);
    let when = when(&grounds.uses, retry, had, now);
    let ground = ground(&grounds.uses);
    if let Some(known) = known {
        if let Err(denial) = check_again(call, grounds, &ground, &known, retry) {
            return Ok(Err(denial));
        }
        db::job::again(tx, call.job, when).await?;
    } else {
        if let Err(denial) = check_first(tx, call, &grounds.uses).await? {
            return Ok(Err(denial));
        }
        if !db::job::insert(tx, call.job, &ground, instance(call), when).await? {
            return Ok(Err(used(&grounds.uses)));
        }
    }
    if grounds.lasts {
        db::job::serve(tx, call.job, &call.plugin, when).await?;
    }
    Ok(Ok(()))
}

fn instance(call: &Call) -> &str {
    call.step.as_ref().map_or("", |step| step.instance.as_str())
}

fn ground(uses: &Uses) -> Ground {
    match uses {
        Uses::Origin { origin, step, .. } => {
            let (pipeline, step) = step.as_ref().map_or(("", ""), |(pipeline, step)| {
                (pipeline.as_str(), step.as_str())
            });
            Ground {
                origin: Some(origin.to_string()),
                parent: None,
                pipeline: pipeline.to_owned(),
                step: step.to_owned(),
                event_index: 0,
            }
        }
        Uses::Edge {
            parent,
            pipeline,
            step,
            event_index,
            ..
        } => Ground {
            origin: None,
            parent: Some(parent.job.to_string()),
            pipeline: pipeline.to_string(),
            step: step.to_string(),
            event_index: i64::from(*event_index),
        },
    }
}

/// When the job is decided about, and how long it may take until it is again.
fn when(uses: &Uses, retry: Retry, had: u64, now: Timestamp) -> When {
    let used_at = match uses {
        Uses::Origin { asked_at, .. } => now.max(*asked_at),
        // What lasts goes by the number of the event; a decision of it may be of any time.
        Uses::Edge { endless: true, .. } => now,
        Uses::Edge { parent, .. } => now.max(parent.decided_at),
    };
    When {
        now,
        used_at,
        forget_after: used_at.plus(pause(retry, had)).plus(KEPT),
    }
}

/// The longest pause that may follow the next decision of a job that has had `had`: each attempt has at least one, and the pause is doubled
/// with each. Twice that covers what is added by chance.
fn pause(retry: Retry, had: u64) -> Duration {
    let doublings = had.min(u64::from(retry.max_attempts.saturating_sub(2)));
    let doublings = u32::try_from(doublings).unwrap_or(u32::MAX);
    let pause = retry
        .backoff_base
        .saturating_mul(2_u32.saturating_pow(doublings.saturating_add(1)));
    pause.min(LONGEST_PAUSE)
}

/// Whether a job that was decided about may be again.
fn check_again(
    call: &Call,
    grounds: &Grounds,
    ground: &Ground,
    known: &Known,
    retry: Retry,
) -> Result<(), Denial> {
    if known.ground != *ground || known.instance != instance(call) {
        return Err(Reason::JobUsed.because(format!(
            "the job {} was decided about as another one before",
            call.job
        )));
    }
    let most = u64::from(retry.max_attempts).saturating_mul(DECISIONS_PER_ATTEMPT);
    let had = known.decisions;
    // What lasts is started again for as long as it is locked.
    if had >= most && !grounds.lasts {
        return Err(Reason::AttemptsUsedUp.because(format!(
            "the job has had {had} decisions; {most} are allowed"
        )));
    }
    Ok(())
}

/// Whether a job that is not known may use it: it must not be so old that it may have been used and forgotten.
async fn check_first(
    tx: &mut Connection,
    call: &Call,
    uses: &Uses,
) -> Result<Result<(), Denial>, Error> {
    let forgotten = db::memory::forgotten_until(tx).await?;
    match uses {
        Uses::Origin { asked_at, .. } if *asked_at <= forgotten => {
            Ok(Err(too_old("it was asked for", *asked_at, forgotten)))
        }
        Uses::Origin { .. } => Ok(Ok(())),
        Uses::Edge {
            parent,
            event_index,
            endless,
            within,
            ..
        } => {
            let known = db::job::find(tx, parent.job).await?;
            // One from before may be of an earlier life of the job, which was forgotten.
            let known = known.filter(|known| known.begun_at <= parent.decided_at);
            Ok(match known {
                Some(known) => check_event(call, parent, &known, *within, (*event_index, *endless)),
                None => Err(lost(parent, forgotten)),
            })
        }
    }
}

fn check_event(
    call: &Call,
    parent: &Parent,
    known: &Known,
    within: Within,
    (event_index, endless): (u32, bool),
) -> Result<(), Denial> {
    if within == Within::SameInstance && known.instance != instance(call) {
        let detail = "the step belongs to another instance of the pipeline than its parent";
        return Err(Reason::NoSuchEdge.because(detail));
    }
    if event_index >= MAX_EVENTS && !endless {
        return Err(edge_used(parent, event_index));
    }
    let first = known.first_event.unwrap_or(0);
    if i64::from(event_index) < first {
        return Err(Reason::TooOld.because(format!(
            "event {event_index} of the service's job {} is too old: what followed from those before event {first} is forgotten, so it may have led to a job already",
            parent.job
        )));
    }
    Ok(())
}

fn lost(parent: &Parent, forgotten: Timestamp) -> Denial {
    if parent.decided_at <= forgotten {
        return too_old("its parent was decided about", parent.decided_at, forgotten);
    }
    Reason::ParentInvalid.because(format!(
        "policy has no decision about the job {} of that time",
        parent.job
    ))
}

fn too_old(what: &str, at: Timestamp, forgotten: Timestamp) -> Denial {
    Reason::TooOld.because(format!(
        "{what} at {at}, and what was used until {forgotten} is forgotten: it may have led to a job already, so ask for it anew"
    ))
}

/// Another job has it.
fn used(uses: &Uses) -> Denial {
    match uses {
        Uses::Origin { origin, .. } => {
            Reason::OriginUsed.because(format!("the origin {origin} stood for another job already"))
        }
        Uses::Edge {
            parent,
            event_index,
            ..
        } => edge_used(parent, *event_index),
    }
}

fn edge_used(parent: &Parent, event_index: u32) -> Denial {
    Reason::EdgeUsedUp.because(format!(
        "event {event_index} of the job {} led to another job already",
        parent.job
    ))
}

#[cfg(test)]
mod tests;
