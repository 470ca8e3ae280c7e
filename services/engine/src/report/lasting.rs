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

/// Settles it; the verdict only says what is to be written down.
pub(super) async fn settle(
    work: &mut Work,
    job: &Job,
    verdict: Verdict,
    timings: Timings,
) -> Result<Record, Error> {
    let has_begun = !matches!(verdict, Verdict::NotStarted(_));
    let (token, error, stderr) = match verdict {
        Verdict::Succeeded { traces, .. } => ("exited", traces.error, traces.stderr),
        Verdict::Failed(failed) => (failed.token, failed.traces.error, failed.traces.stderr),
        Verdict::NotStarted(reason) => ("not_started", Some(reason), None),
    };
    work.close_attempt(job, token, timings).await?;
    let service = db::service::find(work.db(), job.id).await?;
    let service = service.ok_or_else(|| db::corrupt(format!("{} is no service", job.id)))?;
    let traces = |error: Option<String>| Traces {
        logs: line::with(&job.logs, error.as_deref().map(|error| ended(token, error))),
        error,
        stderr: stderr.clone(),
    };
    if service.wanted.is_end() {
        let (reason, traces) = (service.wanted.name(), traces(None));
        work.end(
            job,
            Status::Cancelled,
            reason,
            job.result.as_deref(),
            &traces,
        )
        .await?;
        return Ok(Record::new("service.ended", job, reason, None));
    }
    let now = work.now();
    let leased = job
        .started_at
        .map_or(Duration::ZERO, |started| now.since(started));
    let again = |wait| Retry {
        not_before: now.plus(wait),
        uncounted: 0,
    };
    let (reason, traces, retry, failures) = match service.wanted {
        Wanted::Restart => ("restart", traces(None), again(Duration::ZERO), 0),
        Wanted::Run | Wanted::Replaced | Wanted::Removed if has_begun => {
            let (wait, failures) = service::pause(service.failures, ran(leased, &timings));
            (token, traces(error), again(wait), failures)
        }
        // What kept it from beginning is not the plugin's.
        Wanted::Run | Wanted::Replaced | Wanted::Removed => {
            let retry = outcome::uncounted(job, now);
            (token, traces(error), retry, service.failures)
        }
    };
    work.retry(job, reason, &retry, &traces).await?;
    db::service::ended(work.db(), job, failures).await?;
    Ok(Record::new("service.restarting", job, reason, None))
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
