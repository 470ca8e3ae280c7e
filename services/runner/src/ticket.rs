//! Launch tickets: the broker's leave to feed one container.

use std::future::Future;
use std::time::Duration;

use bailey_error::Kind;
use bailey_proto::broker::v1::MakeTicketRequest;
use bailey_proto::broker::v1::ticket_service_client::TicketServiceClient;
use bailey_proto::trust::v1::Signed;
use bytes::Bytes;

use crate::rpc::Channel;

/// The broker opens the vault once per ticket; on a machine that works this takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// A request of 10 MiB, its secrets, and what age adds.
const MESSAGE_LIMIT_BYTES: usize = 20 << 20;

/// Why there is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The broker says no: final for this attempt.
    #[error("{0}")]
    Refused(String),
    /// The broker does not answer, or not now.
    #[error("broker: {0}")]
    Unavailable(String),
}

/// A ticket with what it is for.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Signed by the broker.
    pub ticket: Signed,
    /// The request with its secrets, encrypted to socket-proxy.
    pub sealed: Bytes,
}

/// Whoever makes tickets.
pub trait Tickets: Send + Sync + 'static {
    /// Consumes `decision` for the exact bytes of `request` and this container.
    fn make(
        &self,
        decision: Signed,
        request: Bytes,
        container_id: &str,
    ) -> impl Future<Output = Result<Ticket, Error>> + Send;
}

/// The broker, over the mesh.
#[derive(Clone)]
pub struct Broker {
    client: TicketServiceClient<Channel>,
}

impl Broker {
    /// The broker behind this channel.
    pub fn new(channel: Channel) -> Self {
        let client = TicketServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
        Self { client }
    }
}

impl Tickets for Broker {
    async fn make(
        &self,
        decision: Signed,
        request: Bytes,
        container_id: &str,
    ) -> Result<Ticket, Error> {
        let container_id = container_id.to_owned();
        let asked = MakeTicketRequest {
            decision: Some(decision),
            request,
            container_id,
        };
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(LIMIT, client.make_ticket(asked)).await;
        let made = match answer {
            Ok(Ok(made)) => made.into_inner(),
            Ok(Err(status)) => return Err(refusal(&status)),
            Err(_) => return Err(Error::Unavailable(format!("no answer within {LIMIT:?}"))),
        };
        let ticket = made
            .ticket
            .ok_or_else(|| Error::Refused("the broker's answer holds no ticket".into()))?;
        Ok(Ticket {
            ticket,
            sealed: made.sealed,
        })
    }
}

fn refusal(status: &tonic::Status) -> Error {
    match Kind::of(status.code()) {
        Kind::InvalidArgument | Kind::PermissionDenied | Kind::NotFound | Kind::AlreadyExists => {
            Error::Refused(status.message().to_owned())
        }
        Kind::Unauthenticated
        | Kind::FailedPrecondition
        | Kind::ResourceExhausted
        | Kind::Unavailable
        | Kind::DeadlineExceeded
        | Kind::Internal => Error::Unavailable(status.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_about_this_attempt_is_final() {
        let said = |code| refusal(&tonic::Status::new(code, "no"));
        for code in [tonic::Code::PermissionDenied, tonic::Code::InvalidArgument] {
            assert_eq!(said(code), Error::Refused("no".into()));
        }
        for code in [
            tonic::Code::Unavailable,
            tonic::Code::FailedPrecondition,
            tonic::Code::Internal,
        ] {
            assert_eq!(said(code), Error::Unavailable("no".into()));
        }
    }
}
