//! What an attempt came to, and what becomes of its job (reference: ductile 1.5, 4.6 and 5).

use std::time::Duration;

use bailey_plugin::protocol::{self, Failure, OutEvent, Outcome, Reason, Success};
use bailey_proto::engine::v1::report_request::Outcome as Reported;
use bailey_proto::engine::v1::{Finished, TimedOut};
use bailey_trust::strict_json;
use bailey_types::Timestamp;

use crate::db::job::Traces;
use crate::job::{Job, LogLine, Status};
use crate::work::Retry;

/// Largest payload of a plugin's event, bytes. It is in the next step's request twice, which is to stay below 10 MiB.
pub const MAX_EVENT_PAYLOAD_BYTES: usize = 4 << 20;

/// Longest wait before an attempt that does not count is made again.
const MAX_UNCOUNTED_WAIT: Duration = Duration::from_mins(1);

/// Token of an attempt that ended because its runner did, as it should.
pub const STOPPED: &str = "stopped";

/// Token of an attempt that nobody answers for any more.
pub const LEASE_LOST: &str = "lease_lost";

/// What an attempt came to.
#[derive(Debug)]
pub enum Verdict {
    /// Its response is good.
    Succeeded {
        /// The response.
        success: Success,
        /// What is left of it.
        traces: Traces,
    },
    /// Anything else that happened to the plugin.
    Failed(Failed),
    /// The cell never got its request.
    NotStarted(String),
}

/// An attempt that failed.
#[derive(Debug)]
pub struct Failed {
    /// A stable token.
    pub token: &'static str,
    /// What is left of it, the error among it.
    pub traces: Traces,
    /// Whether trying again may help.
    pub again: Again,
    /// What the job is if this was its only try.
    pub only_try: Status,
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It may.
    MayHelp,
    /// It never does.
    Useless,
}

impl Failed {
    /// A failure for good, which is not the plugin's own.
    pub fn for_good(token: &'static str, error: String) -> Self {
        let traces = Traces {
            error: Some(error),
            ..Traces::default()
        };
        Self {
            token,
            traces,
            again: Again::Useless,
            only_try: Status::Failed,
        }
    }

    /// A failure that is not the plugin's own, and may pass.
    pub fn passing(token: &'static str, error: String) -> Self {
        Self {
            again: Again::MayHelp,
            ..Self::for_good(token, error)
        }
    }
}

/// What a runner's report means.
pub fn judge(reported: Reported, timeout: Duration) -> Verdict {
    match reported {
        Reported::Finished(finished) => judge_finished(&finished),
        Reported::TimedOut(TimedOut { stderr, killed }) => {
            let how = if killed { "; it had to be killed" } else { "" };
            let mut failed = Failed::passing(
                Reason::Timeout.as_str(),
                format!("timed out after {timeout:?}{how}"),
            );
            failed.only_try = Status::TimedOut;
            failed.traces.stderr = text(&stderr);
            Verdict::Failed(failed)
        }
        Reported::NotStarted(not_started) => Verdict::NotStarted(not_started.reason),
        Reported::Lost(lost) => {
            let (token, error) = if lost.stopped {
                let error = "the runner was stopped, and the cell with it".to_owned();
                (STOPPED, error)
            } else {
                ("lost", format!("the cell was lost: {}", lost.reason))
            };
            let mut failed = Failed::passing(token, error);
            failed.traces.stderr = text(&lost.stderr);
            Verdict::Failed(failed)
        }
        Reported::Refused(said) => Verdict::Failed(refused(&said.reason)),
        // Only services are looked at so.
        Reported::Unhealthy(unhealthy) => {
            let mut failed = Failed::passing("unhealthy", unhealthy.reason);
            failed.traces.stderr = text(&unhealthy.stderr);
            Verdict::Failed(failed)
        }
    }
}

/// A cell that gets nothing, now or later: broker or socket-proxy have said so.
pub fn refused(reason: &str) -> Failed {
    Failed::for_good("refused", format!("the launch was refused: {reason}"))
}

/// What a runner's report of a service means: however it ended, it should not have.
pub fn judge_lasting(reported: Reported) -> Verdict {
    let finished = match reported {
        Reported::Finished(finished) => finished,
        other @ (Reported::TimedOut(_)
        | Reported::NotStarted(_)
        | Reported::Lost(_)
        | Reported::Refused(_)
        | Reported::Unhealthy(_)) => return judge(other, Duration::ZERO),
    };
    let error = if finished.out_of_memory {
        "it ran out of memory".to_owned()
    } else {
        format!("it ended with exit code {}", finished.exit_code)
    };
    let mut failed = Failed::passing("exited", error);
    failed.traces.stderr = text(&finished.stderr);
    Verdict::Failed(failed)
}

fn judge_finished(finished: &Finished) -> Verdict {
    let stderr = text(&finished.stderr);
    match protocol::parse_response(&finished.stdout, Some(finished.exit_code.into())) {
        Outcome::Succeeded(success) => match unsound(&success) {
            None => {
                let traces = Traces {
                    error: None,
                    stderr,
                    logs: lines(&success.logs),
                };
                Verdict::Succeeded { success, traces }
            }
            Some(problem) => {
                let failure = Failure {
                    reason: Reason::SpawnError,
                    error: problem,
                    logs: success.logs,
                };
                Verdict::Failed(failed(failure, stderr))
            }
        },
        Outcome::Failed(mut failure) => {
            if finished.out_of_memory {
                failure.error = format!("out of memory ({})", failure.error);
            } else if finished.exit_code != 0 && failure.reason != Reason::PluginError {
                failure.error = format!("{} (exit code {})", failure.error, finished.exit_code);
            }
            Verdict::Failed(failed(failure, stderr))
        }
    }
}

fn failed(failure: Failure, stderr: Option<String>) -> Failed {
    Failed {
        token: failure.reason.as_str(),
        again: if failure.reason.is_retryable() {
            Again::MayHelp
        } else {
            Again::Useless
        },
        traces: Traces {
            error: Some(failure.error),
            stderr,
            logs: lines(&failure.logs),
        },
        only_try: Status::Failed,
    }
}

/// Why a response cannot be worked with: policy refuses a later request that carries such JSON, so its sender should hear of it now.
pub fn unsound(success: &Success) -> Option<String> {
    let check = |what: String, value: Result<Vec<u8>, serde_json::Error>| {
        let checked = value.map_err(|e| e.to_string()).and_then(|text| {
            // A payload is three levels deep in the request that carries it.
            strict_json::check(&[b"[[[", text.as_slice(), b"]]]"].concat())
                .map_err(|e| e.to_string())
        });
        checked
            .err()
            .map(|problem| format!("decode response: {what}: {problem}"))
    };
    let event = |(nth, event): (usize, &OutEvent)| {
        let too_long = event
            .dedupe_key
            .as_ref()
            .is_some_and(|key| key.len() > crate::intake::MAX_TEXT_BYTES);
        if too_long {
            return Some(format!(
                "decode response: events[{nth}]: its dedupe_key is too long"
            ));
        }
        let payload = serde_json::to_vec(&event.payload);
        if payload
            .as_ref()
            .is_ok_and(|text| text.len() > MAX_EVENT_PAYLOAD_BYTES)
        {
            return Some(format!(
                "decode response: events[{nth}]: its payload is larger than 4 MiB"
            ));
        }
        check(format!("events[{nth}]"), payload)
    };
    let events = success.events.iter().enumerate().find_map(event);
    events.or_else(|| {
        let state = success.state_updates.as_ref()?;
        check("state_updates".to_owned(), serde_json::to_vec(state))
    })
}

/// What becomes of a job.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It is tried again.
    Again(Retry),
    /// It has ended.
    End(Status),
}

/// What becomes of a job whose attempt failed. `base` is the operator's backoff, `luck` is between 0 and 1.
pub fn fate(job: &Job, failed: &Failed, base: Duration, luck: f64, now: Timestamp) -> Fate {
    if failed.again == Again::Useless {
        return Fate::End(Status::Failed);
    }
    if job.tries() < job.max_attempts {
        let not_before = now.plus(backoff(base, job.tries(), luck));
        return Fate::Again(Retry {
            not_before,
            uncounted: job.uncounted,
        });
    }
    // With a single try nothing was used up: it failed, or it took too long.
    Fate::End(if job.max_attempts > 1 {
        Status::Dead
    } else {
        failed.only_try
    })
}

/// When an attempt that does not count is made again: soon, and less so each time.
pub fn uncounted(job: &Job, now: Timestamp) -> Retry {
    let wait = Duration::from_secs(1)
        .saturating_mul(1 << job.uncounted.min(6))
        .min(MAX_UNCOUNTED_WAIT);
    Retry {
        not_before: now.plus(wait),
        uncounted: job.uncounted.saturating_add(1),
    }
}

/// base × 2^(tries − 1) + rand[0, base/4].
pub fn backoff(base: Duration, tries: u32, luck: f64) -> Duration {
    let doubled = base.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
    doubled.saturating_add((base / 4).mul_f64(luck.clamp(0.0, 1.0)))
}

/// A plugin's log lines as they are kept.
pub fn lines(logs: &[protocol::Log]) -> Vec<LogLine> {
    let line = |log: &protocol::Log| LogLine {
        level: log.level.as_str().to_owned(),
        message: log.message.clone(),
    };
    logs.iter().map(line).collect()
}

/// Standard error as it is kept; `None` where there is none.
pub fn text(stderr: &[u8]) -> Option<String> {
    let kept = stderr.get(..protocol::MAX_STDERR_BYTES).unwrap_or(stderr);
    (!kept.is_empty()).then(|| String::from_utf8_lossy(kept).into_owned())
}

#[cfg(test)]
mod tests;
