//! The vault: one age-encrypted document, of which this process is the only writer.
//!
//! Invariant: the plaintext is never on disk, and memory that held it is wiped. A vault that cannot be opened is *sealed*: the broker runs,
//! says why, and gives nothing; it never goes on as if there were none.

pub mod content;
mod document;
pub mod file;
mod offline;
mod recipients;
mod refused;
mod value;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bailey_error::{Chain, Classify, Kind};
use bailey_trust::{SealError, SealingRecipient, TrustFile};
use bailey_types::StackId;

#[cfg(test)]
pub use document::Principal;
pub use document::{
    Document, Imported, LockState, Pattern, PrincipalKind, Recipe, Secret, SetOutcome, SetSecret,
    Status, Uids,
};
pub use file::FileError;
pub use offline::{Deed, Offline};
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
    dir: PathBuf,
    key_path: PathBuf,
    stack: StackId,
    recipient: SealingRecipient,
    state: RwLock<State>,
    /// Held during a change; `state` is locked for the exchange only, so that readers never wait for the disk.
    /// `None`: the folder could not be taken yet, and the vault is sealed.
    file: Mutex<Option<VaultFile>>,
}

impl Vault {
    /// Largest document, bytes.
    pub const PLAINTEXT_LIMIT_BYTES: usize = 24 << 20;

    /// Opens the vault in `dir` with the key at `key_path`. Whatever is wrong seals it, but for one thing: where another process is the
    /// vault's writer, this one must not run.
    pub fn open(dir: &Path, key_path: &Path, trust: &TrustFile) -> Result<Self, FileError> {
        let vault = Self {
            dir: dir.to_owned(),
            key_path: key_path.to_owned(),
            stack: trust.stack.clone(),
            recipient: trust.vault.clone(),
            state: RwLock::new(State::NoVault),
            file: Mutex::new(None),
        };
        let blob = vault.read(&mut vault.held());
        if let Err(two_writers @ FileError::TwoWriters(_)) = blob {
            return Err(two_writers);
        }
        vault.put(vault.decide(blob));
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

    /// The stack's own key, to which the vault is always encrypted.
    pub fn recipient(&self) -> &SealingRecipient {
        &self.recipient
    }

    /// Tries to open a sealed vault again. Whether that opened it.
    pub fn unseal(&self) -> bool {
        let mut file = self.held();
        if !matches!(self.state(), State::Sealed(_)) {
            return false;
        }
        self.put(self.decide(self.read(&mut file)));
        matches!(self.state(), State::Open(_))
    }

    /// Makes the vault. Refused where there is one.
    pub fn init(&self, document: Document) -> Result<(), Error> {
        let mut file = self.held();
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
        let mut file = self.held();
        let before = self.document()?;
        let mut after = Document::clone(&before);
        let outcome = change(&mut after)?;
        if after != *before {
            self.save(&mut file, after)?;
        }
        Ok(outcome)
    }

    fn save(&self, held: &mut Option<VaultFile>, document: Document) -> Result<(), Error> {
        let sealed = content::seal_to_all(&document, std::slice::from_ref(&self.recipient))?;
        let not_held = || Error::Sealed("its folder is not held".to_owned());
        let file = held.as_mut().ok_or_else(not_held)?;
        if let Err(e) = file.write(&sealed) {
            if e.replaced() {
                // Which of the two a loss of power would leave is not known, so neither is gone on with: it is read again.
                let reason = format!("its last write may not be durable: {}", Chain(&e));
                self.put(State::Sealed(reason));
            }
            return Err(Error::Write(e));
        }
        self.put(State::Open(Arc::new(document)));
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Option<VaultFile>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn read(&self, held: &mut Option<VaultFile>) -> Result<Option<Vec<u8>>, FileError> {
        let file = match held {
            Some(file) => file,
            None => held.insert(VaultFile::open(&self.dir)?),
        };
        file.read()
    }

    fn decide(&self, blob: Result<Option<Vec<u8>>, FileError>) -> State {
        // The key is looked at even if there is no vault: one made to a key that nobody has would be lost.
        let key = match age_key::read(&self.key_path, &self.recipient) {
            Ok(key) => key,
            Err(reason) => return State::Sealed(reason),
        };
        let opened = |blob: &[u8]| {
            let document = content::open(blob, &key)?;
            content::check_stack(&document, &self.stack)?;
            Ok(document)
        };
        let unusable =
            |reason: String| State::Sealed(format!("vault.age cannot be used: {reason}"));
        match blob {
            Err(e) => State::Sealed(Chain(&e).to_string()),
            Ok(None) => State::NoVault,
            Ok(Some(blob)) => opened(&blob).map_or_else(unusable, |it| State::Open(Arc::new(it))),
        }
    }
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;
