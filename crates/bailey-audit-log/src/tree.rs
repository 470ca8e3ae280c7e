//! The Merkle tree in memory: its right edge, and the tiles that are not on disk yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailey_types::Sha256;
use tlog_tiles::{EMPTY_HASH, HASH_SIZE, Hash, HashReader, Tile, tree_hash};

/// Tiles are eight levels high: 256 hashes wide.
pub(crate) const HEIGHT: u8 = 8;

/// Hashes in a full tile, and entries in a full bundle.
pub(crate) const WIDTH: u64 = 1 << HEIGHT;

/// Where a tile lies: its level, and its number within the level.
pub(crate) type TileId = (u8, u64);

/// The tree of `size` leaves.
#[derive(Clone, Default)]
pub(crate) struct Tree {
    size: u64,
    /// For each level the hashes of the tile that is not full yet. Invariant: each shorter than a full tile.
    edge: Vec<Vec<u8>>,
    /// Tiles that became full and were not taken yet.
    full: BTreeMap<TileId, Arc<[u8]>>,
}

impl Tree {
    /// The tree of `size` leaves whose unfinished tiles `read` gives.
    pub(crate) fn load<E>(
        size: u64,
        mut read: impl FnMut(TileId, u64) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut edge = Vec::new();
        for level in 0..levels(size) {
            let (number, width) = unfinished(size, level);
            edge.push(if width == 0 {
                Vec::new()
            } else {
                read((level, number), width)?
            });
        }
        Ok(Self {
            size,
            edge,
            full: BTreeMap::new(),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Adds the hash of a leaf.
    pub(crate) fn push(&mut self, leaf: Hash) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0..=u8::MAX {
            let at = usize::from(level);
            if self.edge.len() == at {
                self.edge.push(Vec::new());
            }
            let Some(tile) = self.edge.get_mut(at) else {
                return;
            };
            tile.extend_from_slice(&hash.0);
            if tile.len() < HASH_SIZE << HEIGHT {
                return;
            }
            hash = Tile::subtree_hash(tile);
            let number = shift(self.size, level + 1) - 1;
            self.full
                .insert((level, number), std::mem::take(tile).into());
        }
    }

    /// The root (RFC 6962 section 2.1).
    pub(crate) fn root(&self) -> Result<Sha256, tlog_tiles::Error> {
        if self.size == 0 {
            return Ok(Sha256(EMPTY_HASH.0));
        }
        // The root is made of the right edge alone: nothing is read.
        let nothing = |id: TileId| {
            Err(tlog_tiles::Error::InvalidInput(format!(
                "tile {id:?} is not at the edge"
            )))
        };
        tree_hash(
            self.size,
            &Reader {
                tree: self,
                read: nothing,
            },
        )
        .map(|hash| Sha256(hash.0))
    }

    /// A reader of all hashes of the tree; `read` gives full tiles that are not in memory.
    pub(crate) fn reader<F>(&self, read: F) -> Reader<'_, F>
    where
        F: Fn(TileId) -> Result<Vec<u8>, tlog_tiles::Error>,
    {
        Reader { tree: self, read }
    }

    /// The unfinished tiles: level, number, hashes.
    pub(crate) fn edge(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        let tiles = (0..).zip(&self.edge).filter(|(_, tile)| !tile.is_empty());
        tiles.map(|(level, tile)| ((level, unfinished(self.size, level).0), tile.as_slice()))
    }

    /// The tiles that became full since they were last taken.
    pub(crate) fn full(&self) -> impl Iterator<Item = (TileId, &[u8])> {
        self.full.iter().map(|(id, tile)| (*id, &**tile))
    }

    /// Forgets the full tiles: they are on disk.
    pub(crate) fn forget_full(&mut self) {
        self.full.clear();
    }

    fn tile(&self, id: TileId) -> Option<&[u8]> {
        if let Some(tile) = self.full.get(&id) {
            return Some(tile);
        }
        let (level, number) = id;
        let at_edge = unfinished(self.size, level).0 == number;
        self.edge
            .get(usize::from(level))
            .filter(|_| at_edge)
            .map(Vec::as_slice)
    }
}

/// How many levels of tiles a tree of `size` leaves has.
pub(crate) fn levels(size: u64) -> u8 {
    (0..8).find(|level| shift(size, *level) == 0).unwrap_or(8)
}

/// Number and width of the unfinished tile at `level`; the width is 0 where the last tile is full.
pub(crate) fn unfinished(size: u64, level: u8) -> (u64, u64) {
    (shift(size, level + 1), shift(size, level) % WIDTH)
}

fn shift(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(HEIGHT) * u32::from(level))
        .unwrap_or(0)
}

/// Reads stored hashes out of tiles.
pub(crate) struct Reader<'a, F> {
    tree: &'a Tree,
    read: F,
}

impl<F: Fn(TileId) -> Result<Vec<u8>, tlog_tiles::Error>> HashReader for Reader<'_, F> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let mut hashes = Vec::with_capacity(indexes.len());
        for index in indexes {
            let tile = Tile::from_index(HEIGHT, *index);
            let id = (tile.level(), tile.level_index());
            hashes.push(match self.tree.tile(id) {
                Some(bytes) => tile.hash_at_index(bytes, *index)?,
                None => tile.hash_at_index(&(self.read)(id)?, *index)?,
            });
        }
        Ok(hashes)
    }
}
