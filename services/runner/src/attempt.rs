//! One attempt of one job: what is asked for, what may stop it, what becomes of it.

use std::time::Duration;

use bailey_cell::launch::{Envelope, Returned};
use bailey_types::{AttemptNumber, JobId, PluginName};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::container::Cell;
use crate::docker::{Error, Meaning};
use crate::kept::Key;
use crate::watch::Stop;

/// How long a running cell is let be when the runner stops. The rest of the runner's own time is for removing it.
const PARTING: Duration = Duration::from_secs(2);

/// One attempt of one job, as the engine assigned it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The job.
    pub job: JobId,
    /// Which attempt of it.
    pub number: AttemptNumber,
    /// The plugin.
    pub plugin: PluginName,
    /// Policy's decision, the broker's ticket for it, and the request as only socket-proxy can read it.
    pub envelope: Envelope,
    /// How long the engine waited for the ticket alone.
    pub ticket: Duration,
    /// How long the plugin may take; nothing where it lasts.
    pub time: Duration,
    /// Whether it runs until it ends by itself or is cancelled.
    pub lasts: bool,
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The plugin answered, or ended by itself (or was killed for printing too much).
    Finished {
        /// At most one byte more than allowed.
        stdout: Bytes,
        /// At most what is kept.
        stderr: Bytes,
        /// Its exit code; 0 where it had answered before it ended.
        exit_code: i64,
        /// Whether it ran out of memory.
        out_of_memory: bool,
    },
    /// Its time was over.
    TimedOut {
        /// At most what is kept.
        stderr: Bytes,
        /// Whether it had to be killed.
        killed: bool,
    },
    /// It never got its request: does not count.
    NotStarted(Trouble),
    /// It was started, and nobody knows what it did.
    Lost {
        /// Why.
        reason: String,
        /// At most what is kept.
        stderr: Bytes,
        /// Whether only the runner was stopped, and it with it.
        stopped: bool,
    },
    /// Refused: final.
    Refused(String),
    /// It lasts, and was ended because it was not well.
    Unhealthy {
        /// Why.
        reason: String,
        /// The last that was kept.
        stderr: Bytes,
    },
}

/// Why an attempt could not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Docker or socket-proxy.
    Docker(String),
    /// This attempt only.
    Other(String),
}

impl Trouble {
    /// One sentence for people.
    pub fn sentence(&self) -> &str {
        match self {
            Self::Docker(text) | Self::Other(text) => text,
        }
    }
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        let text = error.sentence();
        match error.meaning() {
            Meaning::Unwell => Self::Docker(text),
            Meaning::OtherLock | Meaning::Gone | Meaning::Refused => Self::Other(text),
        }
    }
}

/// How the container of an attempt came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKind {
    /// Made for this attempt, with everything of its own.
    Cold,
    /// Made for this attempt, in a network namespace that was there.
    Held,
    /// Started before there was an attempt.
    Warm,
}

impl StartKind {
    /// As in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Held => "held",
            Self::Warm => "warm",
        }
    }
}

/// How long each phase took; zero where it did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// How its container came to be; `None` where there was none.
    pub kind: Option<StartKind>,
    /// Making and attaching, its holder too where it got one of its own.
    pub create: Duration,
    /// What the engine waited for the broker's ticket alone.
    pub ticket: Duration,
    /// Until socket-proxy had taken the request, and starting where it did not run.
    pub start: Duration,
    /// From the request to the answer, or to the end.
    pub run: Duration,
}

/// One attempt, done.
pub struct Done {
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub timings: Timings,
    /// The secrets that the plugin printed.
    pub returned: Vec<Returned>,
    /// Its container, to be parted with; `None` where there is none.
    pub remains: Option<Remains>,
}

/// The container of an attempt that is done.
pub struct Remains {
    /// The container.
    pub cell: Cell,
    /// Whose it is.
    pub plugin: PluginName,
    /// As what.
    pub key: Key,
    /// How it is parted with.
    pub parting: Parting,
}

/// How a cell is parted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// It has answered: it may end by itself.
    Gentle,
    /// At once.
    Prompt,
}

/// What stops a cell early.
#[derive(Clone, Debug)]
pub struct Stops {
    /// The engine takes the job back.
    pub cancelled: CancellationToken,
    /// The runner stops.
    pub stopping: CancellationToken,
}

impl Stops {
    /// Before the launch there is nothing worth waiting for.
    pub async fn at_once(&self) -> Stop {
        tokio::select! {
            () = self.cancelled.cancelled() => Stop::Cancelled,
            () = self.stopping.cancelled() => Stop::Stopping,
        }
    }

    /// A running cell may use the little time that a stopping runner has.
    pub async fn with_grace(self) -> Stop {
        let parted = async {
            self.stopping.cancelled().await;
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            () = self.cancelled.cancelled() => Stop::Cancelled,
            () = parted => Stop::Stopping,
        }
    }
}
