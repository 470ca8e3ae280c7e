//! Launch tickets: the broker's leave to feed one cell, asked for while the assignment is written down.

use bailey_error::Kind;
use bailey_proto::broker::v1::{MakeTicketRequest, MakeTicketResponse};
use bailey_proto::policy::v1::Allowed;
use bailey_proto::trust::v1::Signed;
use bytes::Bytes;
use tokio::time::Instant;

use super::answered;
use crate::state::State;

/// A ticket with what it is for.
pub(super) struct Ticket {
    /// Signed by the broker.
    pub(super) signed: Signed,
    /// The request with its secrets, encrypted to socket-proxy.
    pub(super) sealed: Bytes,
    /// When it was there.
    pub(super) ready_at: Instant,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotMade {
    /// The broker says no: final for this job.
    Refused(String),
    /// Not by this decision: another may get one.
    Outdated(String),
    /// The broker does not answer, or makes none now.
    Unavailable(String),
}

/// Has the decision consumed for the exact bytes that it is about.
pub(super) async fn make(state: &State, allowed: Allowed) -> Result<Ticket, NotMade> {
    let asked = MakeTicketRequest {
        decision: allowed.decision,
        request: allowed.request,
    };
    let mut broker = state.broker.clone();
    let answer = answered(state, broker.make_ticket(asked)).await;
    let MakeTicketResponse { ticket, sealed } = answer.map_err(|e| not_made(&e))?;
    let signed = ticket.ok_or_else(|| unavailable("an answer without a ticket"))?;
    Ok(Ticket {
        signed,
        sealed,
        ready_at: Instant::now(),
    })
}

fn unavailable(why: &str) -> NotMade {
    NotMade::Unavailable(format!("broker: {why}"))
}

fn not_made(status: &tonic::Status) -> NotMade {
    match Kind::of(status.code()) {
        Kind::InvalidArgument | Kind::PermissionDenied | Kind::NotFound | Kind::AlreadyExists => {
            NotMade::Refused(status.message().to_owned())
        }
        // One call must not keep the others waiting.
        Kind::FailedPrecondition | Kind::Internal => {
            NotMade::Outdated(format!("broker: {}", status.message()))
        }
        Kind::Unauthenticated
        | Kind::ResourceExhausted
        | Kind::Unavailable
        | Kind::DeadlineExceeded => unavailable(status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_this_attempt_is_final() {
        let said = |code| not_made(&tonic::Status::new(code, "no"));
        for code in [tonic::Code::PermissionDenied, tonic::Code::InvalidArgument] {
            assert_eq!(said(code), NotMade::Refused("no".into()));
        }
        for code in [tonic::Code::FailedPrecondition, tonic::Code::Internal] {
            assert_eq!(said(code), NotMade::Outdated("broker: no".into()));
        }
        for code in [
            tonic::Code::Unavailable,
            tonic::Code::ResourceExhausted,
            tonic::Code::DeadlineExceeded,
        ] {
            assert_eq!(said(code), NotMade::Unavailable("broker: no".into()));
        }
    }
}
