//! Why a call of the runner is not done, and how that is said to it.

use http::StatusCode;

use crate::engine;

/// Why a call is not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It must not be: final, and audited.
    #[error("{0}")]
    Refused(String),
    /// No container of that id was made here, or it is gone.
    #[error("this proxy made no such container")]
    NoSuchContainer,
    /// There is nothing to measure: no cell of the plugin has kept anything yet.
    #[error("the plugin keeps nothing yet")]
    NoState,
    /// It may be right, but not under the lock as it is here: reading the lock again may help.
    #[error("{0}")]
    NotNow(String),
    /// The engine did not do it.
    #[error("{0}")]
    Engine(#[from] engine::Error),
}

impl Error {
    /// A refusal.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::NoSuchContainer | Self::NoState => StatusCode::NOT_FOUND,
            Self::NotNow(_) => StatusCode::CONFLICT,
            Self::Engine(error) => match error {
                engine::Error::Unreachable(_) | engine::Error::TooOld(_) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                engine::Error::Answered { status, .. } => *status,
                engine::Error::Unreadable(_) => StatusCode::BAD_GATEWAY,
            },
        }
    }

    /// Whether it goes into the audit log.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NoSuchContainer => true,
            Self::NoState | Self::NotNow(_) | Self::Engine(_) => false,
        }
    }
}
