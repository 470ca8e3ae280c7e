//! What goes into the audit log, and through whom.

use bailey_mesh::Auditor;
use serde_json::Value;

/// Takes entries for the audit log. Never waits: what is audited here has happened.
pub trait Record: Send + Sync + 'static {
    /// An entry; `fields` is an object of names and hashes, never of values.
    fn record(&self, kind: &'static str, fields: Value);
}

impl Record for Auditor {
    fn record(&self, kind: &'static str, fields: Value) {
        self.append(kind, &fields);
    }
}

/// What was audited in a test.
#[cfg(test)]
#[derive(Default)]
pub struct Recorded(std::sync::Mutex<Vec<(&'static str, Value)>>);

#[cfg(test)]
impl Record for Recorded {
    fn record(&self, kind: &'static str, fields: Value) {
        self.0.lock().unwrap().push((kind, fields));
    }
}

#[cfg(test)]
impl Recorded {
    /// Kinds of all entries, oldest first.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().iter().map(|entry| entry.0).collect()
    }

    /// The fields of the newest entry of that kind.
    pub fn last(&self, kind: &str) -> Option<Value> {
        let entries = self.0.lock().unwrap();
        let found = entries.iter().rev().find(|entry| entry.0 == kind);
        found.map(|entry| entry.1.clone())
    }
}
