//! What the broker tells the audit log: names, never values.

use std::sync::OnceLock;

use bailey_error::{Classify, Kind};
use bailey_mesh::Auditor;
use serde_json::Value as Json;

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
pub struct Records(OnceLock<Auditor>);

impl Records {
    /// The broker is on the mesh now.
    pub fn open(&self, auditor: Auditor) {
        if self.0.set(auditor).is_err() {
            tracing::warn!("the way to the audit log was open already");
        }
    }

    /// Records something that happened, as soon as audit takes it.
    pub fn note(&self, kind: &'static str, fields: &Json) {
        match self.0.get() {
            Some(auditor) => auditor.append(kind, fields),
            None => unrecorded(kind, fields),
        }
    }

    /// Records a refusal. Equal ones may be folded.
    pub fn refusal(&self, kind: &'static str, fields: &Json) {
        match self.0.get() {
            Some(auditor) => auditor.append_refusal(kind, fields),
            None => unrecorded(kind, fields),
        }
    }

    /// Records something before it happens. Without the record it must not.
    pub async fn before(&self, kind: &'static str, fields: &Json) -> Result<(), NotRecorded> {
        let auditor = self.0.get().ok_or(NotRecorded::NotOnTheMesh)?;
        let appended = auditor.append_now(kind, fields).await;
        appended
            .map(|_| ())
            .map_err(|status| NotRecorded::Refused(Box::new(status)))
    }
}

/// Only the management socket is served while there is no mesh: the log line is all there is.
fn unrecorded(kind: &str, fields: &Json) {
    tracing::warn!(audit.kind = kind, audit.fields = %fields, "not in the audit log: {kind}");
}
