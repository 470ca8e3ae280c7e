//! What goes into the audit log, and through whom.

use bailey_mesh::Auditor;
use serde_json::Value;

/// Takes entries for the audit log. Never waits: what is audited here has been refused, or has happened.
pub trait Record: Send + Sync + 'static {
    /// An entry; `refusal`s may be folded.
    fn record(&self, kind: &'static str, fields: Value, refusal: bool);
}

impl Record for Auditor {
    fn record(&self, kind: &'static str, fields: Value, refusal: bool) {
        if refusal {
            self.append_refusal(kind, &fields);
        } else {
            self.append(kind, &fields);
        }
    }
}
