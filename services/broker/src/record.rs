//! What the broker tells the audit log: names, never values.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bailey_error::{Chain, Classify, Kind};
use bailey_mesh::Auditor;
use serde_json::{Value as Json, json};

use crate::state::State;
use crate::vault::Offline;

/// Why a deed was not recorded, and so must not be done.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The broker is not on the mesh: it has no certificate while the age key cannot be read.
    #[error("nothing can be recorded in the audit log while the broker is sealed")]
    NotOnTheMesh,
    /// audit is away, or refuses.
    #[error("the audit log did not take the record: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
}

impl Classify for NotRecorded {
    fn kind(&self) -> Kind {
        match self {
            Self::NotOnTheMesh | Self::Refused(_) => Kind::Unavailable,
        }
    }
}

/// The way to the audit log, once there is one.
#[derive(Default)]
pub struct Records {
    auditor: OnceLock<Auditor>,
    /// Deeds that the audit log has, while the vault could not note it: on a failing disk they would be told every few seconds.
    told: Mutex<Vec<Offline>>,
}

impl Records {
    /// The broker is on the mesh now.
    pub fn open(&self, auditor: Auditor) {
        if self.auditor.set(auditor).is_err() {
            tracing::warn!("the way to the audit log was open already");
        }
    }

    /// Records something that happened, as soon as audit takes it.
    pub fn note(&self, kind: &'static str, fields: &Json) {
        match self.auditor.get() {
            Some(auditor) => auditor.append(kind, fields),
            None => unrecorded(kind, fields),
        }
    }

    /// Records a refusal. Equal ones may be folded.
    pub fn refusal(&self, kind: &'static str, fields: &Json) {
        match self.auditor.get() {
            Some(auditor) => auditor.append_refusal(kind, fields),
            None => unrecorded(kind, fields),
        }
    }

    /// Records something before it happens. Without the record it must not.
    pub async fn before(&self, kind: &'static str, fields: &Json) -> Result<(), NotRecorded> {
        let auditor = self.auditor.get().ok_or(NotRecorded::NotOnTheMesh)?;
        let appended = auditor.append_now(kind, fields).await;
        appended
            .map(|_| ())
            .map_err(|status| NotRecorded::Refused(Box::new(status)))
    }

    /// Records what was done offline, once. Whether the audit log has it.
    async fn tell(&self, done: &Offline) -> bool {
        if self.told().contains(done) {
            return true;
        }
        let fields = json!({ "at": done.at.to_rfc3339() });
        if let Err(e) = self.before(done.deed.kind(), &fields).await {
            tracing::info!(error = %Chain(&e), "not in the audit log yet: {}", done.deed.kind());
            return false;
        }
        self.told().push(done.clone());
        true
    }

    fn told(&self) -> MutexGuard<'_, Vec<Offline>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the audit log that the vault was unsealed, as soon as it can be told.
pub async fn unsealed(state: &State) {
    if !state.unsealed.swap(false, Ordering::Relaxed) {
        return;
    }
    if let Err(e) = state.records.before("vault.unsealed", &json!({})).await {
        tracing::info!(error = %Chain(&e), "not in the audit log yet: vault.unsealed");
        state.unsealed.store(true, Ordering::Relaxed);
    }
}

/// Tells the audit log what was done while the broker did not run; what it does not take now, it is told next time.
pub async fn offline(state: &State) {
    let Ok(document) = state.vault.document() else {
        return;
    };
    if document.unrecorded.is_empty() {
        return;
    }
    let mut taken = Vec::new();
    for done in &document.unrecorded {
        if !state.records.tell(done).await {
            break;
        }
        taken.push(done.clone());
    }
    let forgotten = state.vault.change(|document| {
        document.recorded(&taken);
        Ok(())
    });
    match forgotten {
        Ok(()) => state.records.told().retain(|done| !taken.contains(done)),
        // After a restart it is recorded twice rather than not at all.
        Err(e) => tracing::warn!(error = %Chain(&e), "could not note what the audit log has"),
    }
}

/// Only the management socket is served while there is no mesh: the log line is all there is.
fn unrecorded(kind: &str, fields: &Json) {
    tracing::warn!(audit.kind = kind, audit.fields = %fields, "not in the audit log: {kind}");
}

#[cfg(test)]
mod tests {
    use bailey_types::Timestamp;

    use super::*;
    use crate::vault::Deed;

    /// There is no way to the log here: whatever would be told again fails.
    #[tokio::test]
    async fn what_the_audit_log_has_is_not_told_again() {
        let done = |at| Offline {
            deed: Deed::Restored,
            at: Timestamp(at),
        };
        let records = Records::default();
        assert!(!records.tell(&done(1)).await);
        records.told().push(done(1));
        assert!(records.tell(&done(1)).await);
        assert!(!records.tell(&done(2)).await);
    }
}
