//! The end of a service's attempt: it is started again, unless the lock does not have it any more.

use std::time::Duration;

use bailey_proto::engine::v1::Timings;

use super::{Error, Record, line};
use crate::db;
use crate::db::job::Traces;
use crate::job::{Job, LogLine, Status};
use crate::outcome::{self, Verdict};
use crate::service::{self, Wanted};
use crate::work::{Retry, Work};

/// Token of an attempt that ended because somebody asked for another.
const RESTARTED: &str = "restart";

/// A cell that has run this long and ends with its runner is made anew at once. One that has not may be what brings the runner down, or a
/// runner may only say so: that costs a pause, as any end.
const BEGUN_WELL: Duration = Duration::from_secs(10);

/// Why a job that lasts ends if what is kept of it beside its row in the queue is gone.
pub const NOT_KEPT: (&str, &str) = (
    "service_missing",
    "what the engine keeps of a service is missing for this job; the scheduler puts the service in anew within a minute",
);

/// Settles it; the verdict only says what is to be written down. Beside it, how long each phase took, and since how long nobody has answered.
pub(super) async fn settle(
    work: &mut Work,
    job: &Job,
    verdict: Verdict,
    (timings, silent): (Timings, Duration),
) -> Result<Record, Error> {
    let has_begun = !matches!(verdict, Verdict::NotStarted(_));
    let (token, error, stderr) = match verdict {
        Verdict::Succeeded { traces, .. } => ("exited", traces.error, traces.stderr),
        Verdict::Failed(failed) => (failed.token, failed.traces.error, failed.traces.stderr),
        Verdict::NotStarted(reason) => ("not_started", Some(reason), None),
    };
    let Some(service) = db::service::find(work.db(), job.id).await? else {
        work.close_attempt(job, token, timings).await?;
        return end_broken(work, job).await;
    };
    let traces = |error: Option<String>| Traces {
        logs: line::with(&job.logs, error.as_deref().map(|error| ended(token, error))),
        error,
        stderr: stderr.clone(),
    };
    if service.wanted.is_end() {
        let (reason, traces) = (service.wanted.name(), traces(None));
        work.close_attempt(job, reason, timings).await?;
        let result = job.result.as_deref();
        work.end(job, Status::Cancelled, reason, result, &traces)
            .await?;
        return Ok(Record::new("service.ended", job, reason, None));
    }
    let now = work.now();
    let leased = job
        .started_at
        .map_or(Duration::ZERO, |started| now.since(started));
    let ran = ran(leased.saturating_sub(silent), &timings);
    let again = |wait| Retry {
        not_before: now.plus(wait),
        uncounted: 0,
    };
    let at_once = again(Duration::ZERO);
    let (reason, traces, retry, failures) = match service.wanted {
        // However it ended: it was asked to.
        Wanted::Restart => (RESTARTED, traces(None), at_once, 0),
        // What happened to its runner says nothing of it.
        Wanted::Run | Wanted::Replaced | Wanted::Removed
            if matches!(token, outcome::STOPPED | outcome::LEASE_LOST) && ran >= BEGUN_WELL =>
        {
            (token, traces(None), at_once, service.failures)
        }
        Wanted::Run | Wanted::Replaced | Wanted::Removed if has_begun => {
            let (wait, failures) = service::pause(service.failures, ran);
            (token, traces(error), again(wait), failures)
        }
        // What kept it from beginning is not the plugin's.
        Wanted::Run | Wanted::Replaced | Wanted::Removed => {
            let retry = outcome::uncounted(job, now);
            (token, traces(error), retry, service.failures)
        }
    };
    work.close_attempt(job, reason, timings).await?;
    work.retry(job, reason, &retry, &traces).await?;
    db::service::ended(work.db(), job, failures).await?;
    Ok(Record::new("service.restarting", job, reason, None))
}

/// Ends a job that lasts and of which nothing else is known: what is locked is put in anew within a minute.
async fn end_broken(work: &mut Work, job: &Job) -> Result<Record, Error> {
    let (reason, error) = NOT_KEPT;
    let traces = Traces {
        error: Some(format!("{reason}: {error}")),
        ..Traces::default()
    };
    work.end(job, Status::Failed, reason, None, &traces).await?;
    Ok(Record::new("job.failed", job, reason, None))
}

/// How long its cell ran: as long as it was leased, but for what its runner needed to begin.
fn ran(leased: Duration, timings: &Timings) -> Duration {
    let phases = [timings.create_us, timings.ticket_us, timings.start_us];
    let phases = phases.map(|phase| Duration::from_micros(u64::try_from(phase).unwrap_or(0)));
    phases.into_iter().fold(leased, Duration::saturating_sub)
}

fn ended(token: &str, error: &str) -> LogLine {
    LogLine {
        level: "error".to_owned(),
        message: format!("{token}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_not_run_while_it_was_made() {
        let minute = Duration::from_mins(1);
        let timings = Timings {
            create_us: 10_000_000,
            ticket_us: 2_000_000,
            start_us: 3_000_000,
            ..Timings::default()
        };
        assert_eq!(ran(minute, &timings), Duration::from_secs(45));
        assert_eq!(ran(minute, &Timings::default()), minute);
        assert_eq!(ran(Duration::from_secs(1), &timings), Duration::ZERO);
    }
}
