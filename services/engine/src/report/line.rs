//! One line of a running service: applied at once and for good, like the answer of a call that is over.

use bailey_plugin::protocol::{self, Failure, LogLevel, MAX_LINE_BYTES, Outcome, Reason, Success};

use super::{Error, is_current, success};
use crate::db;
use crate::fleet::Lease;
use crate::job::{Job, LogLine};
use crate::outcome;
use crate::service::Service;
use crate::state::State;
use crate::work::Work;

/// Log lines that are kept of a job that lasts, and characters of each: its row must not grow for as long as it runs.
const KEPT_LOGS: usize = 100;
const MAX_LOG_CHARS: usize = 2000;

/// What a line changes in the job's own row.
#[derive(Default)]
struct Note {
    result: Option<String>,
    error: Option<String>,
    logs: Vec<LogLine>,
}

/// Takes a line. One that was taken before is accepted and changes nothing.
pub async fn take(state: &State, lease: Lease, number: u64, line: &[u8]) -> Result<(), Error> {
    if line.len() > MAX_LINE_BYTES {
        return Err(Error::LongLine);
    }
    // Up to 1 MiB of JSON: not inside the transaction, which others wait for.
    let said = match protocol::parse_line(line) {
        Outcome::Succeeded(success) => match outcome::unsound(&success) {
            None => Ok(success),
            Some(problem) => Err(Failure::new(Reason::SpawnError, problem)),
        },
        Outcome::Failed(failure) => Err(failure),
    };
    if said.as_ref().is_ok_and(Success::is_heartbeat) {
        let mut look = state.db.look().await?;
        let job = db::job::find::by_id(&mut look, lease.0).await?;
        return current(job, lease).map(|_| ());
    }
    let mut work = Work::begin(state).await?;
    let job = current(db::job::find::by_id(work.db(), lease.0).await?, lease)?;
    let service = db::service::find(work.db(), job.id).await?;
    let service = service.ok_or(Error::Over(lease.0, lease.1))?;
    if number <= service.lines_taken {
        return Ok(());
    }
    let (note, next_event_index) = match said {
        Ok(success) => apply(state, &mut work, &job, &service, success).await?,
        Err(failure) => (complaint(number, failure), service.next_event_index),
    };
    let logs = with(&job.logs, note.logs);
    let (result, error) = (note.result.as_deref(), note.error.as_deref());
    db::service::note(work.db(), job.id, (result, error), &logs).await?;
    db::service::take_line(work.db(), job.id, number, next_event_index).await?;
    work.commit(state).await?;
    Ok(())
}

fn current(job: Option<Job>, (id, attempt): Lease) -> Result<Job, Error> {
    job.filter(|job| job.lasts() && is_current(job, attempt))
        .ok_or(Error::Over(id, attempt))
}

/// Applies a good line; answers the index of the next event, too.
async fn apply(
    state: &State,
    work: &mut Work,
    job: &Job,
    service: &Service,
    said: Success,
) -> Result<(Note, u32), Error> {
    let logs = outcome::lines(&said.logs);
    let first = service.next_event_index;
    let prepared = match success::prepare(state, work, job, said).await? {
        Ok(prepared) => prepared,
        Err(failed) => {
            let error = failed.traces.error.unwrap_or_default();
            let mut note = failure(LogLevel::Error, error);
            note.logs.splice(0..0, logs);
            return Ok((note, first));
        }
    };
    let events = u32::try_from(prepared.events()).ok();
    let next = events.and_then(|events| first.checked_add(events));
    let next = next.ok_or_else(|| Error::Numbers(job.plugin.clone()))?;
    let result = success::apply(work, job, prepared, first).await?;
    let note = Note {
        result: (!result.is_empty()).then_some(result),
        error: None,
        logs,
    };
    Ok((note, next))
}

/// What is kept of a line that is no good response.
fn complaint(number: u64, said: Failure) -> Note {
    let mut note = match said.reason {
        Reason::PluginError | Reason::PluginRetryFalse => failure(LogLevel::Error, said.error),
        Reason::ExitCode78
        | Reason::Timeout
        | Reason::SpawnError
        | Reason::NilResponse
        | Reason::AttemptsExhausted => {
            let error = format!("line {number}: {}", said.error);
            failure(LogLevel::Warn, error)
        }
    };
    note.logs.splice(0..0, outcome::lines(&said.logs));
    note
}

fn failure(level: LogLevel, error: String) -> Note {
    let line = LogLine {
        level: level.as_str().to_owned(),
        message: error.clone(),
    };
    Note {
        result: None,
        error: Some(error),
        logs: vec![line],
    }
}

/// The last lines of these and of what comes behind them.
pub(super) fn with(kept: &[LogLine], more: impl IntoIterator<Item = LogLine>) -> Vec<LogLine> {
    let mut all = kept.to_vec();
    all.extend(more.into_iter().map(|line| LogLine {
        message: line.message.chars().take(MAX_LOG_CHARS).collect(),
        ..line
    }));
    let old = all.len().saturating_sub(KEPT_LOGS);
    all.split_off(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept_and_not_all_of_long_ones() {
        let line = |nth: usize| LogLine {
            level: "info".to_owned(),
            message: nth.to_string(),
        };
        let mut kept = Vec::new();
        for nth in 0..250 {
            kept = with(&kept, [line(nth)]);
        }
        assert_eq!(kept.len(), KEPT_LOGS);
        assert_eq!(kept[0].message, "150");
        assert_eq!(kept[KEPT_LOGS - 1].message, "249");
        let long = LogLine {
            level: "info".to_owned(),
            message: "ö".repeat(3 * MAX_LOG_CHARS),
        };
        assert_eq!(with(&[], [long])[0].message.chars().count(), MAX_LOG_CHARS);
    }

    #[test]
    fn what_is_no_response_is_a_warning_and_what_says_error_is_one() {
        let of = |line: &[u8]| match protocol::parse_line(line) {
            Outcome::Failed(failure) => complaint(7, failure),
            Outcome::Succeeded(success) => panic!("{success:?}"),
        };
        let garbage = of(b"Listening on port 80");
        assert_eq!(garbage.logs[0].level, "warn");
        assert!(
            garbage
                .error
                .unwrap()
                .starts_with("line 7: decode response")
        );
        let error = of(br#"{"status":"error","error":"disk gone","logs":[{"message":"hm"}]}"#);
        assert_eq!(
            (error.logs[0].message.as_str(), error.logs[1].level.as_str()),
            ("hm", "error")
        );
        assert_eq!(error.error.as_deref(), Some("disk gone"));
    }
}
