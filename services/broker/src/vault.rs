//! The vault: one age-encrypted document, of which this process is the only writer.
//!
//! Invariant: the plaintext is never on disk, and memory that held it is wiped. A vault that cannot be opened is *sealed*: the broker runs,
//! says why, and gives nothing; it never goes on as if there were none.

mod document;
mod file;
mod refused;
mod value;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bailey_error::{Chain, Classify, Kind};
use bailey_trust::{SealError, SealingKey, SealingRecipient, TrustFile, strict_json};
use bailey_types::StackId;

#[cfg(test)]
pub use document::Principal;
pub use document::{
    Document, Grants, LockState, PrincipalKind, SetOutcome, SetSecret, Status, Uids,
};
pub use file::FileError;
pub use refused::Refused;
pub use value::{Nonce, Value, WipingBuffer};

use crate::age_key;
use file::VaultFile;

/// Why the vault does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody made one yet.
    #[error("there is no vault yet: run `bailey vault init`")]
    NoVault,
    /// It cannot be opened.
    #[error("the vault is sealed: {0}")]
    Sealed(String),
    /// `init` where there is one.
    #[error("there is a vault already; it is never made anew over another")]
    Exists,
    /// Against the rules of the document.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// More than could be read back.
    #[error(
        "the vault is full: it may have at most {} bytes",
        Vault::PLAINTEXT_LIMIT_BYTES
    )]
    TooLarge,
    /// The change could not be made durable; the vault is as it was.
    #[error("keeping the change: {}", Chain(.0))]
    Write(#[source] FileError),
    /// Encryption failed; the vault is as it was.
    #[error("encrypting the vault")]
    Seal(#[source] SealError),
    /// The document cannot be written as JSON.
    #[error("writing the document")]
    Encode(#[source] serde_json::Error),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NoVault | Self::Exists => Kind::FailedPrecondition,
            Self::TooLarge => Kind::ResourceExhausted,
            // The operator stands at the socket: what the disk says is for him.
            Self::Sealed(_) | Self::Write(_) => Kind::Unavailable,
            Self::Seal(_) | Self::Encode(_) => Kind::Internal,
            Self::Refused(refused) => refused.kind(),
        }
    }
}

/// What the vault is at the moment.
#[derive(Clone, Debug)]
pub enum State {
    /// None was made yet.
    NoVault,
    /// Open, with what it holds.
    Open(Arc<Document>),
    /// It cannot be opened, and why.
    Sealed(String),
}

/// The vault.
#[derive(Debug)]
pub struct Vault {
    key_path: PathBuf,
    stack: StackId,
    recipient: SealingRecipient,
    state: RwLock<State>,
    /// Held during a change; `state` is locked for the exchange only, so that readers never wait for the disk.
    file: Mutex<VaultFile>,
}

impl Vault {
    /// Largest document, bytes.
    pub const PLAINTEXT_LIMIT_BYTES: usize = 24 << 20;

    /// Opens the vault in `dir` with the key at `key_path`. Fails only if `dir` cannot be used at all.
    pub fn open(dir: &Path, key_path: &Path, trust: &TrustFile) -> Result<Self, FileError> {
        let (file, blob) = VaultFile::open(dir)?;
        let vault = Self {
            key_path: key_path.to_owned(),
            stack: trust.stack.clone(),
            recipient: trust.vault.clone(),
            state: RwLock::new(State::NoVault),
            file: Mutex::new(file),
        };
        vault.put(vault.decide(blob.as_deref()));
        Ok(vault)
    }

    /// What the vault is.
    pub fn state(&self) -> State {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the vault holds.
    pub fn document(&self) -> Result<Arc<Document>, Error> {
        match self.state() {
            State::Open(document) => Ok(document),
            State::NoVault => Err(Error::NoVault),
            State::Sealed(reason) => Err(Error::Sealed(reason)),
        }
    }

    /// Tries to open a sealed vault again. Whether it is not sealed now.
    pub fn unseal(&self) -> bool {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.state(), State::Sealed(_)) {
            let state = match file.read() {
                Ok(blob) => self.decide(blob.as_deref()),
                Err(e) => State::Sealed(Chain(&e).to_string()),
            };
            self.put(state);
        }
        !matches!(self.state(), State::Sealed(_))
    }

    /// Makes the vault. Refused where there is one.
    pub fn init(&self, document: Document) -> Result<(), Error> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match self.state() {
            State::NoVault => self.save(&mut file, document),
            State::Open(_) => Err(Error::Exists),
            State::Sealed(reason) => Err(Error::Sealed(reason)),
        }
    }

    /// Changes the vault: durably and entirely, or not at all. What changes nothing writes nothing.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Refused>,
    ) -> Result<T, Error> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.document()?;
        let mut after = Document::clone(&before);
        let outcome = change(&mut after)?;
        if after != *before {
            self.save(&mut file, after)?;
        }
        Ok(outcome)
    }

    fn save(&self, file: &mut VaultFile, document: Document) -> Result<(), Error> {
        let mut plain = WipingBuffer::new();
        serde_json::to_writer(&mut plain, &document).map_err(Error::Encode)?;
        if plain.as_slice().len() > Self::PLAINTEXT_LIMIT_BYTES {
            return Err(Error::TooLarge);
        }
        let sealed = self.recipient.seal(plain.as_slice()).map_err(Error::Seal)?;
        file.write(&sealed).map_err(Error::Write)?;
        self.put(State::Open(Arc::new(document)));
        Ok(())
    }

    fn put(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn decide(&self, blob: Option<&[u8]>) -> State {
        // The key is looked at even if there is no vault: one made to a key that nobody has would be lost.
        let key = match age_key::read(&self.key_path, &self.recipient) {
            Ok(key) => key,
            Err(reason) => return State::Sealed(reason),
        };
        match blob.map(|blob| self.decrypt(blob, &key)) {
            None => State::NoVault,
            Some(Ok(document)) => State::Open(Arc::new(document)),
            Some(Err(reason)) => State::Sealed(format!("vault.age cannot be used: {reason}")),
        }
    }

    fn decrypt(&self, blob: &[u8], key: &SealingKey) -> Result<Document, String> {
        let plain = key
            .open(blob, Self::PLAINTEXT_LIMIT_BYTES)
            .map_err(|e| e.to_string())?;
        // The place of an error is told, never the text at it: that may be a value.
        let malformed = |e: &serde_json::Error| {
            format!("it is malformed at line {} column {}", e.line(), e.column())
        };
        strict_json::check(&plain).map_err(|_| "it is not one JSON document".to_owned())?;
        let document: Document = serde_json::from_slice(&plain).map_err(|e| malformed(&e))?;
        if document.version != 1 {
            return Err(format!(
                "it has version {}; this broker reads version 1",
                document.version
            ));
        }
        if document.stack != self.stack {
            return Err(format!(
                "it belongs to the stack {}, this is {}",
                document.stack, self.stack
            ));
        }
        Ok(document)
    }
}

#[cfg(test)]
mod tests;
