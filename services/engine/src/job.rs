//! What a job is, while it is in hand.

use std::fmt;
use std::str::FromStr;

use bailey_proto::trust::v1::Signed;
use bailey_types::{
    CommandName, EventId, EventType, JobId, PipelineName, PluginName, StepId, Timestamp,
};
use serde::{Deserialize, Serialize};

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waits for its turn, or for its next try.
    Queued,
    /// A runner holds its lease.
    Running,
    /// Its result is in.
    Succeeded,
    /// Ended for good: trying again is pointless or was not wanted.
    Failed,
    /// Its only try took too long.
    TimedOut,
    /// All tries are used up.
    Dead,
    /// Was not to be run.
    Skipped,
    /// Somebody stopped it.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: &'static [Self] = &[
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Dead,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// Its one name, in the database and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Dead => "dead",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to the job.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded
            | Self::Failed
            | Self::TimedOut
            | Self::Dead
            | Self::Skipped
            | Self::Cancelled => true,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Status {
    type Err = BadStatus;

    fn from_str(text: &str) -> Result<Self, BadStatus> {
        let status = Self::ALL.iter().find(|status| status.name() == text);
        status.copied().ok_or_else(|| BadStatus(text.to_owned()))
    }
}

/// What is not the name of a status.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a status of a job")]
pub struct BadStatus(String);

/// A job as it is kept, without what it is asked with.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// The plugin, or an alias of one.
    pub plugin: PluginName,
    /// The command.
    pub command: CommandName,
    /// Where it is.
    pub status: Status,
    /// Number of the current lease; of the next one while queued. Never given twice.
    pub attempt: u32,
    /// How many of the earlier leases do not count.
    pub uncounted: u32,
    /// How many tries it has; 0: it lasts, and is started again for as long as its plugin is locked as a service.
    pub max_attempts: u32,
    /// Who put it in: "api", "schedule:<id>", "route".
    pub submitted_by: String,
    /// Empty: none.
    pub dedupe_key: String,
    /// When it was put in.
    pub created_at: Timestamp,
    /// When its current or last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub completed_at: Option<Timestamp>,
    /// Not before.
    pub next_retry_at: Option<Timestamp>,
    /// Why it alone waits; empty: it does not.
    pub waiting_for: String,
    /// Text `result` of the response.
    pub result: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What the last attempt wrote to stderr.
    pub stderr: Option<String>,
    /// The plugin's own log lines of the last attempt.
    pub logs: Vec<LogLine>,
    /// Whose event started it.
    pub parent: Option<JobId>,
    /// Which event started it.
    pub source_event: Option<EventId>,
    /// The pipeline's step it is.
    pub place: Option<Place>,
    /// How many steps of its pipeline instance lead to it.
    pub route_depth: u32,
    /// How many pipeline instances lead to it, its own included.
    pub generation: u32,
    /// Who asked for the root of its tree.
    pub principal: String,
    /// Id of the decision of the last attempt.
    pub decision: Option<String>,
    /// Instance of the runner that holds its lease.
    pub runner: Option<String>,
}

impl Job {
    /// Whether it is a service.
    pub fn lasts(&self) -> bool {
        self.max_attempts == 0
    }

    /// How many tries have counted, the current one included.
    pub fn tries(&self) -> u32 {
        self.attempt.saturating_sub(self.uncounted)
    }
}

/// Where in a pipeline a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pipeline.
    pub pipeline: PipelineName,
    /// The step.
    pub step: StepId,
    /// One run of the pipeline.
    pub instance: String,
    /// Type of the event that the step follows from.
    pub event_type: EventType,
    /// Its place among the events of the parent's result.
    pub event_index: u32,
}

/// A line of the plugin's `logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// debug, info, warn or error.
    pub level: String,
    /// The text.
    pub message: String,
}

/// The signed statement a job rests on, to be shown to policy at each attempt.
#[derive(Clone, Debug)]
pub enum AskedBy {
    /// Root job: who asked.
    Origin(Signed),
    /// Later step: the decision of its parent's successful attempt.
    ParentDecision(Signed),
}

/// What a job is asked with.
#[derive(Clone, Debug)]
pub struct Input {
    /// JSON object text, exactly as it came; for `handle` the event's envelope.
    pub payload: String,
    /// Baggage, JSON object text.
    pub context: String,
    /// Why it may run.
    pub asked_by: AskedBy,
}

/// A job that is about to be put in.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its identity.
    pub id: JobId,
    /// The plugin.
    pub plugin: PluginName,
    /// The command.
    pub command: CommandName,
    /// How many tries it has; 0: it lasts.
    pub max_attempts: u32,
    /// Who puts it in.
    pub submitted_by: String,
    /// Empty: none.
    pub dedupe_key: String,
    /// Whose event started it.
    pub parent: Option<JobId>,
    /// Which event started it.
    pub source_event: Option<EventId>,
    /// The pipeline's step it is.
    pub place: Option<Place>,
    /// How many steps of its pipeline instance lead to it.
    pub route_depth: u32,
    /// How many pipeline instances lead to it, its own included.
    pub generation: u32,
    /// Who asked for the root of its tree.
    pub principal: String,
    /// What it is asked with.
    pub input: Input,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_back_from_its_name() {
        for status in Status::ALL {
            assert_eq!(status.name().parse::<Status>().unwrap(), *status);
        }
        assert!("done".parse::<Status>().is_err());
    }
}
