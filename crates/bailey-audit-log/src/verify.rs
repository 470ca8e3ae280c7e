//! Verification of a whole log, from its files and the stack's public keys alone.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bailey_trust::TrustFile;
use bailey_types::{Service, Sha256, Timestamp};
use tlog_tiles::record_hash;

use crate::journal;
use crate::leaf::{self, Leaf};
use crate::note::{Checkpoint, NoteError, read_checkpoint, read_cosigned};
use crate::store::{Store, TileKind, split_entries};
use crate::tree::{Tree, WIDTH, unfinished};

/// Why a log is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file that must be there cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A checkpoint or co-signature is not what it must be.
    #[error("{path} is refused")]
    Note {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NoteError,
    },
    /// An entry is malformed.
    #[error("entry {index} is not one that audit wrote: {reason}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file does not hold what follows from the entries.
    #[error("{path} does not hold what follows from the entries: {reason}")]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The entries are not those that were signed.
    #[error("the first {size} entries are not those of the checkpoint in {path}")]
    Root {
        /// How many entries the checkpoint covers.
        size: u64,
        /// Where the checkpoint is.
        path: PathBuf,
    },
    /// Nobody else has seen this log for too long.
    #[error(
        "the newest co-signature of {service} is of {at}; it must not be older than {max_hours} hours, nor of the future"
    )]
    Stale {
        /// Whose co-signature.
        service: Service,
        /// When it was made.
        at: Timestamp,
        /// How old it may be.
        max_hours: u64,
    },
    /// The tree's hashes cannot be combined.
    #[error("computing hashes of the tree")]
    Tree(#[from] tlog_tiles::Error),
}

/// What a log that holds together says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Number of entries, and root of their tree.
    pub checkpoint: Checkpoint,
    /// How many of them are published as tiles; the others are in the journal.
    pub published: u64,
    /// When the first and the last entry were received; unset for an empty log.
    pub from_until: Option<(Timestamp, Timestamp)>,
    /// Who co-signed.
    pub cosigned: Vec<Cosigned>,
}

/// A co-signed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// Who found the log consistent.
    pub service: Service,
    /// How many entries it had then.
    pub size: u64,
    /// When.
    pub at: Timestamp,
}

/// The services that must have co-signed.
const COSIGNERS: [Service; 2] = [Service::Policy, Service::Broker];

/// How often a log that changes while it is read is read again.
const TRIES: u32 = 10;

/// Reads and hashes the whole log in `dir` and checks it against the signed checkpoints, and that policy and broker co-signed it at most
/// `max_age` before `now`. The log may be in use meanwhile.
pub fn verify_dir(
    dir: &Path,
    trust: &TrustFile,
    now: Timestamp,
    max_age: Duration,
) -> Result<Report, VerifyError> {
    let wants = |_: &Leaf<'_>| false;
    Ok(verified(dir, trust, (now, max_age), 0, wants)?.0)
}

/// An entry of a log that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub seq: u64,
    /// When it was received.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// Names and hashes.
    pub fields: serde_json::Value,
}

/// The last `limit` entries that are wanted, of a log that is verified as [`verify_dir`] does.
pub fn select_dir(
    dir: &Path,
    trust: &TrustFile,
    now: Timestamp,
    max_age: Duration,
    limit: usize,
    wants: impl Fn(&Leaf<'_>) -> bool,
) -> Result<Vec<Entry>, VerifyError> {
    Ok(verified(dir, trust, (now, max_age), limit, wants)?.1)
}

type Verified = (Report, Vec<Entry>);

fn verified(
    dir: &Path,
    trust: &TrustFile,
    age: (Timestamp, Duration),
    limit: usize,
    wants: impl Fn(&Leaf<'_>) -> bool,
) -> Result<Verified, VerifyError> {
    let store = Store::new(dir);
    let mut tries = 1;
    loop {
        let before = mark(&store);
        // Each try starts anew, what it selects too.
        let mut selection = Selection {
            wants: &wants,
            limit,
            kept: VecDeque::new(),
        };
        let result = verify(&store, trust, age, &mut selection);
        let result = result.map(|report| (report, selection.kept.into()));
        // What looks wrong may only have been half of a change.
        if result.is_ok() || tries == TRIES || mark(&store) == before {
            return result;
        }
        tries += 1;
    }
}

/// Changes whenever the log does.
fn mark(store: &Store) -> (Option<Vec<u8>>, Option<u64>) {
    (
        fs::read(store.checkpoint()).ok(),
        fs::metadata(store.journal()).ok().map(|m| m.len()),
    )
}

/// The newest entries that somebody wants.
struct Selection<'a> {
    wants: &'a dyn Fn(&Leaf<'_>) -> bool,
    limit: usize,
    kept: VecDeque<Entry>,
}

impl Selection<'_> {
    fn look(&mut self, leaf: &Leaf<'_>) -> Result<(), String> {
        if self.limit == 0 || !(self.wants)(leaf) {
            return Ok(());
        }
        if self.kept.len() == self.limit {
            self.kept.pop_front();
        }
        self.kept.push_back(Entry {
            seq: leaf.seq,
            at: leaf.at,
            kind: leaf.kind.clone(),
            fields: serde_json::from_str(leaf.fields.get()).map_err(|e| e.to_string())?,
        });
        Ok(())
    }
}

fn verify(
    store: &Store,
    trust: &TrustFile,
    (now, max_age): (Timestamp, Duration),
    selection: &mut Selection<'_>,
) -> Result<Report, VerifyError> {
    let cosigned = read_all_cosigned(store, trust)?;
    let path = store.checkpoint();
    let published =
        read_checkpoint(&read(&path)?, &trust.stack, &trust.signing.audit).map_err(|source| {
            VerifyError::Note {
                path: path.clone(),
                source,
            }
        })?;
    let mut rehash = Rehash {
        store,
        tree: Tree::default(),
        roots: BTreeMap::new(),
        from_until: None,
        selection,
    };
    rehash.roots.extend(
        cosigned
            .iter()
            .map(|(_, checkpoint, _)| (checkpoint.size, None)),
    );
    rehash.note_root()?;
    rehash.published(published.size)?;
    if rehash.tree.root()? != published.root {
        return Err(VerifyError::Root {
            size: published.size,
            path,
        });
    }
    rehash.journal(trust)?;
    for (service, checkpoint, at) in &cosigned {
        if rehash.roots.get(&checkpoint.size) != Some(&Some(checkpoint.root)) {
            return Err(VerifyError::Root {
                size: checkpoint.size,
                path: store.cosigned(*service),
            });
        }
        let (from, until) = (now.minus(max_age), now.plus(Duration::from_mins(1)));
        if *at < from || *at > until {
            let max_hours = max_age.as_secs() / 3600;
            return Err(VerifyError::Stale {
                service: *service,
                at: *at,
                max_hours,
            });
        }
    }
    Ok(Report {
        checkpoint: Checkpoint {
            size: rehash.tree.size(),
            root: rehash.tree.root()?,
        },
        published: published.size,
        from_until: rehash.from_until,
        cosigned: cosigned
            .iter()
            .map(|(service, c, at)| Cosigned {
                service: *service,
                size: c.size,
                at: *at,
            })
            .collect(),
    })
}

fn read_all_cosigned(
    store: &Store,
    trust: &TrustFile,
) -> Result<Vec<(Service, Checkpoint, Timestamp)>, VerifyError> {
    let mut all = Vec::new();
    for service in COSIGNERS {
        let key = if service == Service::Policy {
            &trust.signing.policy
        } else {
            &trust.signing.broker
        };
        let path = store.cosigned(service);
        let (checkpoint, at) = read_cosigned(
            &read(&path)?,
            &trust.stack,
            &trust.signing.audit,
            service,
            key,
        )
        .map_err(|source| VerifyError::Note { path, source })?;
        all.push((service, checkpoint, at));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    fs::read(path).map_err(|source| VerifyError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The tree as it follows from the entries.
struct Rehash<'a, 'b> {
    store: &'a Store,
    tree: Tree,
    /// Roots of the sizes that co-signatures are about, as they come by.
    roots: BTreeMap<u64, Option<Sha256>>,
    from_until: Option<(Timestamp, Timestamp)>,
    selection: &'a mut Selection<'b>,
}

impl Rehash<'_, '_> {
    fn push(&mut self, entry: &[u8]) -> Result<(), VerifyError> {
        let index = self.tree.size();
        let leaf =
            leaf::decode(entry, index).map_err(|reason| VerifyError::Entry { index, reason })?;
        let looked = self.selection.look(&leaf);
        looked.map_err(|reason| VerifyError::Entry { index, reason })?;
        self.from_until = Some((self.from_until.map_or(leaf.at, |(from, _)| from), leaf.at));
        self.tree.push(record_hash(entry));
        self.note_root()
    }

    fn note_root(&mut self) -> Result<(), VerifyError> {
        if let Some(root) = self.roots.get_mut(&self.tree.size()) {
            *root = Some(self.tree.root()?);
        }
        Ok(())
    }

    /// Reads the bundles of the first `size` entries and compares every tile with what follows from them.
    fn published(&mut self, size: u64) -> Result<(), VerifyError> {
        while self.tree.size() < size {
            let number = self.tree.size() / WIDTH;
            let width = WIDTH.min(size - self.tree.size());
            let path = self.store.tile(TileKind::Entries, number, width);
            let bundle = read(&path)?;
            let entries =
                split_entries(&bundle).filter(|entries| u64::try_from(entries.len()) == Ok(width));
            let Some(entries) = entries else {
                return Err(VerifyError::Changed {
                    path,
                    reason: format!("it does not hold exactly {width} entries"),
                });
            };
            for entry in entries {
                self.push(entry)?;
            }
            self.compare_full()?;
        }
        for (id, tile) in self.tree.edge() {
            compare(&self.store.hashes(id, unfinished(size, id.0).1), tile)?;
        }
        Ok(())
    }

    fn compare_full(&mut self) -> Result<(), VerifyError> {
        for (id, tile) in self.tree.full() {
            compare(&self.store.hashes(id, WIDTH), tile)?;
        }
        self.tree.forget_full();
        Ok(())
    }

    /// Goes on with what is not published yet.
    fn journal(&mut self, trust: &TrustFile) -> Result<(), VerifyError> {
        let path = self.store.journal();
        let bytes = read(&path)?;
        let changed = |reason: String| VerifyError::Changed {
            path: path.clone(),
            reason,
        };
        let parsed = journal::parse(&bytes).map_err(|e| changed(e.to_string()))?;
        if parsed.good_bytes < bytes.len() {
            let at = parsed.good_bytes;
            return Err(changed(format!(
                "the record at byte {at} is not whole; if audit was killed, start it once"
            )));
        }
        for record in parsed.records {
            let checkpoint = read_checkpoint(record.note, &trust.stack, &trust.signing.audit)
                .map_err(|source| VerifyError::Note {
                    path: path.clone(),
                    source,
                })?;
            if checkpoint.size <= self.tree.size() {
                // Published already; the tiles have the say.
                continue;
            }
            if record.first != self.tree.size() {
                let size = self.tree.size();
                return Err(changed(format!(
                    "it goes on at entry {}, the tiles end at {size}",
                    record.first
                )));
            }
            for entry in record.entries {
                self.push(entry)?;
            }
            self.tree.forget_full();
            if checkpoint
                != (Checkpoint {
                    size: self.tree.size(),
                    root: self.tree.root()?,
                })
            {
                return Err(VerifyError::Root {
                    size: checkpoint.size,
                    path,
                });
            }
        }
        Ok(())
    }
}

fn compare(path: &Path, wanted: &[u8]) -> Result<(), VerifyError> {
    if read(path)? == wanted {
        return Ok(());
    }
    Err(VerifyError::Changed {
        path: path.to_owned(),
        reason: "its hashes differ".into(),
    })
}

#[cfg(test)]
mod tests;
