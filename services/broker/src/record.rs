//! What the broker tells the audit log: names, never values.
//!
//! The record comes first: what gives anybody anything in the vault, signs, or lets a value out is done when the audit log has it on disk, and
//! not before. What only takes away, and what is done when there is no way to the log, is noted in the vault by the same write ([`Offline`]) and
//! told as soon as the log takes it, before anything else.

use std::collections::BTreeSet;
use std::fmt::Display;
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

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What happened.
    pub kind: &'static str,
    /// To what: an object.
    pub fields: Json,
}

impl Record {
    /// How many names one entry has room for: each has at most 64 bytes.
    pub const NAMES: usize = 128;

    /// An entry about `fields`.
    pub fn new(kind: &'static str, fields: Json) -> Self {
        Self { kind, fields }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        if let Json::Object(fields) = &mut self.fields {
            fields.insert(name.to_owned(), value.into());
        }
        self
    }

    /// One entry with all of `names` under `list`, or several with some of them each: an entry has at most 16 KiB.
    pub fn naming<N: Display>(self, list: &str, names: impl IntoIterator<Item = N>) -> Vec<Self> {
        let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
        if names.is_empty() {
            let none: Vec<String> = Vec::new();
            return vec![self.with(list, none)];
        }
        let parts = names.chunks(Self::NAMES);
        parts
            .map(|part| self.clone().with(list, part.to_vec()))
            .collect()
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

    /// Records what is about to be done as one: the vault's change to `revision`, if it changes. Until [`Attempt::done`] is called, it counts
    /// as something that was not done after all, and then that is recorded too.
    pub async fn about_to(
        &self,
        records: Vec<Record>,
        revision: Option<u64>,
    ) -> Result<Attempt<'_>, NotRecorded> {
        let auditor = self.auditor.get().ok_or(NotRecorded::NotOnTheMesh)?;
        let with_revision = |record: Record| match revision {
            Some(revision) => record.with("revision", revision),
            None => record,
        };
        let records: Vec<_> = records.into_iter().map(with_revision).collect();
        let kinds = records.iter().map(|record| record.kind);
        // From here on the log may have them, whatever we hear of it; even if whoever asked hangs up.
        let attempt = self.attempt(kinds, revision);
        let entries: Vec<_> = records.iter().map(|it| (it.kind, &it.fields)).collect();
        let appended = auditor.append_all_now(&entries).await;
        appended.map_err(|status| NotRecorded::Refused(Box::new(status)))?;
        Ok(attempt)
    }

    /// Something that the log may have from now on.
    pub fn attempt(
        &self,
        kinds: impl IntoIterator<Item = &'static str>,
        revision: Option<u64>,
    ) -> Attempt<'_> {
        Attempt {
            records: self,
            kinds: kinds.into_iter().collect(),
            revision,
        }
    }

    /// Records what was done offline, once.
    async fn tell(&self, done: &Offline) -> Result<(), NotRecorded> {
        if self.told().contains(done) {
            return Ok(());
        }
        let record = Record::new(done.deed.kind(), Json::Object(done.fields.clone()))
            .with("at", done.at.to_rfc3339())
            .with("revision", done.revision);
        self.before(record.kind, &record.fields).await?;
        self.told().push(done.clone());
        Ok(())
    }

    fn told(&self) -> MutexGuard<'_, Vec<Offline>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that the audit log has, or may have, and that is not done yet.
#[must_use]
pub struct Attempt<'a> {
    records: &'a Records,
    kinds: BTreeSet<&'static str>,
    revision: Option<u64>,
}

impl Attempt<'_> {
    /// It is done.
    pub fn done(mut self) {
        self.kinds.clear();
    }

    /// Whether it is done is not known: it stands on a disk that may lose it. What the vault says once it was read again tells.
    pub fn maybe_done(mut self) {
        let fields = json!({ "maybe_done": self.kinds, "revision": self.revision });
        self.records.note("vault.maybe_changed", &fields);
        self.kinds.clear();
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.kinds.is_empty() {
            return;
        }
        // Whether the log has the records of it is not known where it did not answer: so it is told either way.
        let fields = json!({ "not_done": self.kinds, "revision": self.revision });
        self.records.note("vault.not_changed", &fields);
    }
}

/// Tells the audit log what was done when there was no way to it; what it does not take now, it is told next time.
pub async fn offline(state: &State) {
    let _alone = state.changing.lock().await;
    if let Err(e) = catch_up(state).await {
        tracing::info!(error = %Chain(&e), "the audit log lacks what was done when there was no way to it");
    }
}

/// As [`offline`], for whoever holds the right to change the vault: what waits is told before anything that is done later.
pub async fn catch_up(state: &State) -> Result<(), NotRecorded> {
    let Ok(document) = state.vault.document() else {
        return Ok(());
    };
    let (mut taken, mut told) = (Vec::new(), Ok(()));
    for done in &document.unrecorded {
        told = state.records.tell(done).await;
        if told.is_err() {
            break;
        }
        taken.push(done.clone());
    }
    if taken.is_empty() {
        return told;
    }
    let forgotten = state.vault.recorded(&taken);
    match forgotten {
        Ok(()) => state.records.told().retain(|done| !taken.contains(done)),
        // After a restart it is recorded twice rather than not at all.
        Err(e) => tracing::warn!(error = %Chain(&e), "could not note what the audit log has"),
    }
    told
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
            revision: 1,
            fields: serde_json::Map::new(),
        };
        let records = Records::default();
        assert!(records.tell(&done(1)).await.is_err());
        records.told().push(done(1));
        assert!(records.tell(&done(1)).await.is_ok());
        assert!(records.tell(&done(2)).await.is_err());
    }

    #[test]
    fn a_record_of_many_names_is_several_that_fit() {
        let record = || Record::new("principal.purged", json!({ "principal": "greet" }));
        let names = |count: usize| (0..count).map(|n| format!("{n:0>64}"));
        let none = record().naming("secrets", names(0));
        assert_eq!(none, [record().with("secrets", json!([]))]);
        let all = record().naming("secrets", names(1000));
        assert_eq!(all.len(), 8);
        let mut told = 0;
        for part in &all {
            assert!(part.fields.to_string().len() <= 16 << 10);
            assert_eq!(part.fields["principal"], "greet");
            told += part.fields["secrets"].as_array().unwrap().len();
        }
        assert_eq!(told, 1000);
    }
}
