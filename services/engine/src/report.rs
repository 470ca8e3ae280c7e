//! What becomes of a job when its attempt ends: result, state, events, next steps and status in one commit.

mod amended;
mod lasting;
mod line;
mod returned;
mod success;

use std::time::Duration;

use bailey_error::{Classify, Kind};
use bailey_plugin::protocol::MAX_LINE_BYTES;
use bailey_proto::engine::v1::Timings;
use bailey_proto::engine::v1::report_request::Outcome as Reported;
use bailey_types::{JobId, PluginName};
use serde_json::json;

use crate::db::job::Traces;
use crate::fleet::{Lease, Lost};
use crate::job::{Job, Status};
use crate::outcome::{self, Failed, Fate, Verdict};
use crate::state::State;
use crate::work::{Retry, Work};
use crate::{db, spawn};

pub use amended::amend;
pub use lasting::NOT_KEPT;
pub use line::take as take_line;
pub use returned::{Malformed, Returned};

/// Backoff for a plugin that is not configured any more: the default of the configuration.
const FALLBACK_BACKOFF: Duration = Duration::from_secs(30);

/// Answers up to this size are judged where they came in: the way to another thread and back takes longer.
const SMALL_BYTES: usize = 64 << 10;

/// Why the end of an attempt cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of what does not run.
    #[error("attempt {1} of the job {0} is over, or is no service's")]
    Over(JobId, u32),
    /// A line that no service may write.
    #[error("a line has more than {MAX_LINE_BYTES} bytes")]
    LongLine,
    /// Policy lets each number lead to one job only.
    #[error("the service {0} has had more events than there are numbers for")]
    Numbers(PluginName),
    /// Comparing a service with what is locked.
    #[error(transparent)]
    Service(#[from] crate::service::Error),
    /// Making the jobs of its events.
    #[error(transparent)]
    Spawn(#[from] spawn::Error),
    /// What it left cannot be written.
    #[error("writing the plugin's state")]
    State(#[from] serde_json::Error),
    /// Judging what it answered.
    #[error("judging the answer")]
    Judge(#[from] tokio::task::JoinError),
    /// The database.
    #[error("storing the outcome")]
    Db(#[from] sqlx::Error),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Over(..) | Self::Numbers(_) => Kind::FailedPrecondition,
            Self::LongLine => Kind::InvalidArgument,
            Self::Service(error) => error.kind(),
            Self::Spawn(_) | Self::State(_) | Self::Judge(_) | Self::Db(_) => Kind::Internal,
        }
    }
}

/// What a report says beside the outcome.
#[derive(Debug, Default)]
pub struct Seen {
    /// How long each phase took.
    pub timings: Timings,
    /// The secrets that the plugin printed.
    pub returned: Vec<Returned>,
    /// Since how long nobody has answered for the attempt; zero where its runner does.
    pub silent: Duration,
}

/// Takes a runner's report. One of an attempt that is not the current one is accepted and ignored.
pub async fn take(
    state: &State,
    (id, attempt): Lease,
    reported: Reported,
    seen: Seen,
) -> Result<(), Error> {
    let mut look = state.db.look().await?;
    let job = db::job::find::by_id(&mut look, id).await?;
    drop(look);
    let Some(job) = job.filter(|job| is_current(job, attempt)) else {
        tracing::info!(job.id = %id, job.attempt = attempt, "ignored a report: attempt {attempt} of {id} is over");
        state.fleet.release((id, attempt));
        return Ok(());
    };
    if job.lasts() {
        let verdict = outcome::judge_lasting(reported);
        return conclude(state, (id, attempt), verdict, seen).await;
    }
    let timeout = state.locked().ok().and_then(|locked| {
        locked
            .view
            .config
            .plugins
            .get(&job.plugin)
            .map(|plugin| plugin.timeouts.of(&job.command))
    });
    // Up to 10 MiB of JSON: not inside the transaction, which others wait for, and not where everybody else waits.
    let timeout = timeout.unwrap_or_default();
    let mut verdict = if is_small(&reported) {
        outcome::judge(reported, timeout)
    } else {
        tokio::task::spawn_blocking(move || outcome::judge(reported, timeout)).await?
    };
    returned::note(&mut verdict, attempt, &seen.returned);
    conclude(state, (id, attempt), verdict, seen).await
}

fn is_small(reported: &Reported) -> bool {
    match reported {
        Reported::Finished(finished) => finished.stdout.len() <= SMALL_BYTES,
        Reported::TimedOut(_)
        | Reported::NotStarted(_)
        | Reported::Lost(_)
        | Reported::Refused(_)
        | Reported::Unhealthy(_) => true,
    }
}

/// Ends attempts that nobody answers for any more; each counts.
pub async fn give_up(state: &State, lost: &[Lost], why: &str) -> Result<(), Error> {
    for (lease, silent) in lost {
        let mut failed = Failed::passing(outcome::LEASE_LOST, why.to_owned());
        // Nobody knows what it did, so it neither failed nor took too long.
        failed.only_try = Status::Dead;
        let seen = Seen {
            silent: *silent,
            ..Seen::default()
        };
        conclude(state, *lease, Verdict::Failed(failed), seen).await?;
    }
    Ok(())
}

/// Ends an attempt that its runner never heard of; it does not count.
pub async fn take_back(state: &State, lease: Lease, why: &str) -> Result<(), Error> {
    let verdict = Verdict::NotStarted(why.to_owned());
    conclude(state, lease, verdict, Seen::default()).await
}

/// Ends an attempt that got no ticket, for good.
pub async fn refused(state: &State, lease: Lease, reason: String) -> Result<(), Error> {
    let verdict = Verdict::Failed(outcome::refused(&reason));
    conclude(state, lease, verdict, Seen::default()).await
}

async fn conclude(
    state: &State,
    lease: Lease,
    verdict: Verdict,
    Seen {
        timings,
        returned,
        silent,
    }: Seen,
) -> Result<(), Error> {
    let (id, attempt) = lease;
    let mut work = Work::begin(state).await?;
    let job = db::job::find::by_id(work.db(), id).await?;
    if let Some(mut job) = job.filter(|job| is_current(job, attempt)) {
        returned::tell(&mut work, &job, &returned).await?;
        let record = if job.lasts() {
            job.logs = returned::fold(&job, &returned);
            lasting::settle(&mut work, &job, verdict, (timings, silent)).await?
        } else {
            settle(state, &mut work, &job, verdict, timings).await?
        };
        work.commit(state).await?;
        state.auditor.append(record.kind, &record.fields);
    }
    // Only now: had the commit failed, the runner would report again.
    state.fleet.release(lease);
    state.wake.notify_one();
    Ok(())
}

fn is_current(job: &Job, attempt: u32) -> bool {
    job.status == Status::Running && job.attempt == attempt
}

/// An entry for the audit log: names and hashes.
struct Record {
    kind: &'static str,
    fields: serde_json::Value,
}

impl Record {
    fn new(kind: &'static str, job: &Job, reason: &str, result: Option<&str>) -> Self {
        let sha256 = result.map(|result| bailey_types::Sha256::of(result.as_bytes()));
        let fields = json!({
            "job": job.id, "attempt": job.attempt, "plugin": job.plugin, "command": job.command,
            "decision": job.decision, "reason": reason, "result_sha256": sha256,
        });
        Self { kind, fields }
    }
}

async fn settle(
    state: &State,
    work: &mut Work,
    job: &Job,
    verdict: Verdict,
    timings: Timings,
) -> Result<Record, Error> {
    let failed = match verdict {
        Verdict::Succeeded { success, traces } => {
            match success::prepare(state, work, job, success).await? {
                Ok(prepared) => {
                    work.close_attempt(job, "succeeded", timings).await?;
                    let result = success::apply(work, job, prepared, 0).await?;
                    work.end(job, Status::Succeeded, "succeeded", Some(&result), &traces)
                        .await?;
                    return Ok(Record::new(
                        "job.succeeded",
                        job,
                        "succeeded",
                        Some(&result),
                    ));
                }
                Err(failed) => Failed {
                    traces: Traces {
                        error: failed.traces.error,
                        ..traces
                    },
                    ..failed
                },
            }
        }
        Verdict::NotStarted(reason) => {
            work.close_attempt(job, "not_started", timings).await?;
            let traces = Traces {
                error: Some(reason),
                ..Traces::default()
            };
            let retry = outcome::uncounted(job, work.now());
            work.retry(job, "not_started", &retry, &traces).await?;
            return Ok(Record::new("job.not_started", job, "not_started", None));
        }
        Verdict::Failed(failed) => failed,
    };
    work.close_attempt(job, failed.token, timings).await?;
    Ok(fail(state, work, job, &failed).await?)
}

async fn fail(
    state: &State,
    work: &mut Work,
    job: &Job,
    failed: &Failed,
) -> Result<Record, sqlx::Error> {
    let base = state.locked().ok().and_then(|locked| {
        locked
            .view
            .config
            .plugins
            .get(&job.plugin)
            .map(|plugin| plugin.retry.backoff_base)
    });
    let base = base.unwrap_or(FALLBACK_BACKOFF);
    match outcome::fate(job, failed, base, rand::random(), work.now()) {
        Fate::Again(retry) => {
            retry_soon(work, job, failed, retry).await?;
            Ok(Record::new("job.retry_scheduled", job, failed.token, None))
        }
        Fate::End(status) => {
            work.end(job, status, failed.token, None, &failed.traces)
                .await?;
            let kind = if status == Status::Dead {
                "job.dead"
            } else {
                "job.failed"
            };
            Ok(Record::new(kind, job, failed.token, None))
        }
    }
}

async fn retry_soon(
    work: &mut Work,
    job: &Job,
    failed: &Failed,
    retry: Retry,
) -> Result<(), sqlx::Error> {
    // What was lost with its runner was nobody's fault, and need not wait for it.
    let not_before = if failed.token == outcome::LEASE_LOST {
        work.now()
    } else {
        retry.not_before
    };
    work.retry(
        job,
        failed.token,
        &Retry {
            not_before,
            ..retry
        },
        &failed.traces,
    )
    .await
}

/// Ends a queued job that will never run.
pub async fn refuse(state: &State, id: JobId, reason: &str, detail: &str) -> Result<(), Error> {
    let mut work = Work::begin(state).await?;
    let job = db::job::find::by_id(work.db(), id).await?;
    if let Some(job) = job.filter(|job| job.status == Status::Queued) {
        let error = if detail.is_empty() {
            reason.to_owned()
        } else {
            format!("{reason}: {detail}")
        };
        let traces = Traces {
            error: Some(error),
            ..Traces::default()
        };
        work.end(&job, Status::Failed, reason, None, &traces)
            .await?;
        work.commit(state).await?;
        let record = Record::new("job.failed", &job, reason, None);
        state.auditor.append(record.kind, &record.fields);
    }
    Ok(())
}
