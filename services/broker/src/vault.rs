//! The vault: one age-encrypted document, of which this process is the only writer.
//!
//! Invariant: the plaintext is never on disk, and memory that held it is wiped. A vault that cannot be opened is *sealed*: the broker runs,
//! says why, and gives nothing; it never goes on as if there were none.

pub mod content;
mod document;
pub mod file;
mod offline;
mod proven;
mod recipients;
mod refused;
mod taken;
mod value;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bailey_error::{Chain, Classify, Kind};
use bailey_trust::{SealError, SealingRecipient, TrustFile};
use bailey_types::{Sha256, StackId, Timestamp};

pub use document::{
    Alphabet, Document, Imported, LockState, Pattern, Principal, PrincipalKind, RecipeChange,
    Rolled, Secret, SetOutcome, SetSecret, Skipped, Status, Token, Uids,
};
pub use file::FileError;
pub use offline::{Deed, Offline};
pub use proven::{Mark, Verdict};
pub use refused::Refused;
pub use value::{Nonce, Value, WipingBuffer};

use crate::age_key;
use content::Author;
use file::VaultFile;

/// Why the vault does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody made one yet.
    #[error("{}", crate::custody::NO_VAULT)]
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
    /// What the change was planned on is not what is there any more.
    #[error("the vault was changed meanwhile; nothing was done: try again")]
    Moved,
    /// The change could not be made durable; the vault is as it was.
    #[error("keeping the change: {}", Chain(.0))]
    Write(#[source] FileError),
    /// The change stands on the disk, but it may not outlive a loss of power.
    #[error(
        "the change may be done and may not be: look before you do it again; its last write may not be durable: {}",
        Chain(.0)
    )]
    Uncertain(#[source] FileError),
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
            Self::Sealed(_) | Self::Write(_) | Self::Uncertain(_) | Self::Moved => {
                Kind::Unavailable
            }
            Self::Seal(_) | Self::Encode(_) => Kind::Internal,
            Self::Refused(refused) => refused.kind(),
        }
    }
}

/// What the vault is at the moment, for whoever gives something from it.
#[derive(Clone, Debug)]
pub enum State {
    /// None was made yet.
    NoVault,
    /// Open, with what it holds.
    Open(Arc<Document>),
    /// Nothing is given from it, and why.
    Sealed(String),
}

/// What there is, and whether anything may be given from it.
#[derive(Clone, Debug)]
enum Kept {
    NoVault,
    /// It was opened, and the audit log did not say yet that it is the vault of now.
    Unproven(Arc<Document>),
    Open(Arc<Document>),
    Sealed(String),
}

/// The vault.
#[derive(Debug)]
pub struct Vault {
    dir: PathBuf,
    key_path: PathBuf,
    stack: StackId,
    recipient: SealingRecipient,
    kept: RwLock<Kept>,
    /// Why the audit log did not tell whether this is the vault of now.
    uncompared: Mutex<Option<String>>,
    /// What the last write found, if somebody else had changed the file.
    outside: Mutex<Option<String>>,
    /// Held during a change; `kept` is locked for the exchange only, so that readers never wait for the disk.
    held: Mutex<Held>,
}

/// What a writer of the vault has.
#[derive(Debug, Default)]
struct Held {
    /// `None`: the folder could not be taken yet, and the vault is sealed.
    file: Option<VaultFile>,
    /// As whom it writes. `None`: no right key was there yet, and the vault is sealed.
    author: Option<Author>,
    /// The file that was found to be an earlier vault, and what is said of it: it is not opened again.
    earlier: Option<(Sha256, String)>,
}

/// A change that is worked out and not yet done.
#[derive(Debug)]
pub struct Planned<T> {
    before: Arc<Document>,
    /// `None`: the vault stays as it is.
    after: Option<Document>,
    /// What the change answers.
    pub outcome: T,
}

impl<T> Planned<T> {
    /// The revision that the vault will have; `None`: it stays as it is.
    pub fn revision(&self) -> Option<u64> {
        self.after.as_ref().map(|after| after.revision)
    }

    /// Whether it changes the vault, and nobody can do more afterwards than before.
    pub fn only_takes_away(&self) -> bool {
        let after = self.after.as_ref();
        after.is_some_and(|after| after.only_takes_from(&self.before))
    }

    /// Adds to the change what is to be told of it.
    pub fn note(&mut self, note: impl FnOnce(&mut Document)) {
        self.after.as_mut().map(note);
    }
}

impl Vault {
    /// Largest document, bytes.
    pub const PLAINTEXT_LIMIT_BYTES: usize = 24 << 20;
    /// Room beyond that for what waits for the audit log, so that a full vault does not prevent that something is revoked.
    pub const WAITING_LIMIT_BYTES: usize = 1 << 20;
    /// Why nothing is given from a vault that was opened just now.
    const UNPROVEN: &str =
        "the audit log, which tells whether this is the vault of now, did not answer yet";

    /// Opens the vault in `dir` with the key at `key_path`. Whatever is wrong seals it, but for one thing: where another process is the
    /// vault's writer, this one must not run.
    pub fn open(dir: &Path, key_path: &Path, trust: &TrustFile) -> Result<Self, FileError> {
        let vault = Self {
            dir: dir.to_owned(),
            key_path: key_path.to_owned(),
            stack: trust.stack.clone(),
            recipient: trust.vault.clone(),
            kept: RwLock::new(Kept::NoVault),
            uncompared: Mutex::default(),
            outside: Mutex::default(),
            held: Mutex::default(),
        };
        let mut held = vault.held();
        let blob = vault.read(&mut held);
        if let Err(two_writers @ FileError::TwoWriters(_)) = blob {
            return Err(two_writers);
        }
        vault.put(vault.decide(&mut held, blob));
        drop(held);
        Ok(vault)
    }

    /// What the vault is, for whoever gives something from it.
    pub fn state(&self) -> State {
        match self.kept() {
            Kept::NoVault => State::NoVault,
            Kept::Unproven(_) => State::Sealed(self.why_unproven()),
            Kept::Open(document) => State::Open(document),
            Kept::Sealed(reason) => State::Sealed(reason),
        }
    }

    /// What the vault holds, for whoever gives something from it.
    pub fn proven(&self) -> Result<Arc<Document>, Error> {
        match self.state() {
            State::Open(document) => Ok(document),
            State::NoVault => Err(Error::NoVault),
            State::Sealed(reason) => Err(Error::Sealed(reason)),
        }
    }

    /// What the vault holds, for the operator: he may look at it and take from it before the audit log answers.
    pub fn document(&self) -> Result<Arc<Document>, Error> {
        match self.unproven() {
            Some(document) => Ok(document),
            None => self.proven(),
        }
    }

    /// What a vault holds of which the audit log must still say whether it is the vault of now.
    pub fn unproven(&self) -> Option<Arc<Document>> {
        match self.kept() {
            Kept::Unproven(document) => Some(document),
            Kept::NoVault | Kept::Open(_) | Kept::Sealed(_) => None,
        }
    }

    /// Why nothing is given from a vault that was opened.
    pub fn why_unproven(&self) -> String {
        let why = locked(&self.uncompared).clone();
        why.unwrap_or_else(|| Self::UNPROVEN.to_owned())
    }

    /// Takes in why the audit log does not tell whether this is the vault of now.
    pub fn not_compared(&self, why: String) {
        *locked(&self.uncompared) = Some(why);
    }

    /// What to do, if somebody else changed the file since it was read.
    pub fn changed_outside(&self) -> Option<String> {
        locked(&self.outside).clone()
    }

    /// Whether it is sealed because it is an earlier one.
    pub fn is_earlier(&self) -> bool {
        let held = self.held();
        let earlier = held.earlier.as_ref();
        earlier.is_some_and(|(_, said)| matches!(self.kept(), Kept::Sealed(why) if why == *said))
    }

    /// Takes in what the audit log says of `unproven`, or of what was taken from it since.
    pub fn settle(&self, unproven: &Document, verdict: Verdict) {
        let mut held = self.held();
        let Some(document) = self.unproven() else {
            return;
        };
        if document.told_until() != unproven.told_until() {
            return; // Another file was read meanwhile.
        }
        match verdict {
            Verdict::Present => self.put(Kept::Open(document)),
            Verdict::Another { after } => self.take_over(&mut held, document, after),
            Verdict::Earlier { known } => {
                let reason = proven::earlier(known, document.told_until());
                let seen = held.file.as_ref().and_then(VaultFile::seen);
                held.earlier = seen.map(|seen| (seen, reason.clone()));
                self.put(Kept::Sealed(reason));
            }
        }
    }

    /// Goes on from a vault that the operator put in another's place, with revisions that none of that one has.
    fn take_over(&self, held: &mut Held, document: Arc<Document>, after: u64) {
        let mut raised = Document::clone(&document);
        raised.revision = raised.revision.max(after + 1);
        self.put(Kept::Open(document));
        if let Err(e) = self.save(held, raised) {
            // Then the one that it replaced would be believed as well; on a disk that takes nothing that is all that is lost.
            tracing::warn!(error = %Chain(&e), "could not number the vault anew");
        }
    }

    /// The stack's own key, to which the vault is always encrypted.
    pub fn recipient(&self) -> &SealingRecipient {
        &self.recipient
    }

    /// Tries to open a sealed vault again. Whether that opened it.
    pub fn unseal(&self) -> bool {
        let mut held = self.held();
        if !matches!(self.kept(), Kept::Sealed(_)) {
            return false;
        }
        let blob = self.read(&mut held);
        let seen = held.file.as_ref().and_then(VaultFile::seen);
        if let Some((earlier, reason)) = &held.earlier
            && seen.as_ref() == Some(earlier)
        {
            self.put(Kept::Sealed(reason.clone()));
            return false;
        }
        self.put(self.decide(&mut held, blob));
        self.unproven().is_some()
    }

    /// Makes the vault. Refused where there is one.
    pub fn init(&self, document: Document) -> Result<(), Error> {
        let mut held = self.held();
        match self.kept() {
            Kept::NoVault => self.save(&mut held, document),
            Kept::Open(_) | Kept::Unproven(_) => Err(Error::Exists),
            Kept::Sealed(reason) => Err(Error::Sealed(reason)),
        }
    }

    /// Works out a change, for whoever records it before it is done.
    pub fn plan<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Refused>,
    ) -> Result<Planned<T>, Error> {
        let before = self.document()?;
        let mut after = Document::clone(&before);
        let outcome = change(&mut after)?;
        let changes = after != *before;
        if changes {
            after.revision = before.revision + 1;
        }
        Ok(Planned {
            before,
            after: changes.then_some(after),
            outcome,
        })
    }

    /// Puts what was planned on top of what is there now, where since then only such deeds were forgotten as the audit log has, or the vault was
    /// numbered anew.
    pub fn rebase<T>(&self, planned: &mut Planned<T>) -> Result<(), Error> {
        let present = self.document()?;
        if Arc::ptr_eq(&present, &planned.before) {
            return Ok(());
        }
        let mut known = Document::clone(&planned.before);
        known.unrecorded.clone_from(&present.unrecorded);
        known.revision = present.revision;
        if known != *present {
            return Err(Error::Moved);
        }
        planned.note(|after| {
            after.unrecorded.clone_from(&present.unrecorded);
            after.revision = present.revision + 1;
        });
        planned.before = present;
        Ok(())
    }

    #[cfg(test)]
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Refused>,
    ) -> Result<T, Error> {
        self.commit(self.plan(change)?)
    }

    /// Does what was planned: durably and entirely, or not at all. What changes nothing writes nothing.
    pub fn commit<T>(&self, planned: Planned<T>) -> Result<T, Error> {
        let mut held = self.held();
        if !Arc::ptr_eq(&self.document()?, &planned.before) {
            return Err(Error::Moved);
        }
        if let Some(after) = planned.after {
            self.save(&mut held, after)?;
        }
        Ok(planned.outcome)
    }

    /// Notes for the audit log what was done when there was no way to it.
    pub fn did_offline(&self, deed: Deed, now: Timestamp) -> Result<(), Error> {
        self.note(|document| document.did_offline(deed, now))
    }

    /// Forgets the deeds that the audit log has. Nothing that anybody was told changes by that, so it is no change that needs a record.
    pub fn recorded(&self, deeds: &[Offline]) -> Result<(), Error> {
        self.note(|document| document.recorded(deeds))
    }

    fn note(&self, note: impl FnOnce(&mut Document)) -> Result<(), Error> {
        let mut held = self.held();
        let before = self.document()?;
        let mut after = Document::clone(&before);
        note(&mut after);
        if after == *before {
            return Ok(());
        }
        self.save(&mut held, after)
    }

    /// The whole vault, encrypted to `readers` and to nobody else.
    pub fn export(&self, readers: &[SealingRecipient]) -> Result<Vec<u8>, Error> {
        let document = self.proven()?;
        let author = self.held().author()?;
        content::seal(&document, readers, &[author])
    }

    fn save(&self, held: &mut Held, document: Document) -> Result<(), Error> {
        let own = std::slice::from_ref(&self.recipient);
        let sealed = content::seal_to_all(&document, own, &[held.author()?])?;
        let not_held = || Error::Sealed("its folder is not held".to_owned());
        let file = held.file.as_mut().ok_or_else(not_held)?;
        let written = file.write(&sealed);
        let outside =
            |e: &FileError| matches!(e, FileError::ChangedOutside(_)).then(|| e.to_string());
        *locked(&self.outside) = written.as_ref().err().and_then(outside);
        if let Err(e) = written {
            if e.replaced() {
                // Which of the two a loss of power would leave is not known, so neither is gone on with: it is read again.
                let reason = format!("its last write may not be durable: {}", Chain(&e));
                self.put(Kept::Sealed(reason));
                return Err(Error::Uncertain(e));
            }
            return Err(Error::Write(e));
        }
        let document = Arc::new(document);
        self.put(match self.kept() {
            Kept::Open(_) => Kept::Open(document),
            Kept::NoVault | Kept::Unproven(_) | Kept::Sealed(_) => Kept::Unproven(document),
        });
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        locked(&self.held)
    }

    fn kept(&self) -> Kept {
        let kept = self.kept.read();
        kept.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, kept: Kept) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    fn read(&self, held: &mut Held) -> Result<Option<Vec<u8>>, FileError> {
        let file = match &mut held.file {
            Some(file) => file,
            none => none.insert(VaultFile::open(&self.dir)?),
        };
        *locked(&self.outside) = None;
        *locked(&self.uncompared) = None;
        file.read()
    }

    fn decide(&self, held: &mut Held, blob: Result<Option<Vec<u8>>, FileError>) -> Kept {
        // The key is looked at even if there is no vault: one made to a key that nobody has would be lost.
        let key = match age_key::read(&self.key_path, &self.recipient) {
            Ok(key) => key,
            Err(reason) => return Kept::Sealed(reason),
        };
        held.author = Some(Author::of(&key));
        let opened = |blob: &[u8]| {
            let document = content::open(blob, &key)?;
            content::check_stack(&document, &self.stack)?;
            Ok(document)
        };
        let unusable = |reason: String| Kept::Sealed(format!("vault.age cannot be used: {reason}"));
        match blob {
            Err(e) => Kept::Sealed(Chain(&e).to_string()),
            Ok(None) => Kept::NoVault,
            Ok(Some(blob)) => {
                opened(&blob).map_or_else(unusable, |it| Kept::Unproven(Arc::new(it)))
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn author(&self) -> Result<Author, Error> {
        let no_key = || Error::Sealed("its key was not read".to_owned());
        self.author.clone().ok_or_else(no_key)
    }
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;
