//! `TicketService`.

use std::sync::Arc;

use bailey_error::{Chain, Classify as _, Kind, status};
use bailey_proto::broker::v1::ticket_service_server::TicketService;
use bailey_proto::broker::v1::{MakeTicketRequest, MakeTicketResponse};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::state::State;
use crate::ticket::{Asked, Made, Now, Reason, Refused};
use crate::vault;

pub struct Tickets {
    state: Arc<State>,
}

impl Tickets {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn refused(&self, refused: &Refused) -> Status {
        let reason = refused.reason.token();
        tracing::warn!(
            ticket.refused = reason,
            "refused a launch ticket: {refused}"
        );
        let mut fields = refused.record.clone();
        fields.insert("reason".into(), json!(reason));
        // What passes by itself is not the caller's doing and would only fill the log.
        if refused.kind() != Kind::Unavailable {
            self.state.records.refusal("ticket.refused", &fields.into());
        }
        status(refused)
    }
}

#[tonic::async_trait]
impl TicketService for Tickets {
    async fn make_ticket(
        &self,
        request: Request<MakeTicketRequest>,
    ) -> Result<Response<MakeTicketResponse>, Status> {
        let (request, state) = (request.into_inner(), Arc::clone(&self.state));
        // Up to 10 MiB are parsed, hashed and encrypted: not on the thread that serves everybody.
        let made = tokio::task::spawn_blocking(move || make(&state, &request)).await;
        let made = made.map_err(|e| {
            tracing::error!(error = %e, "making a launch ticket panicked");
            Status::internal("internal error")
        })?;
        let Made {
            ticket,
            sealed,
            record,
        } = made.map_err(|refused| self.refused(&refused))?;
        self.state
            .records
            .before("ticket.made", &record.into())
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(MakeTicketResponse {
            ticket: Some(ticket),
            sealed: sealed.into(),
        }))
    }
}

fn make(state: &State, request: &MakeTicketRequest) -> Result<Made, Refused> {
    let decision = request.decision.as_ref();
    let decision =
        decision.ok_or_else(|| Refused::early(Reason::BadDecision, "a decision is needed"))?;
    let lock = state.lock.current();
    let lock = lock.map_err(|e| Refused::early(Reason::NoLock, Chain(&e).to_string()))?;
    let document = match state.vault.state() {
        vault::State::NoVault => None,
        vault::State::Open(document) => Some(document),
        vault::State::Sealed(reason) => return Err(Refused::early(Reason::VaultSealed, reason)),
    };
    let asked = Asked {
        decision,
        request: &request.request,
        container: &request.container_id,
    };
    let now = Now {
        time: state.clock.now(),
        lock: &lock,
        vault: document.as_deref(),
    };
    state.office.make(&asked, &now)
}
