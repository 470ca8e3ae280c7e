//! The document as bytes: what is encrypted, to whom, by whom, and what is believed when it is read back.
//!
//! age says to whom something was encrypted and not by whom: whoever knows the public key could put a vault of his own in place. So the text
//! begins with MACs of all that follows, each under a key that is derived from one of the stack's own age keys.

mod author;

use bailey_trust::{SealingKey, SealingRecipient, seal_to, strict_json};
use bailey_types::StackId;
use serde::Deserialize;
use zeroize::Zeroizing;

pub use self::author::Author;
use super::document::Document;
use super::value::WipingBuffer;
use super::{Error, Vault};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Who wrote a vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A holder of the key that opened it.
    Own,
    /// It does not say.
    Unmarked,
    /// Somebody who has other keys: of the stack, if a recipient's key opened it; else nobody knows who.
    Foreign,
}

/// Encrypts `document` to `readers` and to nobody else, as a work of `authors`.
pub fn seal(
    document: &Document,
    readers: &[SealingRecipient],
    authors: &[Author],
) -> Result<Vec<u8>, Error> {
    let plain = text(document)?;
    let marked = author::mark(plain.as_slice(), authors)?;
    seal_to(readers, marked.as_slice()).map_err(Error::Seal)
}

/// The document's text, if it is not longer than what may be written.
fn text(document: &Document) -> Result<WipingBuffer, Error> {
    let mut plain = WipingBuffer::new();
    serde_json::to_writer(&mut plain, document).map_err(Error::Encode)?;
    let waiting = if document.unrecorded.is_empty() {
        0
    } else {
        Vault::WAITING_LIMIT_BYTES
    };
    if plain.as_slice().len() > Vault::PLAINTEXT_LIMIT_BYTES + waiting {
        return Err(Error::TooLarge);
    }
    Ok(plain)
}

/// Encrypts `document` to the stack's own keys and to every recipient that it names.
pub fn seal_to_all(
    document: &Document,
    own: &[SealingRecipient],
    authors: &[Author],
) -> Result<Vec<u8>, Error> {
    let recovery = document.recipients.keys();
    let readers: Vec<_> = own.iter().chain(recovery).cloned().collect();
    seal(document, &readers, authors)
}

/// Opens what a holder of `key` sealed. The reason of a failure never quotes the plaintext.
pub fn open(blob: &[u8], key: &SealingKey) -> Result<Document, String> {
    match open_of_anybody(blob, key)? {
        (document, Origin::Own) => Ok(document),
        (_, Origin::Unmarked) => Err(
            "it does not say who wrote it: an earlier version of this software did, or somebody who knows only the stack's public key. If you know where it comes from, stop the broker and take it over: `bailey vault adopt`"
                .to_owned(),
        ),
        (_, Origin::Foreign) => Err(
            "it is foreign: it is encrypted to this stack's key, but was not written with it. Put the right one back, or restore a copy (docs/how-to/recovery.md)"
                .to_owned(),
        ),
    }
}

/// Opens what anybody sealed to `key`: for somebody who is asked whether it is to be believed.
pub fn open_of_anybody(blob: &[u8], key: &SealingKey) -> Result<(Document, Origin), String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }

    let limit = Vault::PLAINTEXT_LIMIT_BYTES + Vault::WAITING_LIMIT_BYTES + author::LIMIT_BYTES;
    let mut plain = key.open(blob, limit).map_err(|e| e.to_string())?;
    // The place of an error is told, never the text at it: that may be a value.
    let malformed = |e: &serde_json::Error| {
        format!("it is malformed at line {} column {}", e.line(), e.column())
    };
    strict_json::check(&plain).map_err(|_| "it is not one JSON document".to_owned())?;
    // A later version may have fields that this broker does not know: then that is what is wrong with it.
    let found: Versioned = serde_json::from_slice(&plain).map_err(|e| malformed(&e))?;
    if found.version != VERSION {
        return Err(format!(
            "it has version {}; this broker reads version {VERSION}",
            found.version
        ));
    }
    let origin = origin(&mut plain, key);
    let document = serde_json::from_slice(&plain).map_err(|e| malformed(&e))?;
    Ok((document, origin))
}

fn origin(plain: &mut Zeroizing<Vec<u8>>, key: &SealingKey) -> Origin {
    match author::take_mark(plain, &Author::of(key)) {
        Some(true) => Origin::Own,
        Some(false) => Origin::Foreign,
        None => Origin::Unmarked,
    }
}

/// Refuses the vault of another stack.
pub fn check_stack(document: &Document, stack: &StackId) -> Result<(), String> {
    if document.stack == *stack {
        return Ok(());
    }
    Err(format!(
        "it belongs to the stack {}, this is {stack}",
        document.stack
    ))
}

#[cfg(test)]
mod tests;
