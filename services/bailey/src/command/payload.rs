//! Payloads as they are given on the command line.

use std::io::Read as _;

use anyhow::Context as _;
use serde_json::value::RawValue;

use crate::Misconfigured;

/// Most bytes that are read; the gateway's own limit is smaller.
const LIMIT_BYTES: u64 = 64 << 20;

/// The object that `text` is, or that comes by standard input for `-`. Its numbers and its order stay as they were written.
pub(super) fn read(text: &str) -> anyhow::Result<Box<RawValue>> {
    let mut given = String::new();
    let text = if text == "-" {
        std::io::stdin()
            .take(LIMIT_BYTES)
            .read_to_string(&mut given)
            .context("reading the payload")?;
        given.as_str()
    } else {
        text
    };
    let wrong = |why: String| Misconfigured(format!("the payload is not a JSON object: {why}"));
    bailey_trust::strict_json::check_object(text.as_bytes(), &[])
        .map_err(|e| wrong(e.to_string()))?;
    serde_json::from_str(text.trim()).map_err(|e| wrong(e.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_an_object_and_stays_as_it_was_written() {
        assert_eq!(
            read(" {\"b\": 1.0, \"a\": 2} ").unwrap().get(),
            "{\"b\": 1.0, \"a\": 2}"
        );
        for wrong in ["", "[]", "{", "{\"a\":1,\"a\":2}", "text"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
