//! What the broker tells the audit log: names, never values.
//!
//! The record comes first: what gives anybody anything in the vault, signs, or lets a value out is done when the audit log has it on disk, and
//! not before. What only takes away, and what is done when there is no way to the log, is noted in the vault by the same write ([`Offline`]) and
//! told as soon as the log takes it, before anything else.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bailey_audit_log::Leaf;
use bailey_error::{Classify, Kind};
use bailey_mesh::{Auditor, Mesh, MeshChannel};
use bailey_proto::audit::v1::LatestRequest;
use bailey_proto::audit::v1::audit_service_client::AuditServiceClient;
use bailey_types::Service;
use serde_json::{Value as Json, json};
use tonic::Status;

use crate::vault::{Deed, Mark, Offline};

/// Longest that the audit log may take to answer a question.
const LONGEST_ANSWER: Duration = Duration::from_secs(5);
/// As many alarms wait for the audit log. Each is for a person to look at.
const MAX_ALARMS: usize = 16;

/// Why a deed was not recorded, and so must not be done.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The broker is not on the mesh: it has no certificate while the age key cannot be read.
    #[error("nothing can be recorded in the audit log while the broker is sealed")]
    NotOnTheMesh,
    /// audit is away, or refuses.
    #[error("the audit log did not take the record: {}", .0.message())]
    Refused(#[source] Box<Status>),
    /// audit does not say what it has of the vault.
    #[error("{0}")]
    NotCompared(String),
}

impl Classify for NotRecorded {
    fn kind(&self) -> Kind {
        match self {
            Self::NotOnTheMesh | Self::Refused(_) | Self::NotCompared(_) => Kind::Unavailable,
        }
    }
}

/// Why it is not known what the log has.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The broker is not on the mesh yet.
    #[error("the broker is not on the mesh yet")]
    NotOnTheMesh,
    /// audit is away, or cannot read its log.
    #[error("{}", .0.message())]
    NotTold(#[from] Box<Status>),
}

/// What the log has.
#[derive(Debug)]
pub enum Looked {
    /// This, at this index.
    Found(u64, Mark),
    /// None from this index on; what is before it was not looked at.
    Until(u64),
    /// None at all.
    Nothing,
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
    channel: OnceLock<MeshChannel>,
    /// The revision of the vault that the log was last told is kept; 0: none.
    kept: AtomicU64,
    /// Held by whoever tells it, so that the log has the last one last.
    pub telling: tokio::sync::Mutex<()>,
    /// Nobody tells anything by and by any more: the service stops.
    closing: AtomicBool,
    /// What the log was last said to lack, and why.
    lacks: Mutex<Option<String>>,
    /// Somebody else changed the vault's file, and the log was told so, or will be.
    alarmed: AtomicBool,
    /// What somebody must look at, until the log has it; each once.
    alarms: Mutex<Vec<Record>>,
    /// Deeds that the audit log has, while the vault could not note it: on a failing disk they would be told every few seconds.
    told: Mutex<Vec<Offline>>,
}

impl Records {
    /// The broker is on the mesh now.
    pub fn open(&self, mesh: &Mesh) {
        let channel = self.channel.set(mesh.channel(Service::Audit));
        if channel.is_err() || self.auditor.set(mesh.auditor()).is_err() {
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
        let with_revision = |record: Record| match revision {
            Some(revision) => record.with("revision", revision),
            None => record,
        };
        let records: Vec<_> = records.into_iter().map(with_revision).collect();
        self.begun(records, What::Vault(revision)).await
    }

    /// As [`Records::about_to`], of a rotation of the intermediate.
    pub async fn about_to_rotate(&self, record: Record) -> Result<Attempt<'_>, NotRecorded> {
        let serial = record.fields.get("serial").cloned();
        let what = What::Intermediate(serial.unwrap_or_default());
        self.begun(vec![record], what).await
    }

    async fn begun(&self, records: Vec<Record>, what: What) -> Result<Attempt<'_>, NotRecorded> {
        let auditor = self.auditor.get().ok_or(NotRecorded::NotOnTheMesh)?;
        // From here on the log may have them, whatever we hear of it; even if whoever asked hangs up.
        let attempt = self.attempt(records.iter().map(|record| record.kind), what);
        let entries: Vec<_> = records.iter().map(|it| (it.kind, &it.fields)).collect();
        let appended = auditor.append_all_now(&entries).await;
        appended.map_err(|status| NotRecorded::Refused(Box::new(status)))?;
        Ok(attempt)
    }

    /// Something that the log may have from now on.
    pub fn attempt(
        &self,
        kinds: impl IntoIterator<Item = &'static str>,
        what: What,
    ) -> Attempt<'_> {
        Attempt {
            records: self,
            kinds: kinds.into_iter().collect(),
            what,
        }
    }

    /// The newest entry of ours of one of `kinds` before the index `before` (0: of all), as far as the log looks in one call.
    pub async fn look(&self, kinds: &[String], before: u64) -> Result<Looked, Unknown> {
        let channel = self.channel.get().ok_or(Unknown::NotOnTheMesh)?;
        let mut client = AuditServiceClient::new(channel.clone());
        let kinds = kinds.to_vec();
        let asked = client.latest(LatestRequest { kinds, before });
        let answer = tokio::time::timeout(LONGEST_ANSWER, asked).await;
        let late = |_| Box::new(Status::deadline_exceeded("it does not answer"));
        let answer = answer.map_err(late)?.map_err(Box::new)?.into_inner();
        if !answer.entry.is_empty() {
            let nonsense = || Box::new(Status::internal("it answers nonsense"));
            let mark = mark(&answer.entry).ok_or_else(nonsense)?;
            return Ok(Looked::Found(answer.looked_from, mark));
        }
        // It looks at a part at a time.
        if answer.looked_from == 0 || before != 0 && answer.looked_from >= before {
            return Ok(Looked::Nothing);
        }
        Ok(Looked::Until(answer.looked_from))
    }

    /// Whether the log has it that the vault with this revision is durable.
    pub fn has_kept(&self, revision: u64) -> bool {
        self.kept.load(Ordering::SeqCst) == revision
    }

    /// It is told again, whatever the log has.
    pub fn forget_kept(&self) {
        self.kept.store(0, Ordering::SeqCst);
    }

    /// Tells the log that the vault with this revision is durable.
    pub async fn tell_kept(&self, revision: u64) -> Result<(), NotRecorded> {
        let fields = json!({ "revision": revision });
        self.before(Mark::KEPT, &fields).await?;
        self.kept.store(revision, Ordering::SeqCst);
        Ok(())
    }

    /// As [`Records::tell_kept`], for whoever cannot wait, since the service stops.
    pub fn note_kept(&self, revision: u64) {
        self.note(Mark::KEPT, &json!({ "revision": revision }));
    }

    /// From now on nobody tells anything by and by.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether the service stops.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Records what was done offline, once; and in the same call, that the vault in which it waits is durable, which is at the revision `reached`
    /// without it. Told by itself, that could be kept away by making the write fail that follows.
    pub async fn tell(&self, done: &Offline, reached: u64) -> Result<(), NotRecorded> {
        if self.told().contains(done) {
            return Ok(());
        }
        let at = done.at.to_rfc3339();
        let record = Record::new(done.deed.kind(), Json::Object(done.fields.clone()))
            .with("at", at.as_str())
            .with("revision", done.revision);
        let kept = json!({ "revision": reached, "of": done.revision, "at": at });
        let is_change = done.deed != Deed::Unsealed;
        let mut entries = vec![(record.kind, &record.fields)];
        if is_change {
            entries.push((Mark::KEPT, &kept));
        }
        let auditor = self.auditor.get().ok_or(NotRecorded::NotOnTheMesh)?;
        let appended = auditor.append_all_now(&entries).await;
        appended.map_err(|status| NotRecorded::Refused(Box::new(status)))?;
        self.told().push(done.clone());
        if is_change {
            self.kept.store(reached, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The vault has forgotten these, so they need not be remembered here.
    pub fn forgotten(&self, deeds: &[Offline]) {
        self.told().retain(|done| !deeds.contains(done));
    }

    /// Says once what the log lacks and why, and not each time that it is tried in vain.
    pub fn lacks(&self, why: Option<String>) {
        let mut lacks = self.lacks.lock().unwrap_or_else(PoisonError::into_inner);
        if *lacks == why {
            return;
        }
        if let Some(why) = &why {
            tracing::info!(
                error = why,
                "the audit log lacks what was done to the vault; it is told as soon as it takes it"
            );
        }
        *lacks = why;
    }

    /// Says once that somebody else changed the vault's file.
    pub fn changed_outside(&self, known: u64, is_so: bool) {
        if self.alarmed.swap(is_so, Ordering::SeqCst) || !is_so {
            return;
        }
        tracing::error!(
            vault.known = known,
            "somebody else changed the vault's file: nothing can be written"
        );
        let fields = json!({ "known": known });
        self.alarm(Record::new("vault.changed_outside", fields));
    }

    /// Has the log told of something that somebody must look at. It is told by itself: whoever fills the log, or the queue to it, with what he is
    /// refused does not keep it away.
    pub fn alarm(&self, alarm: Record) {
        let mut alarms = self.alarms();
        if alarms.contains(&alarm) {
            return;
        }
        // Those that wait are told whatever comes after them; who makes more of them than that has said enough.
        if alarms.len() < MAX_ALARMS {
            alarms.push(alarm);
        } else {
            tracing::error!(
                "the alarm {} is not kept for the audit log: {MAX_ALARMS} wait for it",
                alarm.kind
            );
        }
    }

    /// Tells what waits of that. What the log does not take now, it is told next time.
    pub async fn tell_alarms(&self) -> Result<(), NotRecorded> {
        let waiting = self.alarms().clone();
        for alarm in waiting {
            self.before(alarm.kind, &alarm.fields).await?;
            self.alarms().retain(|waits| *waits != alarm);
        }
        Ok(())
    }

    /// As [`Records::tell_alarms`], for whoever cannot wait, since the service stops.
    pub fn note_alarms(&self) {
        for alarm in std::mem::take(&mut *self.alarms()) {
            self.note(alarm.kind, &alarm.fields);
        }
    }

    fn alarms(&self) -> MutexGuard<'_, Vec<Record>> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
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
    what: What,
}

/// What is changed.
#[derive(Debug)]
pub enum What {
    /// The vault, to this revision.
    Vault(Option<u64>),
    /// The intermediate, to the one with this serial.
    Intermediate(Json),
}

impl Attempt<'_> {
    /// It is done.
    pub fn done(mut self) {
        self.kinds.clear();
    }

    /// Whether it is done is not known: it stands on a disk that may lose it. What the vault says once it was read again tells.
    pub fn maybe_done(mut self) {
        self.tell("maybe_done", "vault.maybe_changed", "pki.maybe_rotated");
        self.kinds.clear();
    }

    fn tell(&self, what: &str, of_vault: &'static str, of_intermediate: &'static str) {
        let (kind, name, value) = match &self.what {
            What::Vault(revision) => (of_vault, "revision", json!(revision)),
            What::Intermediate(serial) => (of_intermediate, "serial", serial.clone()),
        };
        self.records
            .note(kind, &json!({ what: self.kinds, name: value }));
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.kinds.is_empty() {
            return;
        }
        // Whether the log has the records of it is not known where it did not answer: so it is told either way.
        self.tell("not_done", "vault.not_changed", "pki.not_rotated");
    }
}

fn mark(leaf: &[u8]) -> Option<Mark> {
    let leaf: Leaf<'_> = serde_json::from_slice(leaf).ok()?;
    let fields: Json = serde_json::from_str(leaf.fields.get()).ok()?;
    let at = fields.get("at").and_then(Json::as_str);
    let number = |name: &str| fields.get(name).and_then(Json::as_u64);
    let revision = number("revision").unwrap_or(0);
    Some(Mark {
        kind: leaf.kind,
        revision,
        of: number("of").unwrap_or(revision),
        at: at.map(str::to_owned),
    })
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
        assert!(records.tell(&done(1), 1).await.is_err());
        records.told().push(done(1));
        assert!(records.tell(&done(1), 1).await.is_ok());
        assert!(records.tell(&done(2), 1).await.is_err());
    }

    #[test]
    fn what_the_log_lacks_is_said_when_it_changes() {
        let records = Records::default();
        let said = || records.lacks.lock().unwrap().clone();
        records.lacks(Some("it is away".into()));
        assert_eq!(said().as_deref(), Some("it is away"));
        records.lacks(None);
        assert_eq!(said(), None);
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
