//! What can go wrong for a caller.

use bailey_error::{Classify, Kind};

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{found} entries were sent; 1 to {most} are allowed")]
    Count { found: usize, most: usize },
    #[error("entry {place} is refused: {reason}")]
    BadEntry { place: usize, reason: String },
    #[error("{found} entries were asked for; 1 to {most} are allowed")]
    Limit { found: u32, most: u32 },
    #[error("{found} kinds were asked for; 1 to {most} are allowed")]
    Kinds { found: usize, most: usize },
    #[error(
        "audit's volume is almost full (less than 1 GiB, or than a tenth of a small one, is free): only allows are recorded until there is more room"
    )]
    Reserved,
    #[error("the log has {size} entries, fewer than the {known} that the caller knows")]
    WentBack { known: u64, size: u64 },
    #[error("only policy and broker co-sign")]
    NotACosigner,
    #[error("audit is stopping")]
    Stopping,
    #[error("too many requests wait for audit")]
    Busy,
    #[error("nothing can be recorded at present")]
    Unwritten(String),
    #[error("the log refuses it")]
    Log(#[from] bailey_audit_log::Error),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Count { .. }
            | Self::BadEntry { .. }
            | Self::Limit { .. }
            | Self::Kinds { .. } => Kind::InvalidArgument,
            Self::Reserved | Self::Busy => Kind::ResourceExhausted,
            Self::WentBack { .. } => Kind::FailedPrecondition,
            Self::NotACosigner => Kind::PermissionDenied,
            Self::Stopping | Self::Unwritten(_) => Kind::Unavailable,
            Self::Log(error) => log_kind(error),
        }
    }
}

fn log_kind(error: &bailey_audit_log::Error) -> Kind {
    use bailey_audit_log::Error;
    match error {
        // A full or failing disk: the operator sees it in the health line, the caller may try again.
        Error::Io { .. } => Kind::Unavailable,
        Error::Note(_) | Error::TooLarge(_) => Kind::InvalidArgument,
        Error::NotOurs(_) | Error::Beyond { .. } => Kind::FailedPrecondition,
        Error::InUse(_) | Error::Damaged(_) | Error::Tree(_) | Error::Json(_) => Kind::Internal,
    }
}
