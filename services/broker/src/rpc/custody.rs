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

use crate::change::{self, Verb};
use crate::limiter::Limiter;
use crate::proof;
use crate::record::Record;
use crate::state::State;
use crate::vault::{Document, State as VaultState};

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
        self.state.unseal().await;
        // The certificate authority waits for the same key.
        self.state.look.notify_one();
        proof::tried(&self.state).await;
        let (state, detail) = match self.state.vault.state() {
            VaultState::Open(_) => ("open", String::new()),
            VaultState::Sealed(reason) if self.state.vault.unproven().is_some() => ("open", reason),
            VaultState::NoVault => (
                "no_vault",
                self.state.lost_vault().unwrap_or_default().to_owned(),
            ),
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
        let verb = Verb::new(&self.state, "add_recipient");
        let recipient = understood(&verb, &recipient)?;
        let own = self.state.vault.recipient();
        let verb = verb.of(json!({ "recipient": recipient }));
        let added = verb.does(
            |document, now| Ok(document.add_recipient(own, recipient, note, now)?),
            |fields, added| {
                let record = added.then(|| Record::new("vault.recipient_added", fields.clone()));
                record.into_iter().collect()
            },
        );
        let outcome = if added.await? { "added" } else { "exists" };
        let outcome = outcome.into();
        Ok(Response::new(AddRecipientResponse { outcome }))
    }

    async fn remove_recipient(
        &self,
        request: Request<RemoveRecipientRequest>,
    ) -> Result<Response<RemoveRecipientResponse>, Status> {
        let recipient = request.into_inner().recipient;
        let verb = Verb::new(&self.state, "remove_recipient");
        let recipient = understood(&verb, &recipient)?;
        let verb = verb.of(json!({ "recipient": recipient }));
        let removed = verb.does(
            |document, _| Ok(document.remove_recipient(&recipient)?),
            |fields, ()| vec![Record::new("vault.recipient_removed", fields.clone())],
        );
        removed.await?;
        Ok(Response::new(RemoveRecipientResponse {}))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<ExportResponse>, Status> {
        let recipients = request.into_inner().recipients;
        let verb = Verb::new(&self.state, "export");
        if !(1..=Document::RECIPIENT_LIMIT).contains(&recipients.len()) {
            let why = "an export is encrypted to 1 to 8 recipients".to_owned();
            return Err(verb.malformed(why));
        }
        let readers: Result<Vec<_>, _> = recipients
            .iter()
            .map(|text| understood(&verb, text))
            .collect();
        let readers = readers?;
        // What is not the vault of now does not leave; what cannot be made is not recorded as made; nor does what is not recorded leave.
        let proven = proof::awaited(&self.state).await;
        proven.map_err(|e| status(&change::Error::from(e)))?;
        let vault = self.state.vault.export(&readers);
        let vault = vault.map_err(|e| status(&e))?.into();
        let fields = json!({ "recipients": readers });
        let recorded = self.state.records.before("vault.exported", &fields).await;
        recorded.map_err(|e| status(&change::Error::from(e)))?;
        Ok(Response::new(ExportResponse { vault }))
    }
}

fn understood(verb: &Verb<'_>, text: &str) -> Result<SealingRecipient, Status> {
    let parsed = text.parse();
    parsed.map_err(|e: bailey_trust::SealError| verb.malformed(e.to_string()))
}
