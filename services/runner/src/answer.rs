//! When a plugin's answer is whole: the end of the first JSON document on its standard output, and what its `status` says.
//!
//! The bytes come in pieces, and each is looked at once: a scan of brackets and strings finds the end, and only then is the document read.

use serde::Deserialize;

/// Deepest nesting that the engine's reader takes. What is deeper is no answer, so nobody need end its plugin early.
const MAX_DEPTH: u32 = 128;

/// What a whole document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `status: ok` and a result: the job is done.
    Ok,
    /// `status: error`: the job has failed, its exit code may say how.
    Error,
}

/// Where a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing but white space so far.
    #[default]
    Before,
    /// Between strings of the document.
    Plain,
    /// In a string.
    Text,
    /// In a string, behind a backslash.
    Escaped,
    /// Behind the document.
    Behind,
    /// What came is no response, whatever follows.
    Nowhere,
}

/// Finds the end of the first document in bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Scanner {
    place: Place,
    depth: u32,
    seen: usize,
    end: Option<usize>,
    /// Whether anything but white space is behind the document.
    trailing: bool,
}

impl Scanner {
    /// Takes the next bytes.
    pub fn push(&mut self, piece: &[u8]) {
        for (at, byte) in piece.iter().enumerate() {
            self.step(*byte);
            if self.place == Place::Behind && self.end.is_none() {
                self.end = Some(self.seen + at + 1);
            }
        }
        self.seen += piece.len();
    }

    /// Length of what is before the document and of the document itself, once it is whole.
    pub fn end(&self) -> Option<usize> {
        self.end
    }

    /// Whether more came behind the document than white space.
    pub fn has_trailing(&self) -> bool {
        self.trailing
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::Before, b'{') => {
                self.depth = 1;
                Place::Plain
            }
            (Place::Before, b' ' | b'\t' | b'\n' | b'\r') => Place::Before,
            // A response is an object.
            (Place::Before | Place::Nowhere, _) => Place::Nowhere,
            (Place::Plain, b'"') | (Place::Escaped, _) => Place::Text,
            (Place::Plain, b'{' | b'[') => self.deeper(),
            (Place::Plain, b'}' | b']') => self.out(),
            (Place::Plain, _) | (Place::Text, b'"') => Place::Plain,
            (Place::Text, b'\\') => Place::Escaped,
            (Place::Text, _) => Place::Text,
            (Place::Behind, byte) => {
                self.trailing |= !byte.is_ascii_whitespace();
                Place::Behind
            }
        };
    }

    fn deeper(&mut self) -> Place {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            Place::Nowhere
        } else {
            Place::Plain
        }
    }

    // Which bracket closes which is for the reader: one that is wrong makes it refuse the document.
    fn out(&mut self) -> Place {
        self.depth -= 1;
        if self.depth == 0 {
            Place::Behind
        } else {
            Place::Plain
        }
    }
}

/// What the engine will look at first; whatever else there is, it judges alone.
#[derive(Deserialize)]
struct Response {
    status: String,
    result: Option<String>,
}

/// Reads a whole document; `None` where it is no response, so that only the plugin's end can tell more.
pub fn read(document: &[u8]) -> Option<Answer> {
    // As the engine reads it.
    let text = String::from_utf8_lossy(document);
    let response: Response = serde_json::from_str(&text).ok()?;
    match response.status.as_str() {
        "ok" => {
            let result = response.result?;
            (!result.trim().is_empty()).then_some(Answer::Ok)
        }
        "error" => Some(Answer::Error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn scan(pieces: &[&[u8]]) -> Scanner {
        let mut scanner = Scanner::default();
        for piece in pieces {
            scanner.push(piece);
        }
        scanner
    }

    /// Where serde finds the end of the first document, if that is an object.
    fn end_by_parsing(bytes: &[u8]) -> Option<usize> {
        let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        let first = documents.next()?.ok()?;
        first.is_object().then(|| documents.byte_offset())
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            // What confuses a scan.
            "[\\[\\]{}\"\\\\,:]{0,12}".prop_map(Value::from),
        ];
        let tree = leaf.prop_recursive(6, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(Value::from_iter),
            ]
        });
        prop::collection::btree_map(any::<String>(), tree, 0..6).prop_map(Value::from_iter)
    }

    proptest! {
        #[test]
        fn a_document_ends_where_a_parser_finds_its_end_however_it_is_cut(
            document in document(),
            pretty in any::<bool>(),
            before in "[ \n\r\t]{0,3}",
            behind in prop::collection::vec(any::<u8>(), 0..20),
            size in 1_usize..40,
        ) {
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            let bytes = [before.as_bytes(), text.as_bytes(), &behind].concat();
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let scanner = scan(&pieces);
            prop_assert_eq!(scanner.end(), Some(before.len() + text.len()));
            prop_assert_eq!(scanner.end(), end_by_parsing(&bytes));
            prop_assert_eq!(scanner.has_trailing(), behind.iter().any(|byte| !byte.is_ascii_whitespace()));
            // One byte less is no document.
            let short = bytes.get(..before.len() + text.len() - 1).unwrap();
            prop_assert_eq!(scan(&[short]).end(), None);
        }

        #[test]
        fn whatever_comes_a_document_that_a_parser_sees_is_seen_too(
            bytes in prop::collection::vec(prop::sample::select(&b"{}[]\"\\ ,:a1\n\xc3\xa9"[..]), 0..40),
            size in 1_usize..9,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            if let Some(end) = end_by_parsing(&bytes) {
                prop_assert_eq!(scan(&pieces).end(), Some(end));
            }
        }
    }

    #[test]
    fn ten_mebibytes_byte_by_byte_are_looked_at_once_each() {
        let text = json!({"status": "ok", "result": "x".repeat(10 << 20)}).to_string();
        let mut scanner = Scanner::default();
        for byte in text.as_bytes() {
            scanner.push(std::slice::from_ref(byte));
        }
        assert_eq!(scanner.end(), Some(text.len()));
        assert_eq!(read(text.as_bytes()), Some(Answer::Ok));
    }

    #[test]
    fn what_is_nested_too_deeply_is_no_answer_and_hurts_nobody() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            format!(r#"{{"x":{open}{close},"status":"ok","result":"r"}}"#)
        };
        assert_eq!(scan(&[nested(10_000).as_bytes()]).end(), None);
        let deep = nested(100);
        assert_eq!(scan(&[deep.as_bytes()]).end(), Some(deep.len()));
        assert_eq!(read(deep.as_bytes()), Some(Answer::Ok));
        assert_eq!(scan(&["{".repeat(10 << 20).as_bytes()]).end(), None);
    }

    #[test]
    fn only_a_response_with_a_result_is_an_answer() {
        let cases = [
            (
                r#"{"status":"ok","result":"done","x":[1,{"y":2}]}"#,
                Some(Answer::Ok),
            ),
            (r#"{"result":"d\u00e9","status":"ok"}"#, Some(Answer::Ok)),
            (r#"{"status":"error","error":"no"}"#, Some(Answer::Error)),
            // What the engine will refuse keeps its exit code.
            (r#"{"status":"ok"}"#, None),
            (r#"{"status":"ok","result":"  "}"#, None),
            (r#"{"status":"fine","result":"x"}"#, None),
            (r#"{"status":"ok","status":"ok","result":"x"}"#, None),
            ("{}", None),
            (r#"{"a":]}"#, None),
        ];
        for (text, answer) in cases {
            assert_eq!(read(text.as_bytes()), answer, "{text}");
        }
    }

    #[test]
    fn what_is_no_object_never_ends() {
        for text in ["[1]", "null", "x{}", "\u{feff}{}", "\"{}\""] {
            assert_eq!(scan(&[text.as_bytes()]).end(), None, "{text}");
        }
    }
}
