//! Why an exchange fails, in sentences that say what to do.

use std::net::IpAddr;
use std::time::Duration;

use bailey_error::{Classify, Kind};
use tonic::Status;

use super::rate::Spent;

/// As the header of HTTP (RFC 9110, section 10.2.3).
const RETRY_AFTER: &str = "retry-after";

/// An exchange with `upstream` that failed.
#[derive(Debug, thiserror::Error)]
#[error("the upstream {upstream}: {why}")]
pub(crate) struct Failure {
    pub(crate) upstream: String,
    pub(crate) why: Why,
}

/// Why. Nothing in it comes from the upstream, which may put there what it was sent; nothing from a path or a body.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Why {
    /// The request breaks a rule.
    #[error("{0}")]
    Asked(String),
    /// Nobody configured it.
    #[error("no such upstream is locked: list it under `upstreams:` and run `bailey config lock`")]
    NoSuch,
    /// It is for others.
    #[error("{client} is not among its clients: name it in `clients:`")]
    NotAClient { client: &'static str },
    /// What says who asked for a check does not say it.
    #[error("it is not known who asked for the check: {0}; ask again")]
    Origin(String),
    /// Nothing is in force.
    #[error("nothing can be sent without a usable lock: {0}")]
    NoLock(String),
    /// The vault does not give it.
    #[error(
        "the broker does not release the secret {secret} for it ({said}): `bailey status` says what is missing, the audit log what was refused"
    )]
    KeyRefused { secret: String, said: String },
    /// It cannot be sent, or not be found again.
    #[error("the secret {secret} cannot be sent as a key: {reason}")]
    KeyUnusable {
        secret: String,
        reason: &'static str,
    },
    /// Whoever has it is away.
    #[error("its key cannot be had now: {0}")]
    Broker(String),
    /// There is a lock that the broker, or this service, has not read yet.
    #[error("the broker and egress-proxy go by different locks for now: try again")]
    LocksDiffer,
    /// No place among its own.
    #[error(
        "{most} exchanges with it are open, which is as many as `max_concurrent` allows: try again later"
    )]
    Busy { most: u32 },
    /// No place among its own that is not kept for others.
    #[error(
        "{most} exchanges of {client} with it are open; the rest of what `max_concurrent` allows is kept for its other client: try again later"
    )]
    ShareBusy { client: &'static str, most: u32 },
    /// Its turn is taken, or waited for.
    #[error(
        "an exchange of {client} with it is open, or waits for its turn, and `max_concurrent` is 1: try again later"
    )]
    Turn { client: &'static str },
    /// Its turn did not come.
    #[error("its turn did not come within the `timeout` of {}: `max_concurrent` is 1, and its other client had it: try again later", bailey_yaml::Span(*.0))]
    NoTurn(Duration),
    /// More than its rate.
    #[error(
        "{client} begins more exchanges with it than its `rate` of {} allows: try again in {} s, or raise it",
        .spent.rate, seconds(.spent.wait)
    )]
    Rate { client: &'static str, spent: Spent },
    /// The same of checks.
    #[error("it is checked more often than {} allows: try again in {} s", .0.rate, seconds(.0.wait))]
    Checks(Spent),
    /// The same among all.
    #[error(
        "{most} exchanges of {client} with upstreams are open, which is as many as one client may have: try again later"
    )]
    AllShareBusy { client: &'static str, most: usize },
    /// No place among all.
    #[error(
        "{most} exchanges with upstreams are open, which is as many as there may be: try again later"
    )]
    AllBusy { most: usize },
    /// Private without having been listed so.
    #[error(
        "its name leads to a private address, as only names do that your own resolver alone knows: write `address:` with the one that is meant"
    )]
    Private,
    /// A name for what is on this side.
    #[error(
        "its name leads to this host, or into a network of the stack itself: if that is meant, write `address:` with the one that is meant"
    )]
    Inside,
    /// Nobody may speak to what was written down.
    #[error(
        "nothing is ever sent to {0}, which is this very host, everybody or nobody: correct `address:` or the url"
    )]
    Forbidden(IpAddr),
    /// The name has no address.
    #[error("its name leads nowhere: {0}")]
    Unresolved(String),
    /// Nobody answers there.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Somebody answers, who may be somebody else.
    #[error("TLS: {0}")]
    Untrusted(String),
    /// TLS broke off.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The answer cannot be searched for the key.
    #[error(
        "it answered with an encoding ({0}) although none was asked for, and what is encoded cannot be searched for the key"
    )]
    Encoded(&'static str),
    /// The same of a part.
    #[error(
        "it answered with a part (206) although the whole was asked for, and a key of which only a part comes cannot be found"
    )]
    Partial,
    /// More than is taken.
    #[error("its {part} is larger than {most}, which is as much as is taken")]
    TooLarge {
        part: &'static str,
        most: &'static str,
    },
    /// It did not keep to the protocol, or hung up.
    #[error("{0}")]
    Broke(&'static str),
    /// Its time is over.
    #[error("the exchange took longer than its `timeout` of {}", bailey_yaml::Span(*.0))]
    Time(Duration),
    /// The client did not say what it wants.
    #[error("the client did not say within {} what it wants", bailey_yaml::Span(*.0))]
    Silent(Duration),
    /// Nor did others of its.
    #[error("{most} requests of {client} have not said yet what they want: try again later")]
    Unsaid { client: &'static str, most: usize },
    /// The lock changed or took it away.
    #[error("a new lock changed or removed it: ask again")]
    Relocked,
    /// This service stops.
    #[error("egress-proxy is stopping: try again")]
    Stopping,
    /// Nobody waits for the answer.
    #[error("the client went away")]
    ClientGone,
}

impl Why {
    /// The failure of an exchange with `upstream`.
    pub(crate) fn of(self, upstream: &str) -> Failure {
        Failure {
            upstream: upstream.to_owned(),
            why: self,
        }
    }

    /// Whether only another request, or another configuration, would help.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.kind(),
            Kind::InvalidArgument
                | Kind::NotFound
                | Kind::PermissionDenied
                | Kind::FailedPrecondition
                | Kind::ResourceExhausted
        )
    }
}

impl Classify for Why {
    fn kind(&self) -> Kind {
        match self {
            Self::Asked(_) => Kind::InvalidArgument,
            Self::NoSuch => Kind::NotFound,
            Self::NotAClient { .. } | Self::Origin(_) => Kind::PermissionDenied,
            Self::NoLock(_)
            | Self::KeyRefused { .. }
            | Self::KeyUnusable { .. }
            | Self::Private
            | Self::Inside
            | Self::Forbidden(_)
            | Self::Untrusted(_)
            | Self::Encoded(_)
            | Self::Partial
            | Self::TooLarge { .. } => Kind::FailedPrecondition,
            Self::Busy { .. }
            | Self::ShareBusy { .. }
            | Self::Turn { .. }
            | Self::NoTurn(_)
            | Self::Rate { .. }
            | Self::Checks(_)
            | Self::AllBusy { .. }
            | Self::Unsaid { .. }
            | Self::AllShareBusy { .. } => Kind::ResourceExhausted,
            Self::Time(_) | Self::Silent(_) => Kind::DeadlineExceeded,
            Self::Broker(_)
            | Self::LocksDiffer
            | Self::Unresolved(_)
            | Self::Unreachable(_)
            | Self::Tls(_)
            | Self::Broke(_)
            | Self::Relocked
            | Self::Stopping
            | Self::ClientGone => Kind::Unavailable,
        }
    }
}

impl Classify for Failure {
    fn kind(&self) -> Kind {
        self.why.kind()
    }
}

impl Failure {
    /// As its client gets it; `retry-after` says in how many seconds it may try again, where that is known.
    pub(crate) fn status(&self) -> Status {
        let mut status = bailey_error::status(self);
        if let Why::Rate { spent, .. } | Why::Checks(spent) = &self.why {
            let after = seconds(spent.wait).into();
            status.metadata_mut().insert(RETRY_AFTER, after);
        }
        status
    }
}

/// Whole seconds, of which the last counts.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
