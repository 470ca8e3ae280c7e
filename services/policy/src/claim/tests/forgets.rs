//! Forgetting: what a clock that is set can do to it, and its rounds.

use std::cell::RefCell;

use super::*;
use crate::db::job::Forgotten;

#[tokio::test]
async fn a_clock_that_steps_back_does_not_revive_them_either() {
    // Whether it is back when the id is used anew, or when that job is tried again; the second signed its decision just after it was noted.
    let soon = Duration::from_millis(5);
    for (is_born_late, signed_after) in [
        (false, Duration::ZERO),
        (true, Duration::ZERO),
        (true, soon),
    ] {
        let mut ledger = Ledger::new().await;
        let parent = ledger.call();
        ledger.ask(&parent).await.unwrap();
        ledger.now = START.plus(signed_after);
        let step = ledger.follow(&parent, 0);
        ledger.now = START;
        ledger.ask(&step).await.unwrap();
        ledger.pass(32 * DAY).await;
        assert_eq!(ledger.jobs().await, 0);
        let now = ledger.now;
        let (fresh, grounds) = ledger.call();
        let job = parent.0.job;
        let fresh = (Call { job, ..fresh }, grounds);
        if is_born_late {
            ledger.now = START.plus(Duration::from_millis(1));
        } else {
            ledger.ask(&fresh).await.unwrap();
            ledger.now = START;
        }
        ledger.ask(&fresh).await.unwrap();
        assert_eq!(ledger.ask(&replay(&step)).await, Err("too_old"));
        ledger.now = now;
        assert_eq!(ledger.ask(&replay(&step)).await, Err("too_old"));
        // Its own decisions count.
        ledger.ask(&fresh).await.unwrap();
        ledger.ask(&ledger.follow(&fresh, 0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_retry_while_the_clock_is_back_has_steps() {
    let mut ledger = Ledger::new().await;
    let call = ledger.call();
    ledger.ask(&call).await.unwrap();
    ledger.now = START.minus(DAY);
    ledger.ask(&call).await.unwrap();
    let step = ledger.follow(&call, 0);
    ledger.now = START.plus(DAY);
    ledger.ask(&step).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_was_wrong_for_an_hour_makes_nothing_too_old() {
    let mut ledger = Ledger::new().await;
    let (used, waits) = (ledger.call(), ledger.call());
    ledger.ask(&used).await.unwrap();
    let before = ledger.now;
    ledger.now = ledger.now.plus(Duration::from_millis(1));
    let later = ledger.call();
    ledger.pass(20 * 366 * DAY).await;
    let ahead = ledger.call();
    ledger.ask(&ahead).await.unwrap();
    ledger.now = before.plus(Duration::from_hours(1));
    assert_eq!(ledger.ask(&replay(&used)).await, Err("too_old"));
    assert_eq!(ledger.ask(&waits).await, Err("too_old"), "nobody can tell");
    ledger.ask(&later).await.unwrap();
    ledger.ask(&ledger.call()).await.unwrap();
    ledger.pass(40 * DAY).await;
    ledger.ask(&ledger.call()).await.unwrap();
    assert_eq!(ledger.ask(&replay(&ahead)).await, Err("origin_used"));
}

/// A ledger with as many jobs as two batches need, all of which are over.
async fn with_two_batches() -> Ledger {
    let mut ledger = Ledger::new().await;
    for _ in 0..201 {
        ledger.ask(&ledger.call()).await.unwrap();
    }
    ledger.now = ledger.now.plus(31 * DAY);
    ledger
}

async fn alter(ledger: &Ledger, sql: &'static str) {
    let mut tx = ledger.db.write().await.unwrap();
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn what_went_before_a_failure_or_the_shutdown_is_told() {
    let told = RefCell::new(Vec::new());
    let tell = |gone: Forgotten| told.borrow_mut().push((gone.jobs, gone.until));
    // Given a file of which one row cannot go
    let ledger = with_two_batches().await;
    alter(
        &ledger,
        "CREATE TRIGGER kept BEFORE DELETE ON job WHEN OLD.rowid = 201 BEGIN SELECT RAISE(ABORT, 'kept'); END",
    )
    .await;
    let go_on = CancellationToken::new();
    let done = forget::round(&ledger.db, || ledger.now, &go_on, tell).await;
    assert!(done.is_err());
    assert_eq!((told.take(), ledger.jobs().await), (vec![(200, START)], 1));
    alter(&ledger, "DROP TRIGGER kept").await;
    for rest in [vec![(1, START)], vec![]] {
        let done = forget::round(&ledger.db, || ledger.now, &go_on, tell).await;
        done.unwrap();
        assert_eq!(told.take(), rest);
    }

    // And one that is stopped while the first batch goes
    let ledger = with_two_batches().await;
    let stop = CancellationToken::new();
    let now = || {
        stop.cancel();
        ledger.now
    };
    let done = forget::round(&ledger.db, now, &stop, tell).await;
    done.unwrap();
    assert_eq!((told.take(), ledger.jobs().await), (vec![(200, START)], 1));
}

#[tokio::test]
async fn a_round_passes_what_a_parent_keeps_once() {
    let mut ledger = Ledger::new().await;
    ledger.retry.backoff_base = 7 * DAY;
    let patient = ledger.call();
    ledger.ask(&patient).await.unwrap();
    ledger.retry = Retry::default();
    for event in 0..3 {
        let step = ledger.follow(&patient, event);
        ledger.ask(&step).await.unwrap();
    }
    ledger.now = ledger.now.plus(100 * DAY);
    // The steps were over before their parent, which keeps them; behind it they are not looked at again.
    let rounds = [ledger.round().await, ledger.round().await];
    assert_eq!(rounds, [1, 3]);
    assert_eq!(ledger.round().await, 0);
}
