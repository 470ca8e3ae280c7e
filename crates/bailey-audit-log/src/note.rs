//! Signed checkpoints (C2SP tlog-checkpoint) and co-signatures over them (C2SP tlog-cosignature).

use bailey_trust::{SigningKey, VerifyingKey};
use bailey_types::{Service, Sha256, StackId, Timestamp};
use ed25519_dalek::{SignatureError, Signer as _};
use signed_note::{Note, Signer, Verifier, VerifierList, key_id};
use tlog_tiles::Hash;

/// Why a checkpoint is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoteError {
    /// Not a signed note at all, or without the wanted signature.
    #[error("the signed note is refused: {0}")]
    Note(String),
    /// The note's text is not a checkpoint.
    #[error("the signed note is not a checkpoint (C2SP tlog-checkpoint)")]
    NotACheckpoint,
    /// A checkpoint of another log.
    #[error("the checkpoint is of the log {found:?}, not of {wanted:?}")]
    OtherLog {
        /// Its first line.
        found: String,
        /// What it must be.
        wanted: String,
    },
}

/// The state of a log: how many entries, and the root of their tree. Its signature has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of entries.
    pub size: u64,
    /// Root of the tree (RFC 6962 section 2.1).
    pub root: Sha256,
}

/// Signature types of C2SP signed-note that are used here.
#[derive(Clone, Copy)]
enum Kind {
    /// Ed25519 over the text.
    Plain = 0x01,
    /// Ed25519 over a header with the time, and the text (C2SP tlog-cosignature).
    Cosignature = 0x04,
}

/// The origin line of the log of `stack`, and the name of audit's key.
pub(crate) fn origin(stack: &StackId) -> String {
    key_name(stack, Service::Audit)
}

fn key_name(stack: &StackId, service: Service) -> String {
    format!("bailey/{stack}/{service}")
}

/// Signs the checkpoint as audit.
pub(crate) fn sign(
    checkpoint: Checkpoint,
    stack: &StackId,
    key: &SigningKey,
) -> Result<Vec<u8>, NoteError> {
    let text = text(checkpoint, stack)?;
    let mut note = Note::new(&text, &[]).map_err(refused)?;
    note.add_sigs(&[&KeySigner::new(
        stack,
        Service::Audit,
        key,
        Kind::Plain,
        Timestamp(0),
    )])
    .map_err(refused)?;
    Ok(note.to_bytes())
}

fn text(checkpoint: Checkpoint, stack: &StackId) -> Result<Vec<u8>, NoteError> {
    let made =
        tlog_tiles::Checkpoint::new(&origin(stack), checkpoint.size, Hash(checkpoint.root.0), "");
    Ok(made.map_err(|_| NoteError::NotACheckpoint)?.to_bytes())
}

/// Checks audit's signature on a note, and that it is a checkpoint of the log of `stack`.
pub fn read_checkpoint(
    note: &[u8],
    stack: &StackId,
    audit: &VerifyingKey,
) -> Result<Checkpoint, NoteError> {
    let note = Note::from_bytes(note).map_err(refused)?;
    let verifier = KeyVerifier::new(stack, Service::Audit, audit, Kind::Plain);
    note.verify(&VerifierList::new(vec![Box::new(verifier)]))
        .map_err(refused)?;
    let found =
        tlog_tiles::Checkpoint::from_bytes(note.text()).map_err(|_| NoteError::NotACheckpoint)?;
    let wanted = origin(stack);
    if found.origin() != wanted {
        return Err(NoteError::OtherLog {
            found: found.origin().to_owned(),
            wanted,
        });
    }
    let checkpoint = Checkpoint {
        size: found.size(),
        root: Sha256(found.hash().0),
    };
    // Extension lines would be covered by the signature, but nobody here knows what they mean.
    if text(checkpoint, stack)? != note.text() {
        return Err(NoteError::NotACheckpoint);
    }
    Ok(checkpoint)
}

/// Adds the co-signature of `service` to a checkpoint that it has found consistent with all it knew before.
///
/// `note` is a checkpoint as audit signed it; the result is what `AuditService.Cosign` takes.
pub fn cosign(
    note: &[u8],
    stack: &StackId,
    service: Service,
    key: &SigningKey,
    at: Timestamp,
) -> Result<Vec<u8>, NoteError> {
    let mut note = Note::from_bytes(note).map_err(refused)?;
    note.add_sigs(&[&KeySigner::new(stack, service, key, Kind::Cosignature, at)])
        .map_err(refused)?;
    Ok(note.to_bytes())
}

/// Checks a co-signed checkpoint: the signature of audit and the co-signature of `service`. Answers when it was co-signed.
pub fn read_cosigned(
    note: &[u8],
    stack: &StackId,
    audit: &VerifyingKey,
    service: Service,
    key: &VerifyingKey,
) -> Result<(Checkpoint, Timestamp), NoteError> {
    let checkpoint = read_checkpoint(note, stack, audit)?;
    let note = Note::from_bytes(note).map_err(refused)?;
    let verifier = KeyVerifier::new(stack, service, key, Kind::Cosignature);
    let (found, _) = note
        .verify(&VerifierList::new(vec![Box::new(verifier)]))
        .map_err(refused)?;
    let signature = found
        .first()
        .ok_or_else(|| NoteError::Note("no co-signature".into()))?;
    let (seconds, _) = split_cosignature(signature.signature())
        .ok_or_else(|| NoteError::Note("the co-signature is malformed".into()))?;
    let at_ms = i64::try_from(seconds)
        .unwrap_or(i64::MAX)
        .saturating_mul(1000);
    Ok((checkpoint, Timestamp(at_ms)))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is used as a function for map_err"
)]
fn refused(error: signed_note::NoteError) -> NoteError {
    NoteError::Note(error.to_string())
}

/// What is signed: the text, or with the header of C2SP tlog-cosignature in front.
fn message(text: &[u8], kind: Kind, seconds: u64) -> Vec<u8> {
    match kind {
        Kind::Plain => text.to_vec(),
        Kind::Cosignature => {
            [format!("cosignature/v1\ntime {seconds}\n").as_bytes(), text].concat()
        }
    }
}

/// A co-signature is eight bytes of time, big-endian, and the Ed25519 signature.
fn split_cosignature(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (time, signature) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), signature))
}

fn id(name: &str, key: &VerifyingKey, kind: Kind) -> u32 {
    key_id(
        name,
        &[&[kind as u8], key.dalek().as_bytes().as_slice()].concat(),
    )
}

struct KeySigner<'a> {
    name: String,
    id: u32,
    key: &'a SigningKey,
    kind: Kind,
    seconds: u64,
}

impl<'a> KeySigner<'a> {
    fn new(
        stack: &StackId,
        service: Service,
        key: &'a SigningKey,
        kind: Kind,
        at: Timestamp,
    ) -> Self {
        let name = key_name(stack, service);
        let seconds = u64::try_from(at.0 / 1000).unwrap_or(0);
        Self {
            id: id(&name, &key.verifying_key(), kind),
            name,
            key,
            kind,
            seconds,
        }
    }
}

impl Signer for KeySigner<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let signature = self
            .key
            .dalek()
            .try_sign(&message(text, self.kind, self.seconds))?;
        Ok(match self.kind {
            Kind::Plain => signature.to_vec(),
            Kind::Cosignature => [&self.seconds.to_be_bytes()[..], &signature.to_bytes()].concat(),
        })
    }
}

struct KeyVerifier {
    name: String,
    id: u32,
    key: VerifyingKey,
    kind: Kind,
}

impl KeyVerifier {
    fn new(stack: &StackId, service: Service, key: &VerifyingKey, kind: Kind) -> Self {
        let name = key_name(stack, service);
        Self {
            id: id(&name, key, kind),
            name,
            key: *key,
            kind,
        }
    }
}

impl Verifier for KeyVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let parts = match self.kind {
            Kind::Plain => Some((0, signature)),
            Kind::Cosignature => split_cosignature(signature),
        };
        let Some((seconds, signature)) = parts else {
            return false;
        };
        let message = message(text, self.kind, seconds);
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.dalek().verify_strict(&message, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests;
