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

/// Requests up to this size are sealed where they came in: up to 10 MiB are parsed, hashed and encrypted, which would keep everybody waiting.
const SMALL_BYTES: usize = 16 << 10;

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
        let request = request.into_inner();
        let made = if request.request.len() <= SMALL_BYTES {
            // Less than the way to another thread and back.
            make(&self.state, &request)
        } else {
            let state = Arc::clone(&self.state);
            let made = tokio::task::spawn_blocking(move || make(&state, &request)).await;
            made.map_err(|e| {
                tracing::error!(error = %e, "making a launch ticket panicked");
                Status::internal("internal error")
            })?
        };
        let made = made.map_err(|refused| self.refused(&refused))?;
        let Made {
            ticket,
            sealed,
            delivers,
            record,
        } = made;
        let (records, record) = (&self.state.records, record.into());
        if delivers {
            // No value leaves the vault before audit has it on disk which.
            let recorded = records.before("ticket.made", &record).await;
            recorded.map_err(|e| status(&e))?;
        } else {
            // That the call is allowed is on disk already: policy does not decide before it is.
            records.note("ticket.made", &record);
        }
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
