//! The files of the log, and the one way to write them: complete or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bailey_types::Service;

use crate::tree::{TileId, WIDTH};

/// The folder of a log.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TileKind {
    /// Hashes, of a level.
    Hashes(u8),
    /// Entries.
    Entries,
}

impl Store {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Held while the log is open, so that no two processes append.
    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(crate) fn cosigned(&self, service: Service) -> PathBuf {
        self.dir.join("cosigned").join(service.name())
    }

    /// The path of a tile (C2SP tlog-tiles, "Merkle Tree"): thousands in folders of their own, `.p/<width>` where it is not full.
    pub(crate) fn tile(&self, kind: TileKind, number: u64, width: u64) -> PathBuf {
        let mut name = format!("{:03}", number % 1000);
        let mut rest = number / 1000;
        while rest > 0 {
            name = format!("x{:03}/{name}", rest % 1000);
            rest /= 1000;
        }
        let level = match kind {
            TileKind::Hashes(level) => level.to_string(),
            TileKind::Entries => "entries".to_owned(),
        };
        let partial = if width == WIDTH {
            String::new()
        } else {
            format!(".p/{width}")
        };
        self.dir.join(format!("tile/{level}/{name}{partial}"))
    }

    pub(crate) fn hashes(&self, (level, number): TileId, width: u64) -> PathBuf {
        self.tile(TileKind::Hashes(level), number, width)
    }

    /// Writes the file so that after a crash it is there as a whole or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(&self.dir);
        make_dirs(parent)?;
        // Invariant: one writer (the lock), so one name for the unfinished file suffices.
        let unfinished = self.dir.join("unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_dir(parent)
    }

    /// Removes the files of an unfinished tile that another width has replaced; `keep` stays.
    pub(crate) fn remove_partials(&self, kind: TileKind, number: u64, keep: u64) -> io::Result<()> {
        let kept = self.tile(kind, number, keep);
        let any = self.tile(kind, number, 1);
        let Some(dir) = any.parent() else {
            return Ok(());
        };
        let files = match fs::read_dir(dir) {
            Ok(files) => files,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut left = false;
        for file in files {
            let path = file?.path();
            if path == kept {
                left = true;
            } else {
                fs::remove_file(path)?;
            }
        }
        if left { Ok(()) } else { fs::remove_dir(dir) }
    }
}

/// Makes the folders that are missing, each durable in its parent.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("/"));
    make_dirs(parent)?;
    fs::create_dir(dir)?;
    sync_dir(parent)
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The bytes of a bundle entry: its length and itself.
pub(crate) fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| TooLong(entry.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// An entry that no bundle can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooLong(pub(crate) usize);

/// Splits a bundle into its entries; `None` where it ends within one.
pub(crate) fn split_entries(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let (length, rest) = bundle.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bundle = rest;
    }
    Some(entries)
}
