#![doc = include_str!("../README.md")]

use std::error::Error;
use std::fmt;

use http::StatusCode;
use tonic::Code;

/// What a failure means to the one who asked. Nothing finer goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed, whatever the state of the service.
    InvalidArgument,
    /// Nobody knows who asks.
    Unauthenticated,
    /// The one who asks may not.
    PermissionDenied,
    /// There is no such thing, or the caller may not know of it.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// Right request, wrong moment: something else must happen first.
    FailedPrecondition,
    /// A limit is reached; later it may work.
    ResourceExhausted,
    /// A neighbour or the service itself is away; trying again is right.
    Unavailable,
    /// The time that was given is over.
    DeadlineExceeded,
    /// Our fault. The caller learns nothing, the log everything.
    Internal,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::ResourceExhausted,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Internal,
    ];

    /// The HTTP status of this kind.
    pub const fn http(self) -> StatusCode {
        self.wire().0
    }

    /// The gRPC code of this kind.
    pub const fn grpc(self) -> Code {
        self.wire().1
    }

    /// The kind that a peer's gRPC code stands for: what a service makes of an error of its neighbour's.
    pub fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Unavailable | Code::Aborted | Code::Cancelled => Self::Unavailable,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                Self::Internal
            }
        }
    }

    /// The only table onto the wire.
    const fn wire(self) -> (StatusCode, Code) {
        match self {
            Self::InvalidArgument => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            Self::PermissionDenied => (StatusCode::FORBIDDEN, Code::PermissionDenied),
            Self::NotFound => (StatusCode::NOT_FOUND, Code::NotFound),
            Self::AlreadyExists => (StatusCode::CONFLICT, Code::AlreadyExists),
            Self::FailedPrecondition => (StatusCode::PRECONDITION_FAILED, Code::FailedPrecondition),
            Self::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Self::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        }
    }
}

/// An error that knows what it means to the one who asked.
pub trait Classify: Error {
    /// Its kind. Implementations match without a `_` arm, so that a new variant must choose.
    fn kind(&self) -> Kind;
}

/// What a client may see of `error`: its own sentence, or nothing but "internal error". An internal one is logged here, with its sources.
pub fn status<E: Classify>(error: &E) -> tonic::Status {
    let kind = error.kind();
    if kind == Kind::Internal {
        tracing::error!(error = %Chain(error), "a request failed: {}", Chain(error));
        return tonic::Status::new(kind.grpc(), "internal error");
    }
    tonic::Status::new(kind.grpc(), error.to_string())
}

/// An error with its sources, joined by ": ". A source whose text its outer error already ends with is not repeated.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Errors of other crates often print their source themselves.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Example {
        #[error("no such door")]
        NoDoor,
        #[error("opening the door")]
        Open(#[source] std::io::Error),
        #[error("talking: {0}")]
        Chatty(#[source] std::io::Error),
    }

    impl Classify for Example {
        fn kind(&self) -> Kind {
            match self {
                Self::NoDoor => Kind::NotFound,
                Self::Open(_) | Self::Chatty(_) => Kind::Internal,
            }
        }
    }

    #[test]
    fn every_kind_has_a_code_and_a_status_of_its_own() {
        let codes: BTreeSet<i32> = Kind::ALL.iter().map(|kind| kind.grpc().into()).collect();
        let statuses: BTreeSet<u16> = Kind::ALL.iter().map(|kind| kind.http().as_u16()).collect();
        assert_eq!(
            (codes.len(), statuses.len()),
            (Kind::ALL.len(), Kind::ALL.len())
        );
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.grpc()), *kind);
        }
    }

    #[test]
    fn a_chain_prints_each_source_once() {
        let io = || std::io::Error::other("it is stuck");
        assert_eq!(
            Chain(&Example::Open(io())).to_string(),
            "opening the door: it is stuck"
        );
        assert_eq!(
            Chain(&Example::Chatty(io())).to_string(),
            "talking: it is stuck"
        );
    }

    #[test]
    fn a_client_sees_the_sentence_but_nothing_of_an_internal_error() {
        let seen = status(&Example::NoDoor);
        assert_eq!(
            (seen.code(), seen.message()),
            (Code::NotFound, "no such door")
        );
        let hidden = status(&Example::Open(std::io::Error::other("secret")));
        assert_eq!(
            (hidden.code(), hidden.message()),
            (Code::Internal, "internal error")
        );
    }
}
