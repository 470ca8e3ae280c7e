//! `CustodyService`, on the management socket. Whoever gets here has passed the gate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_error::status;
use bailey_proto::management::v1::custody_service_server::CustodyService;
use bailey_proto::management::v1::{
    AddRecipientRequest, AddRecipientResponse, ExportRequest, ExportResponse,
    ListRecipientsRequest, ListRecipientsResponse, RecipientEntry, RemoveRecipientRequest,
    RemoveRecipientResponse, UnsealRequest, UnsealResponse,
};
use bailey_trust::SealingRecipient;
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{change, denied};
use crate::limiter::Limiter;
use crate::record;
use crate::state::State;
use crate::vault::{Document, Error, State as VaultState, content};

pub struct Custody {
    state: Arc<State>,
    /// Nobody has to prove anything to have the key looked at: so not as often as somebody likes.
    looks: Mutex<Limiter>,
}

impl Custody {
    pub fn new(state: Arc<State>) -> Self {
        let looks = Mutex::new(Limiter::new(10, Duration::from_secs(6)));
        Self { state, looks }
    }
}

#[tonic::async_trait]
impl CustodyService for Custody {
    async fn unseal(&self, _: Request<UnsealRequest>) -> Result<Response<UnsealResponse>, Status> {
        let now = self.state.clock.now();
        let taken = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.take(now)
        };
        if !taken {
            return Err(Status::resource_exhausted(
                "too many tries; the broker looks by itself every few seconds",
            ));
        }
        self.state.unseal();
        // The certificate authority waits for the same key.
        self.state.look.notify_one();
        record::unsealed(&self.state).await;
        let (state, detail) = match self.state.vault.state() {
            VaultState::Open(_) => ("open", String::new()),
            VaultState::NoVault => ("no_vault", String::new()),
            VaultState::Sealed(reason) => ("sealed", reason),
        };
        let state = state.into();
        Ok(Response::new(UnsealResponse { state, detail }))
    }

    async fn list_recipients(
        &self,
        _: Request<ListRecipientsRequest>,
    ) -> Result<Response<ListRecipientsResponse>, Status> {
        let document = self.state.vault.document().map_err(|e| status(&e))?;
        let others = document.recipients.iter();
        let others = others.map(|(recipient, known)| RecipientEntry {
            recipient: recipient.to_string(),
            note: known.note.clone(),
            added_at_ms: known.added_at.0,
        });
        Ok(Response::new(ListRecipientsResponse {
            own: self.state.vault.recipient().to_string(),
            others: others.collect(),
        }))
    }

    async fn add_recipient(
        &self,
        request: Request<AddRecipientRequest>,
    ) -> Result<Response<AddRecipientResponse>, Status> {
        let AddRecipientRequest { recipient, note } = request.into_inner();
        let recipient = recipient_of(&recipient)?;
        let (vault, now) = (&self.state.vault, self.state.clock.now());
        let document = vault.document().map_err(|e| status(&e))?;
        let fields = json!({ "recipient": recipient });
        let adds = document
            .would_add_recipient(vault.recipient(), &recipient, &note)
            .map_err(|e| Error::Refused(e.into()));
        if adds.map_err(|e| denied(&self.state, "add_recipient", &fields, &e))? {
            // Whoever holds that key can read everything: not without a record.
            self.before("vault.recipient_added", &fields).await?;
        }
        let added = change(&self.state, "add_recipient", &fields, |document| {
            Ok(document.add_recipient(vault.recipient(), recipient, note, now)?)
        })?;
        let outcome = if added { "added" } else { "exists" };
        let outcome = outcome.into();
        Ok(Response::new(AddRecipientResponse { outcome }))
    }

    async fn remove_recipient(
        &self,
        request: Request<RemoveRecipientRequest>,
    ) -> Result<Response<RemoveRecipientResponse>, Status> {
        let recipient = recipient_of(&request.into_inner().recipient)?;
        let fields = json!({ "recipient": recipient });
        change(&self.state, "remove_recipient", &fields, |document| {
            Ok(document.remove_recipient(&recipient)?)
        })?;
        self.state.records.note("vault.recipient_removed", &fields);
        Ok(Response::new(RemoveRecipientResponse {}))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        let recipients = request.into_inner().recipients;
        if !(1..=Document::RECIPIENT_LIMIT).contains(&recipients.len()) {
            return Err(Status::invalid_argument(
                "an export is encrypted to 1 to 8 recipients",
            ));
        }
        let readers: Result<Vec<_>, _> = recipients.iter().map(|text| recipient_of(text)).collect();
        let readers = readers?;
        let document = self.state.vault.document().map_err(|e| status(&e))?;
        let fields = json!({ "recipients": readers });
        self.before("vault.exported", &fields).await?;
        let vault = content::seal(&document, &readers).map_err(|e| status(&e))?;
        let vault = vault.into();
        Ok(Response::new(ExportResponse { vault }))
    }
}

impl Custody {
    async fn before(&self, kind: &'static str, fields: &serde_json::Value) -> Result<(), Status> {
        let recorded = self.state.records.before(kind, fields).await;
        recorded.map_err(|e| status(&e))
    }
}

fn recipient_of(text: &str) -> Result<SealingRecipient, Status> {
    text.parse()
        .map_err(|e: bailey_trust::SealError| Status::invalid_argument(e.to_string()))
}
