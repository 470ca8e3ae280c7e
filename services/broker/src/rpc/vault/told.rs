//! What the audit log is told of a change: names, never values.

use bailey_types::PrincipalName;
use serde_json::{Value as Json, json};

use super::asked;
use crate::record::Record;
use crate::vault::{Principal, Rolled, Secret, SetOutcome};

/// What `set` did, in one word.
pub(super) const fn outcome(outcome: SetOutcome) -> &'static str {
    match outcome {
        SetOutcome::Set => "set",
        SetOutcome::Changed => "changed",
    }
}

/// A secret that was set, or of which something was changed, and who was registered for it.
pub(super) fn set(
    fields: &Json,
    set: SetOutcome,
    secret: Option<&Secret>,
    registered: &[(PrincipalName, Principal)],
) -> Vec<Record> {
    let registered = registered.iter().map(|(name, principal)| {
        let fields = json!({ "principal": name, "kind": principal.kind });
        Record::new("principal.registered", fields)
    });
    let mut records: Vec<_> = registered.collect();
    let record = Record::new("secret.set", fields.clone()).with("outcome", outcome(set));
    match secret {
        Some(secret) => records.extend(
            record
                .with("pattern", secret.pattern.to_string())
                .naming("granted_to", &secret.authorized_principals),
        ),
        None => records.push(record),
    }
    records
}

/// Something that is done only once; nothing, if it was done before.
pub(super) fn once(done: bool, kind: &'static str, fields: &Json) -> Vec<Record> {
    let record = done.then(|| Record::new(kind, fields.clone()));
    record.into_iter().collect()
}

/// A principal whose secrets were rolled.
pub(super) fn rolled(fields: &Json, outcome: &Rolled) -> Vec<Record> {
    let record = Record::new("principal.rolled", fields.clone());
    let (rolled, skipped) = (&outcome.rolled, &outcome.skipped);
    if rolled.len() + skipped.len() <= Record::NAMES {
        return vec![
            record
                .with("rolled", json!(rolled))
                .with("skipped", json!(skipped)),
        ];
    }
    let mut records = record.clone().naming("rolled", rolled);
    records.extend(record.naming("skipped", skipped));
    records
}

/// An import.
pub(super) fn imported(outcome: &asked::Outcome) -> Vec<Record> {
    let registered = outcome.registered.iter();
    let registered =
        registered.map(|name| Record::new("principal.registered", json!({ "principal": name })));
    let mut records: Vec<_> = registered.collect();
    for (secret, granted) in &outcome.granted {
        let fields = json!({ "secret": secret, "outcome": "imported" });
        records.extend(Record::new("secret.set", fields).naming("granted_to", granted));
    }
    records
}
