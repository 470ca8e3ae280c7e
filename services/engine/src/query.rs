//! Looking at jobs.

use std::time::Duration;

use bailey_db::Connection;
use bailey_error::{Classify, Kind};
use bailey_types::{EventId, JobId};
use tokio::sync::broadcast::error::RecvError;

use crate::db;
use crate::db::attempt::Attempt;
use crate::db::job::list::Filter;
use crate::db::transition::Transition;
use crate::job::{Job, Status};
use crate::state::State;

/// Longest wait for a job.
pub const MAX_WAIT: Duration = Duration::from_mins(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a job nor an event.
    #[error("there is no job or event {0}")]
    Absent(String),
    /// The database.
    #[error("reading jobs")]
    Db(#[from] sqlx::Error),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Absent(_) => Kind::NotFound,
            Self::Db(_) => Kind::Internal,
        }
    }
}

/// A job with its past.
#[derive(Debug)]
pub struct Full {
    /// The job.
    pub job: Job,
    /// Its changes, oldest first.
    pub transitions: Vec<Transition>,
    /// Its leases, oldest first.
    pub attempts: Vec<Attempt>,
}

/// One job.
pub async fn job(state: &State, id: JobId) -> Result<Full, Error> {
    let mut read = state.db.read().await?;
    let job = find(&mut read, id).await?;
    Ok(full(state, &mut read, job).await?)
}

/// The newest jobs that fit, and how many fit.
pub async fn jobs(state: &State, filter: &Filter, limit: u32) -> Result<(Vec<Job>, u64), Error> {
    let mut read = state.db.read().await?;
    let (jobs, total) = db::job::list::newest(&mut read, filter, limit).await?;
    Ok((
        jobs.into_iter().map(|job| explain(state, job)).collect(),
        total,
    ))
}

/// Everything that belongs together with a job, or came of an event.
pub async fn tree(state: &State, root: &str) -> Result<Vec<Full>, Error> {
    let absent = || Error::Absent(root.chars().take(80).collect());
    let job: JobId = root.parse().map_err(|_| absent())?;
    let event: EventId = root.parse().map_err(|_| absent())?;
    let mut read = state.db.read().await?;
    let mut jobs = db::job::list::tree_of_job(&mut read, job).await?;
    if jobs.is_empty() {
        jobs = db::job::list::tree_of_event(&mut read, event).await?;
    }
    if jobs.is_empty() && !db::event::exists(&mut read, event).await? {
        return Err(absent());
    }
    let mut tree = Vec::new();
    for job in jobs {
        tree.push(full(state, &mut read, job).await?);
    }
    Ok(tree)
}

/// The job once it is terminal, or as it is when `longest` is over.
pub async fn wait(state: &State, id: JobId, longest: Duration) -> Result<Full, Error> {
    // Before the first look, so that no end falls between the two.
    let mut ended = state.ended_jobs.subscribe();
    let mut look = state.db.look().await?;
    let first = find(&mut look, id).await?;
    // Others need the connection while this waits.
    drop(look);
    if first.status.is_terminal() {
        return job(state, id).await;
    }
    let end = async {
        loop {
            match ended.recv().await {
                Ok(job) if job == id => return,
                Ok(_) => {}
                // Its end may be among what was missed.
                Err(RecvError::Lagged(_)) => match job(state, id).await {
                    Ok(full) if !full.job.status.is_terminal() => {}
                    Ok(_) | Err(_) => return,
                },
                Err(RecvError::Closed) => return,
            }
        }
    };
    tokio::select! {
        () = end => {}
        () = tokio::time::sleep(longest.min(MAX_WAIT)) => {}
        () = state.shutdown.cancelled() => {}
    }
    let mut look = state.db.look().await?;
    let last = find(&mut look, id).await?;
    if last.status.is_terminal() {
        // It does not change any more, so that this and its past need no common snapshot.
        return Ok(full(state, &mut look, last).await?);
    }
    drop(look);
    job(state, id).await
}

async fn find(read: &mut Connection, id: JobId) -> Result<Job, Error> {
    let job = db::job::find::by_id(read, id).await?;
    job.ok_or_else(|| Error::Absent(id.to_string()))
}

async fn full(state: &State, read: &mut Connection, job: Job) -> Result<Full, sqlx::Error> {
    let (transitions, attempts) = db::past::of(read, job.id).await?;
    Ok(Full {
        transitions,
        attempts,
        job: explain(state, job),
    })
}

/// Says of a job that is due why it still waits.
fn explain(state: &State, mut job: Job) -> Job {
    if job.status == Status::Queued && job.lasts() {
        let held = state.fleet.quarantined();
        if let Some(why) = held.get(job.plugin.as_str()) {
            job.waiting_for.clone_from(why);
        }
    }
    let due = job.next_retry_at.is_none_or(|at| at <= state.clock.now());
    if job.status == Status::Queued && due && job.waiting_for.is_empty() {
        job.waiting_for = state.held_up();
    }
    job
}
