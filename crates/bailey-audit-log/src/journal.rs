//! What was appended since the tiles were last published. One record for each batch:
//!
//! ```text
//! "BAJ1" | first index u64 | count u32 | length of entries u32 | length of note u32 | entries | note | SHA-256 of all before
//! ```
//! Numbers are big-endian; entries are as in a bundle; the note is the checkpoint that covers the batch.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use bailey_types::Sha256;

use crate::store::split_entries;

const MAGIC: &[u8; 4] = b"BAJ1";
const HEAD: usize = 4 + 8 + 4 + 4 + 4;
const HASH: usize = 32;

/// One batch.
pub(crate) struct Record<'a> {
    pub(crate) first: u64,
    pub(crate) entries: Vec<&'a [u8]>,
    pub(crate) note: &'a [u8],
}

/// What a journal holds.
pub(crate) struct Parsed<'a> {
    pub(crate) records: Vec<Record<'a>>,
    /// Where the records end.
    pub(crate) good_bytes: usize,
}

/// Why a journal cannot have come about by appending and crashing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the record at byte {0} was changed after it was written")]
pub(crate) struct Damaged(pub(crate) usize);

/// Reads records until the end, or until one that was never finished.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Damaged> {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, length)) = bytes.get(at..).and_then(parse_record) {
        records.push(record);
        at += length;
    }
    // A crash leaves one unfinished record at the end. A whole one behind it means that this one was whole as well, and was answered.
    let behind = bytes.get(at..).unwrap_or_default();
    let whole_behind = (1..behind.len())
        .filter_map(|from| behind.get(from..))
        .any(|rest| rest.starts_with(MAGIC) && parse_record(rest).is_some());
    if whole_behind {
        return Err(Damaged(at));
    }
    Ok(Parsed {
        records,
        good_bytes: at,
    })
}

fn parse_record(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let (count, rest) = number(rest)?;
    let (entries_length, rest) = number(rest)?;
    let (note_length, rest) = number(rest)?;
    let (entries, rest) = rest.split_at_checked(entries_length)?;
    let (note, rest) = rest.split_at_checked(note_length)?;
    let hash = rest.first_chunk::<HASH>()?;
    let body = HEAD + entries_length + note_length;
    if Sha256::of(bytes.get(..body)?).0 != *hash {
        return None;
    }
    let entries = split_entries(entries).filter(|entries| entries.len() == count)?;
    Some((
        Record {
            first: u64::from_be_bytes(*first),
            entries,
            note,
        },
        body + HASH,
    ))
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*number)).ok()?, rest))
}

/// The bytes of a record; `None` where a part is larger than its length can say.
pub(crate) fn encode(first: u64, count: usize, entries: &[u8], note: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD + entries.len() + note.len() + HASH);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&first.to_be_bytes());
    for length in [count, entries.len(), note.len()] {
        bytes.extend_from_slice(&u32::try_from(length).ok()?.to_be_bytes());
    }
    bytes.extend_from_slice(entries);
    bytes.extend_from_slice(note);
    let hash = Sha256::of(&bytes);
    bytes.extend_from_slice(&hash.0);
    Some(bytes)
}

/// The journal, open for appending.
pub(crate) struct Journal {
    file: File,
    size_bytes: u64,
    /// After a failed sync nobody knows what is on disk: nothing more is written until the log is opened again.
    broken: bool,
}

impl Journal {
    /// Opens the journal and cuts it down to `good_bytes`.
    pub(crate) fn open(path: &Path, good_bytes: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len(good_bytes)?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(good_bytes))?;
        Ok(Self {
            file,
            size_bytes: good_bytes,
            broken: false,
        })
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes the record; when this returns, it is on disk.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "an earlier write to the journal failed; restart audit",
            ));
        }
        if let Err(e) = self.file.write_all(record) {
            // Full disk: take back what was written of it, so that the next record does not follow half of one.
            self.broken = self.cut(self.size_bytes).is_err();
            return Err(e);
        }
        if let Err(e) = self.file.sync_data() {
            self.broken = true;
            return Err(e);
        }
        self.size_bytes += u64::try_from(record.len()).unwrap_or(0);
        Ok(())
    }

    /// Empties the journal: what it held is in tiles.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        let cut = self.cut(0);
        self.broken |= cut.is_err();
        cut
    }

    fn cut(&mut self, size_bytes: u64) -> io::Result<()> {
        self.file.set_len(size_bytes)?;
        self.file.seek(SeekFrom::Start(size_bytes))?;
        self.file.sync_all()?;
        self.size_bytes = size_bytes;
        Ok(())
    }
}
