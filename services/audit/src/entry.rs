//! Entries as they come in.

use bailey_proto::audit::v1 as proto;
use bailey_trust::strict_json;
use bailey_types::EventType;
use serde_json::value::RawValue;

use crate::error::Error;

/// Most entries of one request.
const MAX_ENTRIES: usize = 256;

/// Longest kind.
const MAX_KIND_BYTES: usize = 64;

/// Largest fields.
const MAX_FIELDS_BYTES: usize = 16 << 10;

/// A checked entry.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) kind: String,
    pub(crate) fields: Box<RawValue>,
    /// Whether it may be folded with equal ones.
    pub(crate) refusal: bool,
}

/// Checks the entries of a request, all or none.
pub(crate) fn check(entries: Vec<proto::Entry>) -> Result<Vec<Received>, Error> {
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        return Err(Error::Count {
            found: entries.len(),
            most: MAX_ENTRIES,
        });
    }
    entries
        .into_iter()
        .enumerate()
        .map(|(place, entry)| check_one(place, entry))
        .collect()
}

fn check_one(place: usize, entry: proto::Entry) -> Result<Received, Error> {
    let bad = |reason: String| Error::BadEntry { place, reason };
    let proto::Entry {
        kind,
        fields_json,
        refusal,
    } = entry;
    // A kind has the shape of an event type.
    if kind.len() > MAX_KIND_BYTES || !kind.contains('.') || kind.parse::<EventType>().is_err() {
        return Err(bad(format!(
            "its kind must be dotted words of at most {MAX_KIND_BYTES} bytes"
        )));
    }
    if fields_json.len() > MAX_FIELDS_BYTES {
        return Err(bad(format!(
            "its fields have {} bytes; at most {MAX_FIELDS_BYTES} are allowed",
            fields_json.len()
        )));
    }
    strict_json::check_object(fields_json.as_bytes(), &[])
        .map_err(|e| bad(format!("its fields: {e}")))?;
    let fields = RawValue::from_string(fields_json).map_err(|e| bad(format!("its fields: {e}")))?;
    Ok(Received {
        kind,
        fields,
        refusal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, fields: &str) -> proto::Entry {
        proto::Entry {
            kind: kind.into(),
            fields_json: fields.into(),
            refusal: false,
        }
    }

    #[test]
    fn an_entry_within_the_limits_passes() {
        assert!(check(vec![entry("decision.allowed", "{\"job\":\"x\"}"); 256]).is_ok());
    }

    #[test]
    fn what_breaks_a_limit_is_refused_as_a_whole() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_FIELDS_BYTES));
        for bad in [
            entry("", "{}"),
            entry("undotted", "{}"),
            entry("a.b c", "{}"),
            entry(&format!("a.{}", "b".repeat(63)), "{}"),
            entry("a.b", ""),
            entry("a.b", "[]"),
            entry("a.b", "{\"a\":1,\"a\":2}"),
            entry("a.b", &long),
        ] {
            assert!(
                check(vec![entry("a.b", "{}"), bad.clone()]).is_err(),
                "{bad:?}"
            );
        }
        assert!(check(Vec::new()).is_err());
        assert!(check(vec![entry("a.b", "{}"); 257]).is_err());
    }
}
