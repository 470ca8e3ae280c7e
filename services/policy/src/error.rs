//! Why there is no decision, neither way. The engine asks again.

use bailey_audit_log::{NoteError, ProofError};
use bailey_error::{Classify, Kind};
use bailey_trust::{LockSourceError, StatementError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The question itself is malformed: a mistake of the engine's, not of a caller's.
    #[error("the request to decide is malformed: {0}")]
    Malformed(String),
    #[error("asking the broker for its epoch")]
    Epoch(#[source] tonic::Status),
    /// The engine keeps the job, and asks again.
    #[error("nothing is decided now: {0}")]
    Held(String),
    #[error("audit does not record the decision, so it is not given")]
    Audit(#[source] tonic::Status),
    #[error("audit did not answer in time, so no decision is given")]
    AuditSlow,
    #[error("audit's checkpoint is refused, so no decision is given")]
    Checkpoint(#[from] NoteError),
    #[error("audit's log does not continue what was known of it, so no decision is given")]
    Inconsistent(#[from] ProofError),
    #[error(
        "audit's checkpoint covers {size} entries and not the {end} that it says it has, so no decision is given"
    )]
    Uncovered { size: u64, end: u64 },
    #[error("too many decisions wait to be recorded")]
    Busy,
    /// What another decision of the same record met.
    #[error("no decision is given: {0}")]
    Unrecorded(String),
    #[error("policy is stopping")]
    Stopping,
    #[error("reading the lock")]
    Lock(#[source] LockSourceError),
    #[error("using policy.db")]
    Db(#[from] sqlx::Error),
    #[error("writing JSON")]
    Json(#[from] serde_json::Error),
    #[error("looking at the plugin's folder")]
    Folder(#[source] tokio::task::JoinError),
    #[error("signing the decision")]
    Sign(#[source] StatementError),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_) => Kind::InvalidArgument,
            Self::Epoch(_)
            | Self::Held(_)
            | Self::Audit(_)
            | Self::AuditSlow
            | Self::Checkpoint(_)
            | Self::Inconsistent(_)
            | Self::Uncovered { .. }
            | Self::Unrecorded(_)
            | Self::Stopping
            | Self::Lock(_) => Kind::Unavailable,
            Self::Busy => Kind::ResourceExhausted,
            Self::Db(_) | Self::Json(_) | Self::Folder(_) | Self::Sign(_) => Kind::Internal,
        }
    }
}
