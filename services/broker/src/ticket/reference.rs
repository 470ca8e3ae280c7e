//! Puts values where a plugin's `config` refers to secrets. Every other byte stays as it was decided about.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::Range;

use bailey_config::SECRET_REF;
use bailey_types::SecretName;
use serde_json::value::RawValue;

use crate::vault::{Value, WipingBuffer};

/// Why the references of a request are not resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unresolved {
    /// Not the configuration that was locked.
    #[error("the request's config does not refer to the secrets that the lock has for it")]
    NotAsLocked,
    /// Not what strict JSON would have let through.
    #[error("the request's config cannot be read")]
    Malformed,
}

/// The request with every `{"secret_ref": name}` of its member `config` replaced by the value, as a JSON string.
///
/// `request` must have passed `strict_json::check_object`. `refs` are exactly the secrets that the lock says `config` refers to: a
/// request that refers to others, or to fewer, is not the one that the lock makes. `values` has each of them, and may have more.
pub fn resolve(
    request: &[u8],
    refs: &BTreeSet<SecretName>,
    values: &BTreeMap<&SecretName, &Value>,
) -> Result<WipingBuffer, Unresolved> {
    let text = std::str::from_utf8(request).map_err(|_| Unresolved::Malformed)?;
    let found = references(text)?;
    let named: BTreeSet<_> = found.iter().map(|(_, name)| name).collect();
    if !named.into_iter().eq(refs) {
        return Err(Unresolved::NotAsLocked);
    }
    let mut resolved = WipingBuffer::new();
    let mut copied = 0;
    for (place, name) in &found {
        let value = values.get(name).ok_or(Unresolved::NotAsLocked)?;
        let before = request.get(copied..place.start);
        let written = resolved
            .write_all(before.ok_or(Unresolved::Malformed)?)
            .map_err(serde_json::Error::io)
            .and_then(|()| serde_json::to_writer(&mut resolved, value.expose()));
        written.map_err(|_| Unresolved::Malformed)?;
        copied = place.end;
    }
    let rest = request.get(copied..).ok_or(Unresolved::Malformed)?;
    let written = resolved.write_all(rest);
    written.map_err(|_| Unresolved::Malformed)?;
    Ok(resolved)
}

type Found = Vec<(Range<usize>, SecretName)>;

/// Where `config` refers to secrets, in the order of the text.
fn references(request: &str) -> Result<Found, Unresolved> {
    let members: BTreeMap<String, &RawValue> = read(request)?;
    let mut found = Found::new();
    if let Some(config) = members.get("config") {
        look(request, config, &mut found)?;
    }
    found.sort_unstable_by_key(|(place, _)| place.start);
    Ok(found)
}

/// Invariant: `value` lies within `request` and nests at most `strict_json::MAX_DEPTH` deep.
fn look(request: &str, value: &RawValue, found: &mut Found) -> Result<(), Unresolved> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = read(text)?;
            if let (Some(name), 1) = (members.get(SECRET_REF), members.len()) {
                let name = read(name.get())?;
                found.push((place(request, text)?, name));
                return Ok(());
            }
            for member in members.values() {
                look(request, member, found)?;
            }
        }
        Some(b'[') => {
            for item in read::<Vec<&RawValue>>(text)? {
                look(request, item, found)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Where `part`, which was borrowed from `whole`, stands in it.
fn place(whole: &str, part: &str) -> Result<Range<usize>, Unresolved> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr());
    let start = start.ok_or(Unresolved::Malformed)?;
    let range = start..start + part.len();
    // A reader that copied instead of lending would be noticed here.
    if whole.get(range.clone()) == Some(part) {
        Ok(range)
    } else {
        Err(Unresolved::Malformed)
    }
}

fn read<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, Unresolved> {
    serde_json::from_str(text).map_err(|_| Unresolved::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;

    fn resolved(request: &str, secrets: &[(&str, &str)]) -> Result<String, Unresolved> {
        let secrets: Vec<(SecretName, Value)> = secrets
            .iter()
            .map(|(name, value)| {
                let value = Value::from(Zeroizing::new((*value).to_owned()));
                (name.parse().unwrap(), value)
            })
            .collect();
        let refs = secrets.iter().map(|(name, _)| name.clone()).collect();
        let values = secrets.iter().map(|(name, value)| (name, value)).collect();
        let resolved = resolve(request.as_bytes(), &refs, &values)?;
        Ok(String::from_utf8(resolved.as_slice().to_vec()).unwrap())
    }

    #[test]
    fn a_value_stands_where_it_was_referred_to_and_nothing_else_moves() {
        let request = r#" {"config" : {"token": {"secret_ref":"a"} ,"list":[ {"secret_ref" : "b"},{"x":[{"secret_ref":"a"}]}], "n": 1.50},"payload":{"secret_ref":"a"}}"#;
        let wanted = r#" {"config" : {"token": "A\"\n" ,"list":[ "B",{"x":["A\"\n"]}], "n": 1.50},"payload":{"secret_ref":"a"}}"#;
        assert_eq!(
            resolved(request, &[("a", "A\"\n"), ("b", "B")]).unwrap(),
            wanted
        );
    }

    #[test]
    fn only_config_is_looked_at() {
        let request = r#"{"config":{},"payload":{"config":{"x":{"secret_ref":"a"}}},"context":{"secret_ref":"a"}}"#;
        assert_eq!(resolved(request, &[]).unwrap(), request);
        assert_eq!(
            resolved(r#"{"payload":{}}"#, &[]).unwrap(),
            r#"{"payload":{}}"#
        );
    }

    #[test]
    fn a_request_must_refer_to_what_the_lock_refers_to() {
        let refers = r#"{"config":{"x":{"secret_ref":"a"}}}"#;
        assert_eq!(resolved(refers, &[]), Err(Unresolved::NotAsLocked));
        assert_eq!(
            resolved(refers, &[("b", "B")]),
            Err(Unresolved::NotAsLocked)
        );
        assert_eq!(
            resolved(refers, &[("a", "A"), ("b", "B")]),
            Err(Unresolved::NotAsLocked)
        );
        assert_eq!(resolved("{}", &[("a", "A")]), Err(Unresolved::NotAsLocked));
        assert!(resolved(refers, &[("a", "A")]).is_ok());
        // That a secret is granted does not put it where the lock refers to none.
        let name: SecretName = "a".parse().unwrap();
        let value = Value::from(Zeroizing::new("A".to_owned()));
        let granted = BTreeMap::from([(&name, &value)]);
        let resolved = resolve(refers.as_bytes(), &BTreeSet::new(), &granted);
        assert_eq!(resolved.map(drop), Err(Unresolved::NotAsLocked));
    }

    #[test]
    fn what_only_resembles_a_reference_stays() {
        let request = r#"{"config":{"x":{"secret_ref":"a","y":1},"z":"{\"secret_ref\":\"a\"}"}}"#;
        assert_eq!(resolved(request, &[]).unwrap(), request);
        let wrong = r#"{"config":{"x":{"secret_ref":"Not A Name"}}}"#;
        assert_eq!(resolved(wrong, &[]), Err(Unresolved::Malformed));
    }

    proptest::proptest! {
        #[test]
        fn a_resolved_request_is_the_request_with_values(value in ".*", deep in 0..20_usize) {
            let (open, close) = ("[".repeat(deep), "]".repeat(deep));
            let request = format!(r#"{{"a":"ü","config":{{"k":{open}{{"secret_ref":"s"}}{close}}},"b":2}}"#);
            let text = resolved(&request, &[("s", &value)]).unwrap();
            let mut parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            let mut place = parsed.pointer_mut("/config/k").unwrap();
            for _ in 0..deep {
                place = place.get_mut(0).unwrap();
            }
            proptest::prop_assert_eq!(place.take(), json!(value));
            let around = text.starts_with(r#"{"a":"ü","config":{"k":"#) && text.ends_with(r#"},"b":2}"#);
            proptest::prop_assert!(around);
        }
    }
}
