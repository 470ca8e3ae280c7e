//! Changing the vault: what gives needs its record first; what takes away is done at once, and told as soon as the audit log takes it.
//!
//! The change is worked out on a copy. If it gives anybody anything, the audit log takes the record of it, and then it is written: killed in
//! between, the log has a record of something that was not done, one too many, never one too few. If it only takes away, its record is in the
//! vault by the same write, and told before anything else is.

use bailey_error::{Chain, Classify, Kind, status};
use serde_json::{Value as Json, json};
use tonic::Status;

use crate::record::{self, Attempt, NotRecorded, Record};
use crate::state::State;
use crate::vault::{Deed, Document, Error as VaultError, Planned, Refused};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Against the vault's rules, or the vault cannot be written.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Without a record it must not happen.
    #[error("{0}; nothing was changed: try again")]
    NotRecorded(#[from] NotRecorded),
    /// A change that nobody would hear of.
    #[error("a change of the vault without a record was not made")]
    Silent,
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Vault(error) => error.kind(),
            Self::NotRecorded(error) => error.kind(),
            Self::Silent => Kind::Internal,
        }
    }
}

/// Changes the vault, once the audit log has what `records` says of the outcome; at once, if that only takes away.
pub async fn recorded<T: Send>(
    state: &State,
    change: impl FnOnce(&mut Document) -> Result<T, Refused> + Send,
    records: impl FnOnce(&T) -> Vec<Record> + Send,
) -> Result<T, Error> {
    // One at a time: what is recorded is what then is done, in that order.
    let _alone = state.changing.lock().await;
    let mut planned = state.vault.plan(change)?;
    let records = records(&planned.outcome);
    if records.is_empty() {
        return match planned.revision() {
            None => Ok(planned.outcome),
            Some(_) => Err(Error::Silent),
        };
    }
    if planned.only_takes_away() {
        return taken_away(state, planned, records).await;
    }
    record::catch_up(state).await?;
    state.vault.rebase(&mut planned)?;
    let attempt = state.records.about_to(records, planned.revision()).await?;
    settled(attempt, state.vault.commit(planned))
}

/// Does what must wait for nobody, with the record of it in the same write.
async fn taken_away<T: Send>(
    state: &State,
    mut planned: Planned<T>,
    records: Vec<Record>,
) -> Result<T, Error> {
    let now = state.clock.now();
    for record in records {
        let deed = Deed::taking(record.kind).ok_or(Error::Silent)?;
        let Json::Object(fields) = record.fields else {
            return Err(Error::Silent);
        };
        planned.note(|document| document.tell_later(deed, fields, now));
    }
    let outcome = state.vault.commit(planned)?;
    if let Err(e) = record::catch_up(state).await {
        tracing::warn!(error = %Chain(&e), "something was revoked or removed, and the audit log is told as soon as it takes it");
    }
    Ok(outcome)
}

/// Says what became of something that is on record already.
pub fn settled<T>(attempt: Attempt<'_>, done: Result<T, VaultError>) -> Result<T, Error> {
    match &done {
        Ok(_) => attempt.done(),
        Err(VaultError::Uncertain(_)) => attempt.maybe_done(),
        // Dropped, it counts as not done.
        Err(_) => {}
    }
    Ok(done?)
}

/// As [`recorded`], for a call. A refusal is recorded with what was asked.
pub async fn asked<T: Send>(
    state: &State,
    operation: &'static str,
    asked: &Json,
    change: impl FnOnce(&mut Document) -> Result<T, Refused> + Send,
    records: impl FnOnce(&T) -> Vec<Record> + Send,
) -> Result<T, Status> {
    match recorded(state, change, records).await {
        Ok(outcome) => Ok(outcome),
        Err(Error::Vault(VaultError::Refused(why))) => Err(refused(state, operation, asked, &why)),
        Err(error) => Err(status(&error)),
    }
}

/// The answer to what the vault's rules forbid, which is recorded.
pub fn refused(state: &State, operation: &'static str, asked: &Json, why: &Refused) -> Status {
    denied(state, operation, asked, why.token());
    status(why)
}

/// Records what a change left out, since the vault's rules forbid it.
pub fn left_out(state: &State, operation: &'static str, asked: &Json, why: &Refused) {
    denied(state, operation, asked, why.token());
}

/// The answer to what cannot be understood, which is recorded.
pub fn malformed(state: &State, operation: &'static str, why: String) -> Status {
    denied(state, operation, &json!({}), "malformed");
    Status::invalid_argument(why)
}

fn denied(state: &State, operation: &'static str, asked: &Json, reason: &str) {
    let record = Record::new("vault.refused", asked.clone())
        .with("operation", operation)
        .with("reason", reason);
    state.records.refusal(record.kind, &record.fields);
}
