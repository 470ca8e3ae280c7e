//! Which JSON may be hashed and signed: text that every parser reads the same way.
//!
//! RFC 8259 leaves open what duplicate names, lone surrogates and large numbers mean (sections 4, 6 and 8.2), and I-JSON (RFC 7493) closes it;
//! this follows I-JSON, with a depth limit.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: u32 = 64;

/// Greatest magnitude of an integer that every parser keeps (RFC 7493 section 2.2).
pub const MAX_INTEGER: u64 = 1 << 53;

/// Why a text is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Checks that `text` is one JSON document that every parser reads the same way.
pub fn check(text: &[u8]) -> Result<(), Error> {
    // serde_json refuses NaN, lone surrogates, invalid UTF-8 and trailing text; its own depth limit is 128.
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    Check { depth: 0 }
        .deserialize(&mut deserializer)
        .map_err(|e| Error(e.to_string()))?;
    deserializer.end().map_err(|e| Error(e.to_string()))
}

/// Checks `text` as [`check`] does, and that it is an object without the given top-level names.
pub fn check_object(text: &[u8], forbidden: &[&str]) -> Result<(), Error> {
    check(text)?;
    let object: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(text).map_err(|_| Error("an object is needed".into()))?;
    match forbidden.iter().find(|name| object.contains_key(**name)) {
        Some(name) => Err(Error(format!(
            "the member {name:?} is not the sender's to give"
        ))),
        None => Ok(()),
    }
}

/// Splices `"name":value,` in front of the first member of an object's text: the other bytes stay as they are.
///
/// `object` must have passed [`check_object`] with `name` among the forbidden names; `value` must be JSON text.
pub fn splice_member(object: &[u8], name: &str, value: &[u8]) -> Result<Vec<u8>, Error> {
    let open = object.iter().position(|b| !b.is_ascii_whitespace());
    let (before, after) = match open {
        Some(at) if object.get(at) == Some(&b'{') => object.split_at(at + 1),
        _ => return Err(Error("an object is needed".into())),
    };
    let empty = after.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'}');
    let name = serde_json::to_vec(name).map_err(|e| Error(e.to_string()))?;
    let comma: &[u8] = if empty { b"" } else { b"," };
    Ok([before, &name, b":", value, comma, after].concat())
}

#[derive(Clone, Copy)]
struct Check {
    depth: u32,
}

impl Check {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        if number > MAX_INTEGER {
            return Err(E::custom(format_args!("{number} is beyond ±2^53")));
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_u64(number.unsigned_abs())
    }

    #[expect(clippy::cast_precision_loss, reason = "2^53 is exact in an f64")]
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        // serde_json reads an integer that does not fit 64 bits as a float, so large floats cannot be told from large integers.
        if number.abs() > MAX_INTEGER as f64 {
            return Err(E::custom(format_args!("{number:e} is beyond ±2^53")));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(serde::de::Error::custom(format_args!(
                    "the name {name:?} appears twice"
                )));
            }
            seen.insert(name);
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_parsers_read_differently_is_refused() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"a":1}}"#,
            "NaN",
            "[1e400]",
            "9007199254740993",
            "-9007199254740993",
            "123456789012345678901234567890",
            r#""\ud800""#,
            "{} {}",
            "{}x",
            "",
            "\u{feff}{}",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        assert!(check(b"\"\xff\"").is_err());
    }

    #[test]
    fn the_permitted_neighbours_pass() {
        for text in [
            r#"{"a":1,"b":{"a":1}}"#,
            "9007199254740992",
            "-9007199254740992",
            "[1.5e3,-0.25]",
            r#""\ud83d\ude00""#,
            " {} \n",
        ] {
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_64_passes_and_65_does_not() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(check(nested(64).as_bytes()).is_ok());
        assert!(check(nested(65).as_bytes()).is_err());
        assert!(check(nested(100_000).as_bytes()).is_err());
    }

    #[test]
    fn an_object_may_not_bring_what_others_splice_in() {
        assert!(check_object(br#"{"payload":{"config":1}}"#, &["config"]).is_ok());
        assert!(check_object(br#"{"config":{}}"#, &["config"]).is_err());
        assert!(check_object(br#"{"\u0063onfig":{}}"#, &["config"]).is_err());
        assert!(check_object(b"[]", &[]).is_err());
    }

    proptest! {
        #[test]
        fn splicing_adds_one_member_and_keeps_every_byte(keys in prop::collection::btree_map("[a-z]{1,6}", any::<i32>(), 0..5)) {
            let text = serde_json::to_vec(&keys).unwrap();
            let spliced = splice_member(&text, "SECRETS", br#"{"a":"b"}"#).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&spliced).unwrap();
            prop_assert_eq!(value["SECRETS"]["a"].as_str(), Some("b"));
            prop_assert_eq!(value.as_object().unwrap().len(), keys.len() + 1);
            prop_assert!(spliced.ends_with(&text[1..]));
        }
    }
}
