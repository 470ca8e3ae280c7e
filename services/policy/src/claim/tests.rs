mod forgets;

use std::borrow::Cow;

use bailey_db::Db;
use bailey_trust::DecisionOrigin;
use bailey_types::{AttemptNumber, DecisionId, JobId, OriginId};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::db::memory::Memory;
use crate::forget;
use crate::grounds::{AskedBy, Place};

const DAY: Duration = Duration::from_hours(24);
const START: Timestamp = Timestamp(1_800_000_000_000);

/// A ledger, at a time that the test sets.
struct Ledger {
    dir: TempDir,
    db: Db,
    now: Timestamp,
    retry: Retry,
}

/// What a job asks with.
type Asked = (Call, Grounds);

impl Ledger {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = bailey_db::connect(&dir.path().join("policy.db"), &crate::MIGRATOR)
            .await
            .unwrap();
        let retry = Retry::default();
        let now = START;
        Self {
            dir,
            db,
            now,
            retry,
        }
    }

    /// As `decision::decide` does it.
    async fn ask(&self, (call, grounds): &Asked) -> Result<(), &'static str> {
        let mut tx = self.db.write().await.unwrap();
        let taken = take(&mut tx, call, grounds, self.retry, self.now).await;
        taken.unwrap().map_err(|denial| {
            assert!(!denial.detail.is_empty());
            denial.reason.token()
        })?;
        let log = bailey_audit_log::Checkpoint {
            size: 0,
            root: bailey_types::Sha256([0; 32]),
        };
        let lock_serial = bailey_types::Serial(1);
        db::memory::advance(&mut tx, Memory { lock_serial, log })
            .await
            .unwrap();
        tx.commit().await.unwrap();
        Ok(())
    }

    async fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        while self.round().await > 0 {}
    }

    /// One round of forgetting. Answers how many jobs that was told of.
    async fn round(&self) -> u64 {
        let mut told = 0;
        let go_on = CancellationToken::new();
        forget::round(&self.db, || self.now, &go_on, |gone| told = gone.jobs)
            .await
            .unwrap();
        told
    }

    async fn number(&self, query: &'static str) -> i64 {
        let mut read = self.db.read().await.unwrap();
        sqlx::query_scalar(query)
            .fetch_one(&mut *read)
            .await
            .unwrap()
    }

    async fn jobs(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM job").await
    }

    /// A job that an origin of now asks for.
    fn call(&self) -> Asked {
        let origin = OriginId::new();
        let uses = Uses::Origin {
            origin,
            asked_at: self.now,
            step: None,
        };
        asked(JobId::new(), None, uses, false)
    }

    fn service(&self) -> Asked {
        let (call, grounds) = self.call();
        let lasts = true;
        (call, Grounds { lasts, ..grounds })
    }

    /// A job that follows from an event of one that was decided about now.
    fn follow(&self, (parent, of): &Asked, event_index: u32) -> Asked {
        let parent = Parent {
            job: parent.job,
            decided_at: self.now,
        };
        let uses = Uses::Edge {
            parent,
            pipeline: "welcome".parse().unwrap(),
            step: "first".parse().unwrap(),
            event_index,
            endless: of.lasts,
            within: Within::NewInstance,
        };
        asked(JobId::new(), Some("instance"), uses, false)
    }
}

fn asked(job: JobId, instance: Option<&str>, uses: Uses, lasts: bool) -> Asked {
    let signed = bailey_proto::trust::v1::Signed::default();
    let step = instance.map(|instance| Place {
        pipeline: "welcome".parse().unwrap(),
        step: "first".parse().unwrap(),
        instance: instance.to_owned(),
        event_type: "door.opened".to_owned(),
        event_index: 0,
    });
    let call = Call {
        job,
        attempt: AttemptNumber(1),
        plugin: "greet".parse().unwrap(),
        command: "handle".parse().unwrap(),
        request: Vec::new(),
        asked_by: AskedBy::Origin(signed),
        step,
    };
    let origin = DecisionOrigin::Step {
        parent: DecisionId::new(),
        pipeline: "welcome".parse().unwrap(),
        step: "first".parse().unwrap(),
    };
    let grounds = Grounds {
        principal: "token:ops".to_owned(),
        contract: "token:ops".to_owned(),
        origin,
        uses,
        lasts,
        request: Vec::new(),
    };
    (call, grounds)
}

/// The same ground for another job.
fn replay((call, grounds): &Asked) -> Asked {
    let job = JobId::new();
    (
        Call {
            job,
            ..call.clone()
        },
        grounds.clone(),
    )
}

#[tokio::test]
async fn what_is_forgotten_is_refused_for_its_own_job_and_for_any_other() {
    let mut ledger = Ledger::new().await;
    let old = ledger.call();
    ledger.ask(&old).await.unwrap();
    ledger.pass(KEPT).await;
    assert_eq!(ledger.ask(&replay(&old)).await, Err("origin_used"), "known");
    ledger.pass(DAY).await;
    assert_eq!(ledger.jobs().await, 0);
    assert_eq!(ledger.ask(&replay(&old)).await, Err("too_old"));
    assert_eq!(ledger.ask(&old).await, Err("too_old"));
    ledger.ask(&ledger.call()).await.unwrap();
}

#[tokio::test]
async fn a_late_job_is_decided_about_within_a_month_and_between_its_tries_whatever_they_are() {
    let mut ledger = Ledger::new().await;
    // What waited for its first decision, while others were forgotten.
    let waited = ledger.call();
    ledger.ask(&ledger.call()).await.unwrap();
    ledger.pass(29 * DAY).await;
    ledger.ask(&waited).await.unwrap();
    ledger.pass(29 * DAY).await;
    ledger.ask(&waited).await.unwrap();

    // 7, 14 and 28 days, each and a quarter, are what the operator has asked for.
    ledger.retry.backoff_base = 7 * DAY;
    let patient = ledger.call();
    ledger.ask(&patient).await.unwrap();
    for days in [9, 18, 35] {
        // And a month in the queue each time.
        ledger.pass((days + 29) * DAY).await;
        ledger.ask(&patient).await.unwrap();
        ledger.ask(&replay(&patient)).await.unwrap_err();
    }
    ledger.pass(2 * LONGEST_PAUSE).await;
    assert_eq!(ledger.ask(&replay(&patient)).await, Err("too_old"));

    // What waits longer than that without ever having been decided about is refused, as soon as something younger is forgotten.
    let never = ledger.call();
    ledger.now = ledger.now.plus(DAY);
    ledger.retry = Retry::default();
    ledger.ask(&ledger.call()).await.unwrap();
    ledger.pass(32 * DAY).await;
    assert_eq!(ledger.ask(&never).await, Err("too_old"));
}

#[tokio::test]
async fn a_step_is_known_for_as_long_as_its_parent_and_outlives_it() {
    let mut ledger = Ledger::new().await;
    let parent = ledger.call();
    ledger.ask(&parent).await.unwrap();
    let (step, other) = (ledger.follow(&parent, 0), ledger.follow(&parent, 1));
    ledger.ask(&step).await.unwrap();
    // The parent is decided about again, so its events may be shown again.
    ledger.pass(29 * DAY).await;
    ledger.ask(&parent).await.unwrap();
    ledger.pass(29 * DAY).await;
    assert_eq!(ledger.jobs().await, 2);
    assert_eq!(ledger.ask(&replay(&step)).await, Err("edge_used_up"));
    ledger.ask(&other).await.unwrap();
    ledger.pass(2 * DAY).await;
    // The parent is gone, and with it whatever could be shown for the first time; its step's retries are not.
    assert_eq!(ledger.ask(&parent).await, Err("too_old"));
    for late in [&step, &other] {
        assert_eq!(ledger.ask(&replay(late)).await, Err("too_old"));
    }
    ledger.ask(&other).await.unwrap();
    ledger.pass(31 * DAY).await;
    assert_eq!(ledger.jobs().await, 0);
    assert_eq!(ledger.ask(&replay(&other)).await, Err("too_old"));
}

#[tokio::test]
async fn a_job_that_comes_to_life_again_does_not_revive_its_old_decisions() {
    let mut ledger = Ledger::new().await;
    let parent = ledger.call();
    ledger.ask(&parent).await.unwrap();
    let step = ledger.follow(&parent, 0);
    ledger.ask(&step).await.unwrap();
    ledger.pass(31 * DAY).await;
    ledger.pass(Duration::ZERO).await;
    // A captured engine gives the old job's id to what it may have decided about now.
    let (fresh, grounds) = ledger.call();
    let job = parent.0.job;
    let fresh = (Call { job, ..fresh }, grounds);
    ledger.ask(&fresh).await.unwrap();
    assert_eq!(ledger.ask(&replay(&step)).await, Err("too_old"));
    ledger.ask(&ledger.follow(&fresh, 0)).await.unwrap();
}

#[tokio::test]
async fn a_service_is_never_forgotten_and_its_events_are() {
    let mut ledger = Ledger::new().await;
    let service = ledger.service();
    ledger.ask(&service).await.unwrap();
    let first = ledger.follow(&service, 7);
    ledger.ask(&first).await.unwrap();
    let (unused, late) = (ledger.follow(&service, 3), ledger.follow(&service, 8));
    ledger.pass(366 * DAY).await;
    assert_eq!(ledger.jobs().await, 1);
    assert_eq!(ledger.ask(&replay(&first)).await, Err("too_old"));
    assert_eq!(ledger.ask(&unused).await, Err("too_old"));
    // By a decision of a year ago: its cell has run that long.
    ledger.ask(&late).await.unwrap();
    ledger.ask(&service).await.unwrap();
    ledger.ask(&replay(&service)).await.unwrap_err();

    // One that another has followed goes, once its last events had their time.
    let next = ledger.service();
    ledger.ask(&next).await.unwrap();
    let last = ledger.follow(&service, 9);
    ledger.pass(29 * DAY).await;
    ledger.ask(&last).await.unwrap();
    ledger.pass(2 * DAY).await;
    assert_eq!(ledger.ask(&replay(&service)).await, Err("too_old"));
    assert_eq!(ledger.ask(&replay(&late)).await, Err("too_old"));
    assert_eq!(
        ledger.ask(&ledger.follow(&service, 10)).await,
        Err("parent_invalid")
    );
    ledger.ask(&next).await.unwrap();
    ledger.pass(366 * DAY).await;
    assert_eq!(ledger.jobs().await, 1);
}

#[tokio::test]
async fn a_job_rests_on_one_thing() {
    let ledger = Ledger::new().await;
    let asked = ledger.call();
    ledger.ask(&asked).await.unwrap();
    let (other, grounds) = ledger.call();
    let job = asked.0.job;
    let other = (Call { job, ..other }, grounds);
    assert_eq!(ledger.ask(&other).await, Err("job_used"));
    let step = ledger.follow(&asked, 0);
    ledger.ask(&step).await.unwrap();
    let mut elsewhere = step.clone();
    elsewhere.0.step.as_mut().unwrap().instance = "another".to_owned();
    assert_eq!(ledger.ask(&elsewhere).await, Err("job_used"));
    ledger.ask(&step).await.unwrap();
}

#[tokio::test]
async fn the_file_stops_growing() {
    let mut ledger = Ledger::new().await;
    let service = ledger.service();
    ledger.ask(&service).await.unwrap();
    let mut pages = Vec::new();
    let mut event = 0;
    for day in 1..=120 {
        for _ in 0..10 {
            event += 1;
            let call = ledger.call();
            ledger.ask(&call).await.unwrap();
            ledger.ask(&ledger.follow(&call, 0)).await.unwrap();
            let step = ledger.follow(&service, event);
            ledger.ask(&step).await.unwrap();
        }
        ledger.pass(DAY).await;
        if day % 40 == 0 {
            pages.push(ledger.number("PRAGMA page_count").await);
            assert!(ledger.jobs().await <= 32 * 30 + 1);
        }
    }
    let [month, _, last] = pages[..] else {
        unreachable!("three were noted");
    };
    assert!(last <= month + month / 10, "{pages:?}");
}

#[tokio::test]
async fn what_was_known_before_there_was_one_row_for_each_job_stays_known() {
    let mut ledger = Ledger::new().await;
    let path = ledger.dir.path().join("old.db");
    let first = crate::MIGRATOR.iter().take(1).cloned().collect();
    let mut old = sqlx::migrate!();
    old.migrations = Cow::Owned(first);
    let db = bailey_db::connect(&path, &old).await.unwrap();
    let (origin, job, parent) = (OriginId::new(), JobId::new(), JobId::new());
    let second = OriginId::new();
    let (waits, waiting) = (OriginId::new(), JobId::new());
    let mut tx = db.write().await.unwrap();
    let rows = [
        format!("INSERT INTO origin_use VALUES ('{origin}', '', '', '{parent}')"),
        // Nobody honest has one job rest on several things.
        format!("INSERT INTO origin_use VALUES ('{second}', '', '', '{parent}')"),
        format!("INSERT INTO edge_use VALUES ('{job}', 'welcome', 'first', 7, '{parent}')"),
        format!("INSERT INTO origin_use VALUES ('{waits}', '', '', '{waiting}')"),
        format!("INSERT INTO edge_use VALUES ('{parent}', 'welcome', 'first', 4, '{job}')"),
        format!(
            "INSERT INTO decision VALUES ('a', '{parent}', '', {})",
            START.0
        ),
        format!(
            "INSERT INTO decision VALUES ('b', '{parent}', '', {})",
            START.0 + 5
        ),
        format!(
            "INSERT INTO decision VALUES ('c', '{job}', 'instance', {})",
            START.0 + 9
        ),
        "INSERT INTO memory VALUES (1, 1, 0, X'00')".to_owned(),
    ];
    for row in rows {
        sqlx::query(sqlx::AssertSqlSafe(row))
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    db.close().await;
    drop(db);
    ledger.db = bailey_db::connect(&path, &crate::MIGRATOR).await.unwrap();

    ledger.now = START.plus(DAY);
    let by = |origin, job| {
        let asked_at = START;
        let step = None;
        let uses = Uses::Origin {
            origin,
            asked_at,
            step,
        };
        asked(job, None, uses, false)
    };
    for used in [origin, second] {
        assert_eq!(
            ledger.ask(&by(used, JobId::new())).await,
            Err("origin_used")
        );
    }
    ledger
        .ask(&by(OriginId::new(), JobId::new()))
        .await
        .unwrap();
    let root = by(origin, parent);
    let mut step = ledger.follow(&root, 4);
    assert_eq!(ledger.ask(&step).await, Err("edge_used_up"));
    step.0.job = job;
    ledger.ask(&step).await.unwrap();
    ledger.ask(&ledger.follow(&root, 5)).await.unwrap();
    // Two of twelve decisions were made before.
    for _ in 0..10 {
        ledger.ask(&root).await.unwrap();
    }
    assert_eq!(ledger.ask(&root).await, Err("attempts_used_up"));
    // The pause of a retry may be as long as any.
    ledger.pass(390 * DAY).await;
    ledger.ask(&by(waits, waiting)).await.unwrap();
    ledger.pass(7 * DAY).await;
    for used in [origin, second] {
        assert_eq!(ledger.ask(&by(used, JobId::new())).await, Err("too_old"));
    }
}
