//! Changing the vault: what gives needs its record first; what takes away is done at once, and told as soon as the audit log takes it.
//!
//! The change is worked out on a copy. If it gives anybody anything, the audit log takes the record of it, and then it is written: killed in
//! between, the log has a record of something that was not done, one too many, never one too few. If it only takes away, its record is in the
//! vault by the same write, and told before anything else is.

use std::time::Duration;

use bailey_error::{Chain, Classify, Kind, status};
use bailey_types::Timestamp;
use serde_json::{Value as Json, json};
use tonic::Status;

use crate::proof;
use crate::record::{Attempt, NotRecorded, Record};
use crate::state::State;
use crate::telling;
use crate::vault::{Deed, Document, Error as VaultError, Planned, Refused};

/// Longest that whoever took something away is kept until the audit log has it.
const LONGEST_TOLD: Duration = Duration::from_secs(5);

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
    let mut alone = state.changing.lock().await;
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
    if state.vault.unproven().is_some() {
        // Whoever takes something away meanwhile does not wait for the log.
        drop(alone);
        proof::awaited(state).await?;
        alone = state.changing.lock().await;
    }
    telling::catch_up(state).await?;
    state.vault.rebase(&mut planned)?;
    let attempt = state.records.about_to(records, planned.revision()).await?;
    let outcome = settled(attempt, state.vault.commit(planned))?;
    drop(alone);
    telling::kept(state);
    Ok(outcome)
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
    let told = tokio::time::timeout(LONGEST_TOLD, telling::catch_up(state)).await;
    let why = match told {
        Ok(Ok(())) => return Ok(outcome),
        Ok(Err(e)) => Chain(&e).to_string(),
        Err(_) => "it does not answer".to_owned(),
    };
    tracing::warn!(
        error = why,
        "something was revoked or removed, and the audit log is told as soon as it takes it"
    );
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

/// One call that changes the vault: what it is called, and of what it is asked. Whatever is refused of it is recorded with both.
pub struct Verb<'a> {
    state: &'a State,
    operation: &'static str,
    asked: Json,
}

impl<'a> Verb<'a> {
    /// A call of which nothing is understood yet.
    pub fn new(state: &'a State, operation: &'static str) -> Self {
        Self {
            state,
            operation,
            asked: json!({}),
        }
    }

    /// The same call, of this.
    #[must_use]
    pub fn of(self, asked: Json) -> Self {
        Self { asked, ..self }
    }

    /// As [`recorded`]: the change gets the time, the records what was asked.
    pub async fn does<T: Send>(
        self,
        change: impl FnOnce(&mut Document, Timestamp) -> Result<T, Refused> + Send,
        records: impl FnOnce(&Json, &T) -> Vec<Record> + Send,
    ) -> Result<T, Status> {
        let now = self.state.clock.now();
        let done = recorded(
            self.state,
            |document| change(document, now),
            |outcome| records(&self.asked, outcome),
        );
        done.await.map_err(|error| match error {
            Error::Vault(VaultError::Refused(why)) => self.refused(&why),
            error @ (Error::Vault(_) | Error::NotRecorded(_) | Error::Silent) => status(&error),
        })
    }

    /// The answer to what the vault's rules forbid.
    pub fn refused(&self, why: &Refused) -> Status {
        self.left_out(why);
        status(why)
    }

    /// Records what a change left out, since the vault's rules forbid it.
    pub fn left_out(&self, why: &Refused) {
        self.denied(why.token());
    }

    /// The answer to what cannot be understood.
    pub fn malformed(&self, why: String) -> Status {
        self.denied("malformed");
        Status::invalid_argument(why)
    }

    fn denied(&self, reason: &str) {
        let record = Record::new("vault.refused", self.asked.clone())
            .with("operation", self.operation)
            .with("reason", reason);
        self.state.records.refusal(record.kind, &record.fields);
    }
}
