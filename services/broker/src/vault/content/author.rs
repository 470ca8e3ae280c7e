//! Who wrote a vault: MACs at the head of its text, `{"author":["…"],` and then the document from its first field on.
//!
//! The MAC is over the bytes as they stand, so nothing depends on how JSON is written.

use std::fmt;

use bailey_trust::SealingKey;
use bailey_types::Blake3;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::vault::{Error, WipingBuffer};

const CONTEXT: &str = "bailey broker v1, author of a vault";
const HEAD: &[u8] = br#"{"author":["#;
const END: &[u8] = b"],";

/// Longest head of a text: while the age key is rotated the vault has two authors.
pub(super) const LIMIT_BYTES: usize = 256;

/// Whoever has one of the stack's own age keys. Made from that key; it opens nothing.
#[derive(Clone)]
pub struct Author(Zeroizing<[u8; 32]>);

impl Author {
    /// The holder of `key`.
    pub fn of(key: &SealingKey) -> Self {
        Self(key.derive(CONTEXT))
    }

    fn mac(&self, text: &[u8]) -> Blake3 {
        Blake3(blake3::keyed_hash(&self.0, text).into())
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Author(…)")
    }
}

/// The text of a JSON object with the marks of `authors` before its first field.
pub(super) fn mark(plain: &[u8], authors: &[Author]) -> Result<WipingBuffer, Error> {
    let rest = plain.get(1..).unwrap_or_default();
    let macs: Vec<_> = authors.iter().map(|author| author.mac(rest)).collect();
    let macs = serde_json::to_vec(&macs).map_err(Error::Encode)?;
    let mut marked = WipingBuffer::with_capacity(plain.len() + LIMIT_BYTES);
    marked.push(br#"{"author":"#);
    marked.push(&macs);
    marked.push(b",");
    marked.push(rest);
    Ok(marked)
}

/// Takes the marks out of a text, which blanks replace. Whether one of them is `author`'s; `None`: there are none.
pub(super) fn take_mark(text: &mut [u8], author: &Author) -> Option<bool> {
    let after = text.strip_prefix(HEAD)?;
    let head = after.get(..LIMIT_BYTES.min(after.len()))?;
    let length = head.windows(END.len()).position(|it| it == END)?;
    let (list, _) = head.split_at(length);
    let list = [b"[", list, b"]"].concat();
    let macs: Vec<Blake3> = serde_json::from_slice(&list).ok()?;
    let start = HEAD.len() + length + END.len();
    let (marks, rest) = text.split_at_mut_checked(start)?;
    let expected = author.mac(rest);
    let is = |mac: &Blake3| bool::from(mac.0.ct_eq(&expected.0));
    let is_author = macs.iter().any(is);
    // What follows is a document like one without a head.
    marks.get_mut(1..)?.fill(b' ');
    Some(is_author)
}
