//! Forgetting jobs that nobody asks about any more, a few at a time: decisions go first.

use std::time::Duration;

use bailey_error::Chain;
use bailey_mesh::Auditor;
use bailey_service::Context;
use bailey_types::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::db::job::{self, Forgotten, Place};

/// How often. What is over stays an hour longer at most, and another one behind a parent that was kept longer than itself.
const EVERY: Duration = Duration::from_hours(1);

/// How soon again after a failure.
const AGAIN: Duration = Duration::from_mins(1);

/// Jobs of one transaction: a decision waits for a few milliseconds at most.
const BATCH: u32 = 200;

/// Between two batches, so that decisions come first.
const BREATHER: Duration = Duration::from_millis(20);

/// Forgets until the shutdown.
pub(crate) fn start(ctx: &Context, db: bailey_db::Db, auditor: Auditor) {
    let running = ctx.clone();
    ctx.spawn("forget", async move {
        let now = || running.clock.now();
        while !running.shutdown.is_cancelled() {
            let done = round(&db, now, &running.shutdown, |gone| tell(&auditor, gone)).await;
            let wait = if done.is_ok() { EVERY } else { AGAIN };
            let trouble = done
                .err()
                .map(|e| format!("nothing is forgotten: {}", Chain(&e)));
            running.trouble("forget", trouble);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = running.shutdown.cancelled() => {}
            }
        }
        Ok(())
    });
}

/// Forgets everything whose time is over now. What went before a failure or the shutdown is told all the same.
pub(crate) async fn round(
    db: &bailey_db::Db,
    now: impl Fn() -> Timestamp,
    shutdown: &CancellationToken,
    tell: impl FnOnce(Forgotten),
) -> Result<(), sqlx::Error> {
    let mut gone = None;
    let done = forget(db, now, shutdown, &mut gone).await;
    if let Some(gone) = gone {
        tell(gone);
    }
    done
}

fn tell(auditor: &Auditor, Forgotten { jobs, until }: Forgotten) {
    tracing::info!(
        jobs,
        "forgot {jobs} jobs; what was asked for until {until} and is not known is refused from now on"
    );
    auditor.append(
        "ledger.pruned",
        &json!({"jobs": jobs, "before_ms": until.0}),
    );
}

/// Passes each row once: one that a younger parent keeps is looked at again in the next round.
async fn forget(
    db: &bailey_db::Db,
    now: impl Fn() -> Timestamp,
    shutdown: &CancellationToken,
    gone: &mut Option<Forgotten>,
) -> Result<(), sqlx::Error> {
    let mut after = Place::START;
    // Between batches only: what is committed is counted.
    while !shutdown.is_cancelled() {
        let Some((more, last)) = batch(db, now(), after).await? else {
            return Ok(());
        };
        after = last;
        let before = gone.map_or(0, |gone| gone.jobs);
        if before > 0 || more.jobs > 0 {
            let jobs = before.saturating_add(more.jobs);
            *gone = Some(Forgotten { jobs, ..more });
        }
        tokio::select! {
            () = tokio::time::sleep(BREATHER) => {}
            () = shutdown.cancelled() => {}
        }
    }
    Ok(())
}

/// Forgets at most [`BATCH`] jobs, and answers where the last of them was; `None`: there are no more.
async fn batch(
    db: &bailey_db::Db,
    now: Timestamp,
    after: Place,
) -> Result<Option<(Forgotten, Place)>, sqlx::Error> {
    // Not in the transaction that writes: decisions wait for that one.
    let mut read = db.read().await?;
    let (jobs, last) = job::forgettable(&mut read, now, (after, BATCH)).await?;
    drop(read);
    let Some(last) = last else {
        return Ok(None);
    };
    let mut tx = db.write().await?;
    let gone = job::forget(&mut tx, &jobs, now).await?;
    tx.commit().await?;
    Ok(Some((gone, last)))
}
