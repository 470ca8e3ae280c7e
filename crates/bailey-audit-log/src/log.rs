//! The log as its one writer has it open.

mod latest;
mod recovery;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bailey_trust::{SigningKey, VerifyingKey};
use bailey_types::{Service, Sha256, StackId};
use tlog_tiles::{Hash, prove_record, prove_tree, record_hash};

use crate::error::{Error, at};
use crate::journal::{self, Journal};
use crate::leaf::{self, NewEntry};
use crate::note::{self, Checkpoint};
use crate::store::{Store, TileKind, make_dirs, push_entry, split_entries};
use crate::tree::{TileId, Tree, WIDTH, levels, unfinished};

pub use self::latest::Latest;

/// What opening the log had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries that were in the journal only.
    pub replayed_entries: u64,
    /// Bytes of a batch that was never finished, and never answered.
    pub cut_bytes: u64,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Index of its first entry.
    pub first_index: u64,
    /// The number of entries after it.
    pub size: u64,
}

/// The open log. Everything here blocks: one thread owns it.
pub struct Log {
    store: Store,
    stack: StackId,
    key: SigningKey,
    tree: Tree,
    bundles: Bundles,
    journal: Journal,
    checkpoint: Checkpoint,
    note: Vec<u8>,
    /// Size of the tree in the `checkpoint` file.
    published: u64,
    /// Held while the log is open.
    _lock: File,
}

/// Bundles of entries that are not on disk as tiles.
#[derive(Default)]
struct Bundles {
    full: BTreeMap<u64, Vec<u8>>,
    /// The last, unfinished one.
    last: Vec<u8>,
}

impl Log {
    /// Opens the log in `dir`, which is made if it does not exist, and finishes what a crash left unfinished.
    pub fn open(dir: &Path, stack: &StackId, key: SigningKey) -> Result<(Self, Recovered), Error> {
        make_dirs(dir).map_err(at(dir))?;
        let store = Store::new(dir);
        let lock = File::create(store.lock()).map_err(at(&store.lock()))?;
        lock.try_lock().map_err(|_| Error::InUse(dir.to_owned()))?;
        let (checkpoint, note) = recovery::read_published(&store, stack, &key)?;
        let (tree, last) = recovery::load(&store, checkpoint)?;
        let path = store.journal();
        let bytes = read_or_empty(&path)?;
        let parsed = journal::parse(&bytes)
            .map_err(|e| Error::Damaged(format!("{}: {e}", path.display())))?;
        let (good, all) = (bytes_u64(parsed.good_bytes), bytes_u64(bytes.len()));
        let journal = Journal::open(&path, good).map_err(at(&path))?;
        let (published, bundles) = (
            checkpoint.size,
            Bundles {
                full: BTreeMap::new(),
                last,
            },
        );
        let mut log = Self {
            store,
            stack: stack.clone(),
            key,
            tree,
            bundles,
            journal,
            checkpoint,
            note,
            published,
            _lock: lock,
        };
        log.replay(&parsed)?;
        let recovered = Recovered {
            replayed_entries: log.tree.size() - published,
            cut_bytes: all - good,
        };
        log.publish()?;
        Ok((log, recovered))
    }

    /// How many entries there are.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The newest checkpoint.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The newest checkpoint as signed note (C2SP tlog-checkpoint).
    pub fn note(&self) -> &[u8] {
        &self.note
    }

    /// Appends the entries, all or none. When this returns, they are on disk and the newest checkpoint covers them.
    pub fn append(&mut self, entries: &[NewEntry]) -> Result<Appended, Error> {
        let first_index = self.tree.size();
        let mut tree = self.tree.clone();
        let mut bundle = Vec::new();
        for (entry, seq) in entries.iter().zip(first_index..) {
            let bytes = leaf::encode(entry, seq)?;
            push_entry(&mut bundle, &bytes)?;
            tree.push(record_hash(&bytes));
        }
        let checkpoint = Checkpoint {
            size: tree.size(),
            root: tree.root()?,
        };
        let note = note::sign(checkpoint, &self.stack, &self.key)?;
        let record = journal::encode(first_index, entries.len(), &bundle, &note)
            .ok_or(Error::TooLarge(bundle.len()))?;
        self.journal
            .append(&record)
            .map_err(at(&self.store.journal()))?;
        // On disk: from here on nothing can fail.
        self.tree = tree;
        (self.checkpoint, self.note) = (checkpoint, note);
        for (entry, size) in split_entries(&bundle)
            .unwrap_or_default()
            .into_iter()
            .zip(first_index + 1..)
        {
            self.bundles.push(entry, size)?;
        }
        Ok(Appended {
            first_index,
            size: self.tree.size(),
        })
    }

    /// Bytes that wait in the journal to be published.
    pub fn unpublished_bytes(&self) -> u64 {
        self.journal.size_bytes()
    }

    /// Moves the journal into tiles and the `checkpoint` file, which never names what is not there.
    pub fn publish(&mut self) -> Result<(), Error> {
        let size = self.tree.size();
        if size == self.published
            && self.journal.size_bytes() == 0
            && self.store.checkpoint().exists()
        {
            return Ok(());
        }
        let write = |path: PathBuf, bytes: &[u8]| self.store.write(&path, bytes).map_err(at(&path));
        for (number, bundle) in &self.bundles.full {
            write(self.store.tile(TileKind::Entries, *number, WIDTH), bundle)?;
        }
        for (id, tile) in self.tree.full() {
            write(self.store.hashes(id, WIDTH), tile)?;
        }
        for (id, tile) in self.tree.edge() {
            write(self.store.hashes(id, unfinished(size, id.0).1), tile)?;
        }
        let (number, width) = unfinished(size, 0);
        if width > 0 {
            write(
                self.store.tile(TileKind::Entries, number, width),
                &self.bundles.last,
            )?;
        }
        write(self.store.checkpoint(), &self.note)?;
        self.journal.clear().map_err(at(&self.store.journal()))?;
        self.bundles.full.clear();
        self.tree.forget_full();
        let before = std::mem::replace(&mut self.published, size);
        self.remove_partials(before)
    }

    /// Removes unfinished tiles of the tree of `before` entries that wider ones have replaced.
    fn remove_partials(&self, before: u64) -> Result<(), Error> {
        let remove = |kind, number, keep| {
            let path = self.store.tile(kind, number, keep);
            self.store
                .remove_partials(kind, number, keep)
                .map_err(at(&path))
        };
        for level in 0..levels(before) {
            let (number, _) = unfinished(before, level);
            let (now, width) = unfinished(self.published, level);
            let keep = if now == number && width > 0 {
                width
            } else {
                WIDTH
            };
            remove(TileKind::Hashes(level), number, keep)?;
            if level == 0 {
                remove(TileKind::Entries, number, keep)?;
            }
        }
        Ok(())
    }

    /// The proof that the newest tree continues that of `known` entries (RFC 6962 section 2.1.2); empty where there is nothing to prove.
    pub fn consistency(&self, known: u64) -> Result<Vec<Sha256>, Error> {
        let size = self.tree.size();
        if known > size {
            return Err(Error::Beyond { asked: known, size });
        }
        if known == 0 || known == size {
            return Ok(Vec::new());
        }
        let proof = prove_tree(size, known, &self.tree.reader(|id| self.read_full(id)))?;
        Ok(plain(proof))
    }

    /// The proof that the newest tree holds entry `index` (RFC 6962 section 2.1.1).
    pub fn inclusion(&self, index: u64) -> Result<Vec<Sha256>, Error> {
        let size = self.tree.size();
        if index >= size {
            return Err(Error::Beyond { asked: index, size });
        }
        Ok(plain(prove_record(
            size,
            index,
            &self.tree.reader(|id| self.read_full(id)),
        )?))
    }

    fn read_full(&self, id: TileId) -> Result<Vec<u8>, tlog_tiles::Error> {
        let path = self.store.hashes(id, WIDTH);
        fs::read(&path)
            .map_err(|e| tlog_tiles::Error::InvalidInput(format!("{}: {e}", path.display())))
    }

    /// The leaf bytes of at most `limit` entries from `first` on.
    pub fn entries(&self, first: u64, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut next = first;
        while next < self.tree.size() && found.len() < limit {
            let bundle = self.bundle(next / WIDTH)?;
            let entries = split_entries(&bundle).ok_or_else(|| {
                Error::Damaged(format!("the bundle of entry {next} ends within an entry"))
            })?;
            let skip = usize::try_from(next % WIDTH).unwrap_or(usize::MAX);
            let taken = entries.into_iter().skip(skip).take(limit - found.len());
            found.extend(taken.map(<[u8]>::to_vec));
            next = (next / WIDTH + 1) * WIDTH;
        }
        Ok(found)
    }

    fn bundle(&self, number: u64) -> Result<Vec<u8>, Error> {
        if number == self.tree.size() / WIDTH {
            return Ok(self.bundles.last.clone());
        }
        if let Some(bundle) = self.bundles.full.get(&number) {
            return Ok(bundle.clone());
        }
        let path = self.store.tile(TileKind::Entries, number, WIDTH);
        fs::read(&path).map_err(at(&path))
    }

    /// Keeps a checkpoint that `service` has co-signed, if it is one that this log had and newer than the one that is kept.
    pub fn keep_cosigned(
        &mut self,
        note: &[u8],
        service: Service,
        key: &VerifyingKey,
    ) -> Result<(), Error> {
        let audit = self.key.verifying_key();
        let read = |note: &[u8]| note::read_cosigned(note, &self.stack, &audit, service, key);
        let (checkpoint, signed_at) = read(note)?;
        if checkpoint.root != self.root_at(checkpoint.size)? {
            return Err(Error::NotOurs(checkpoint.size));
        }
        let path = self.store.cosigned(service);
        let kept = read_or_empty(&path)?;
        if read(&kept).is_ok_and(|(old, at)| (old.size, at) > (checkpoint.size, signed_at)) {
            return Err(Error::NotOurs(checkpoint.size));
        }
        self.store.write(&path, note).map_err(at(&path))
    }

    fn root_at(&self, size: u64) -> Result<Sha256, Error> {
        if size > self.tree.size() {
            return Err(Error::Beyond {
                asked: size,
                size: self.tree.size(),
            });
        }
        let root = tlog_tiles::tree_hash(size, &self.tree.reader(|id| self.read_full(id)))?;
        Ok(Sha256(root.0))
    }
}

impl Bundles {
    /// Adds an entry that made the tree `size` entries large.
    fn push(&mut self, entry: &[u8], size: u64) -> Result<(), Error> {
        push_entry(&mut self.last, entry)?;
        if size.is_multiple_of(WIDTH) {
            self.full
                .insert(size / WIDTH - 1, std::mem::take(&mut self.last));
        }
        Ok(())
    }
}

fn plain(hashes: Vec<Hash>) -> Vec<Sha256> {
    hashes.into_iter().map(|hash| Sha256(hash.0)).collect()
}

fn bytes_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn read_or_empty(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(at(path)),
    }
}

#[cfg(test)]
mod tests;
