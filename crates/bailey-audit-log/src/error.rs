//! What can go wrong with a log on disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::note::NoteError;
use crate::store::TooLong;

/// Why the log cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("the log's file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the log open.
    #[error("the log in {0} is open in another process")]
    InUse(PathBuf),
    /// What lies on disk was not written by this log.
    #[error(
        "the log is damaged: {0}; `bailey audit verify` tells more, and nothing is appended until it is repaired"
    )]
    Damaged(String),
    /// A checkpoint or co-signature is refused.
    #[error("a checkpoint is refused")]
    Note(#[from] NoteError),
    /// A co-signed checkpoint is not one of ours.
    #[error("the checkpoint of {0} entries is not one that this log had")]
    NotOurs(u64),
    /// An entry is too large for the format.
    #[error("an entry of {0} bytes is too large")]
    TooLarge(usize),
    /// The caller knows more entries than there are, or asks for an entry that is not there.
    #[error("the log has {size} entries, not {asked}")]
    Beyond {
        /// What was asked for.
        asked: u64,
        /// How many there are.
        size: u64,
    },
    /// The tree's hashes cannot be combined.
    #[error("computing hashes of the tree")]
    Tree(#[from] tlog_tiles::Error),
    /// An entry cannot be written as JSON.
    #[error("writing an entry as JSON")]
    Json(#[from] serde_json::Error),
}

impl From<TooLong> for Error {
    fn from(TooLong(size_bytes): TooLong) -> Self {
        Self::TooLarge(size_bytes)
    }
}

/// Says which file it was.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io {
        path: path.to_owned(),
        source,
    }
}
