//! `TicketService`.

use std::sync::Arc;

use bailey_error::{Chain, Classify as _, Kind, status};
use bailey_proto::broker::v1::ticket_service_server::TicketService;
use bailey_proto::broker::v1::{MakeTicketRequest, MakeTicketResponse};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::state::State;
use crate::ticket::{Asked, Granted, Made, Now, Reason, Refused};
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
        let small = request.request.len() <= SMALL_BYTES;
        let granted = at_once(small, &self.state, move |state| grant(state, &request)).await?;
        let granted = granted.map_err(|refused| self.refused(&refused))?;
        let (delivers, record) = (granted.delivers, granted.record.clone().into());
        let making = at_once(small, &self.state, move |state| state.office.make(&granted));
        let records = &self.state.records;
        let made = if delivers {
            // No value leaves the vault before audit has it on disk which. While audit writes, the ticket is made.
            let (recorded, made) = tokio::join!(records.before("ticket.made", &record), making);
            recorded.map_err(|e| status(&e))?;
            made
        } else {
            // That the call is allowed is on disk already: policy does not decide before it is.
            records.note("ticket.made", &record);
            making.await
        };
        let Made { ticket, sealed } = made?.map_err(|refused| self.refused(&refused))?;
        Ok(Response::new(MakeTicketResponse {
            ticket: Some(ticket),
            sealed: sealed.into(),
        }))
    }
}

/// Works on this thread, or on another what takes long.
async fn at_once<T: Send + 'static>(
    here: bool,
    state: &Arc<State>,
    work: impl FnOnce(&State) -> T + Send + 'static,
) -> Result<T, Status> {
    if here {
        // Less than the way to another thread and back.
        return Ok(work(state));
    }
    let state = Arc::clone(state);
    let done = tokio::task::spawn_blocking(move || work(&state)).await;
    done.map_err(|e| {
        tracing::error!(error = %e, "making a launch ticket panicked");
        Status::internal("internal error")
    })
}

fn grant(state: &State, request: &MakeTicketRequest) -> Result<Granted, Refused> {
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
    };
    let now = Now {
        time: state.clock.now(),
        lock: &lock,
        vault: document.as_deref(),
    };
    state.office.grant(&asked, &now)
}
