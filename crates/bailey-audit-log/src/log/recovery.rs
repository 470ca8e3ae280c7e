//! Opening a log, and finishing what a crash left unfinished.

use std::fs;

use bailey_trust::SigningKey;
use bailey_types::StackId;
use tlog_tiles::record_hash;

use super::{Log, bytes_u64, read_or_empty};
use crate::error::{Error, at};
use crate::journal;
use crate::note::{self, Checkpoint};
use crate::store::{Store, TileKind, split_entries};
use crate::tree::{Tree, WIDTH, unfinished};

impl Log {
    /// Goes on with the journal where the tiles end.
    pub(super) fn replay(&mut self, parsed: &journal::Parsed<'_>) -> Result<(), Error> {
        for record in &parsed.records {
            let end = record.first + bytes_u64(record.entries.len());
            if end <= self.published {
                // A crash after publishing and before the journal was emptied.
                continue;
            }
            if record.first != self.tree.size() {
                let (first, size) = (record.first, self.tree.size());
                return Err(Error::Damaged(format!(
                    "the journal goes on at entry {first}, the tiles end at {size}"
                )));
            }
            for entry in &record.entries {
                self.tree.push(record_hash(entry));
                self.bundles.push(entry, self.tree.size())?;
            }
            let checkpoint =
                note::read_checkpoint(record.note, &self.stack, &self.key.verifying_key())?;
            if checkpoint
                != (Checkpoint {
                    size: self.tree.size(),
                    root: self.tree.root()?,
                })
            {
                return Err(Error::Damaged(format!(
                    "the journal's entries up to {end} are not what was signed"
                )));
            }
            self.checkpoint = checkpoint;
            record.note.clone_into(&mut self.note);
        }
        Ok(())
    }
}

/// The published checkpoint; that of the empty tree where nothing was ever published.
pub(super) fn read_published(
    store: &Store,
    stack: &StackId,
    key: &SigningKey,
) -> Result<(Checkpoint, Vec<u8>), Error> {
    let path = store.checkpoint();
    let note = read_or_empty(&path)?;
    if !note.is_empty() {
        return Ok((
            note::read_checkpoint(&note, stack, &key.verifying_key())?,
            note,
        ));
    }
    // A log that has tiles has published a checkpoint before: without it, somebody took it away.
    if store.tile(TileKind::Entries, 0, WIDTH).exists() {
        return Err(Error::Damaged(format!("{} is missing", path.display())));
    }
    let empty = Checkpoint {
        size: 0,
        root: Tree::default().root()?,
    };
    Ok((empty, note::sign(empty, stack, key)?))
}

/// The right edge of the published tree and its last bundle, checked against the checkpoint.
pub(super) fn load(store: &Store, checkpoint: Checkpoint) -> Result<(Tree, Vec<u8>), Error> {
    let size = checkpoint.size;
    let tree = Tree::load(size, |id, width| {
        let path = store.hashes(id, width);
        let tile = fs::read(&path).map_err(at(&path))?;
        let wanted = usize::try_from(width)
            .unwrap_or(usize::MAX)
            .saturating_mul(32);
        if tile.len() == wanted {
            Ok(tile)
        } else {
            Err(Error::Damaged(format!(
                "{} has a wrong size",
                path.display()
            )))
        }
    })?;
    if tree.root()? != checkpoint.root {
        return Err(Error::Damaged(
            "the tiles are not those of the signed checkpoint".into(),
        ));
    }
    let (number, width) = unfinished(size, 0);
    if width == 0 {
        return Ok((tree, Vec::new()));
    }
    let path = store.tile(TileKind::Entries, number, width);
    let bundle = fs::read(&path).map_err(at(&path))?;
    let entries = split_entries(&bundle).unwrap_or_default();
    let hashes: Vec<u8> = entries
        .iter()
        .flat_map(|entry| record_hash(entry).0)
        .collect();
    if tree
        .edge()
        .next()
        .is_none_or(|((level, _), tile)| level != 0 || tile != hashes)
    {
        return Err(Error::Damaged(format!(
            "{} is not what was signed",
            path.display()
        )));
    }
    Ok((tree, bundle))
}
