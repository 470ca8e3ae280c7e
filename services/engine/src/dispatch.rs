//! Queued jobs and free slots find each other here, oldest job first. Nothing polls: whoever changes something wakes it.

mod assign;
mod ticket;

use std::time::Duration;

use bailey_types::{PluginName, Timestamp};
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::fleet::Room;
use crate::job::Job;
use crate::state::State;
use crate::view::{self, Locked};
use crate::{db, report};

use assign::Assigned;

/// How long until a lock that is missing or refused is looked at again, while jobs wait for it.
const LOCK_RECHECK: Duration = Duration::from_secs(5);

/// How long until a failing database is tried again.
const DB_RECHECK: Duration = Duration::from_secs(1);

/// Assigns jobs until the shutdown.
pub async fn run(state: State) -> anyhow::Result<()> {
    let mut patience = Patience::new(state.options.policy_backoff);
    loop {
        // Whatever else happens meanwhile: each try takes one of the decisions that a job may have.
        tokio::select! {
            () = patience.over() => {}
            () = state.shutdown.cancelled() => return Ok(()),
        }
        let woken = state.wake.notified();
        let next = match round(&state, &mut patience).await {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(error = %bailey_error::Chain(&error), "assigning jobs failed");
                Some(DB_RECHECK)
            }
        };
        tokio::select! {
            () = woken => {}
            () = sleep(next) => {}
            () = state.shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Takes away the leases of runners that have fallen silent, until the shutdown.
pub async fn reap(state: State) -> anyhow::Result<()> {
    loop {
        let joined = state.fleet.joined.notified();
        let (expired, next) = state.fleet.expired();
        let why = "its runner fell silent";
        if let Err(error) = report::give_up(&state, &expired, why).await {
            tracing::error!(error = %bailey_error::Chain(&error), "giving leases up failed");
        }
        let until = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = joined => {}
            () = until => {}
            () = state.shutdown.cancelled() => return Ok(()),
        }
    }
}

/// How long to wait for policy and the broker: longer each time, until they answer.
struct Patience {
    shortest: Duration,
    longest: Duration,
    next: Duration,
    until: Option<Instant>,
}

impl Patience {
    const fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self {
            shortest,
            longest,
            next: shortest,
            until: None,
        }
    }

    fn answered(&mut self) {
        self.next = self.shortest;
        self.until = None;
    }

    /// Nobody is asked for a while; answers how long.
    fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        self.until = Some(Instant::now() + wait);
        wait
    }

    async fn over(&self) {
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// What policy or the broker answers in time, and before the engine stops.
async fn answered<T>(
    state: &State,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    let answer = tokio::select! {
        answer = tokio::time::timeout(state.options.decision_timeout, asked) => answer,
        () = state.shutdown.cancelled() => return Err(Status::unavailable("the engine is stopping")),
    };
    let late = |_| Status::deadline_exceeded("it did not answer in time");
    answer.map_err(late)?.map(Response::into_inner)
}

/// Assigns what can be assigned now; answers when something may become due by itself.
async fn round(state: &State, patience: &mut Patience) -> Result<Option<Duration>, report::Error> {
    loop {
        let locked = match state.locked() {
            Ok(locked) => locked,
            Err(error) => {
                state.hold(&error.to_string());
                return Ok(Some(LOCK_RECHECK));
            }
        };
        // One for the whole turn: nothing becomes due between what looks for it and what waits for it.
        let now = state.clock.now();
        if let Some((runner, job)) = lasting(state, now).await? {
            match assign::one(state, &locked, &runner, &job).await? {
                Assigned::Done => patience.answered(),
                Assigned::Postponed(why) => {
                    state.hold(&why);
                    return Ok(Some(patience.failed()));
                }
            }
            continue;
        }
        let runner = match state.fleet.room() {
            Room::At(runner) => runner,
            Room::None(why) => {
                state.hold(&why);
                // A service needs no room: its pause may be over before something else happens.
                return Ok(next(state, now).await?);
            }
        };
        let Some(job) = due(state, &locked, now).await? else {
            let next = next(state, now).await?;
            state.hold("");
            return Ok(next);
        };
        match assign::one(state, &locked, &runner, &job).await? {
            Assigned::Done => {
                patience.answered();
                state.hold("");
            }
            Assigned::Postponed(why) => {
                state.hold(&why);
                return Ok(Some(patience.failed()));
            }
        }
    }
}

/// The service whose turn it is, and where it can go.
async fn lasting(state: &State, now: Timestamp) -> Result<Option<(String, Job)>, sqlx::Error> {
    let Some(runner) = state.fleet.seat() else {
        return Ok(None);
    };
    let quarantined = state.fleet.quarantined();
    // The runner names plugins of the lock; another name holds nothing.
    let held: Vec<&str> = quarantined.keys().map(String::as_str).collect();
    let mut look = state.db.look().await?;
    let job = db::service::due(&mut look, now, &held).await?;
    Ok(job.map(|job| (runner, job)))
}

/// The job whose turn it is.
async fn due(state: &State, locked: &Locked, now: Timestamp) -> Result<Option<Job>, sqlx::Error> {
    let mut look = state.db.look().await?;
    // Mostly nothing waits, or the first that does may run. A job may end between two looks: its end wakes this again.
    let Some(first) = db::job::find::due(&mut look, now, &[]).await? else {
        return Ok(None);
    };
    let running = db::job::find::running_by_plugin(&mut look).await?;
    let full: Vec<&PluginName> = running
        .iter()
        .filter(|(plugin, running)| **running >= view::parallelism(locked, plugin))
        .map(|(plugin, _)| plugin)
        .collect();
    let total: u32 = running.values().sum();
    if total >= locked.view.config.service.max_workers {
        Ok(None)
    } else if full.contains(&&first.plugin) {
        db::job::find::due(&mut look, now, &full).await
    } else {
        Ok(Some(first))
    }
}

/// How long until a job becomes due.
async fn next(state: &State, now: Timestamp) -> Result<Option<Duration>, sqlx::Error> {
    let mut look = state.db.look().await?;
    let at = db::job::find::next_retry(&mut look, now).await?;
    Ok(at.map(|at| at.since(now).max(Duration::from_millis(1))))
}
