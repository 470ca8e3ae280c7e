//! The document as bytes: what is encrypted, to whom, and what is believed when it is read back.

use bailey_trust::{SealingKey, SealingRecipient, seal_to, strict_json};
use bailey_types::StackId;
use serde::Deserialize;

use super::document::Document;
use super::value::WipingBuffer;
use super::{Error, Vault};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Encrypts `document` to `readers` and to nobody else.
pub fn seal(document: &Document, readers: &[SealingRecipient]) -> Result<Vec<u8>, Error> {
    let mut plain = WipingBuffer::new();
    serde_json::to_writer(&mut plain, document).map_err(Error::Encode)?;
    if plain.as_slice().len() > Vault::PLAINTEXT_LIMIT_BYTES {
        return Err(Error::TooLarge);
    }
    seal_to(readers, plain.as_slice()).map_err(Error::Seal)
}

/// Encrypts `document` to the stack's own keys and to every recipient that it names.
pub fn seal_to_all(document: &Document, own: &[SealingRecipient]) -> Result<Vec<u8>, Error> {
    let recovery = document.recipients.keys();
    let readers: Vec<_> = own.iter().chain(recovery).cloned().collect();
    seal(document, &readers)
}

/// Opens what [`seal`] made. The reason of a failure never quotes the plaintext.
pub fn open(blob: &[u8], key: &SealingKey) -> Result<Document, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }

    let plain = key
        .open(blob, Vault::PLAINTEXT_LIMIT_BYTES)
        .map_err(|e| e.to_string())?;
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
    serde_json::from_slice(&plain).map_err(|e| malformed(&e))
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
