//! `vault.age` on disk: one writer, whole or not at all, and never over a change that somebody else made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bailey_types::Sha256;

use crate::durable::{self, Exclusive, Failed, Like, failed};

/// What can be wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Two brokers on one volume, or one and a verb that needs it stopped.
    #[error("another process has {0}, and a vault has one writer: stop the broker that uses it")]
    TwoWriters(PathBuf),
    /// It was replaced, edited or deleted behind the broker's back.
    #[error(
        "{0} was changed by somebody else, and nothing was written. The broker still has the vault of before: export it (`bailey vault export`) before you restart the broker, which then has what is there now. If nobody of yours put it there, restore that copy (docs/how-to/recovery.md)"
    )]
    ChangedOutside(PathBuf),
    /// Larger than a vault can be.
    #[error("{path} has more than {limit_bytes} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// A folder, a pipe or a link stands in its place.
    #[error("{0} is no file: put the vault back, or take away what is there")]
    NoFile(PathBuf),
    /// The file system refuses.
    #[error(transparent)]
    Io(#[from] Failed),
}

impl FileError {
    /// Whether the new file stands in the old one's place all the same.
    pub fn replaced(&self) -> bool {
        matches!(self, Self::Io(failed) if failed.replaced)
    }
}

/// The file, held for writing as long as this value lives.
#[derive(Debug)]
pub struct VaultFile {
    dir: PathBuf,
    /// Hash of what was last read or written; `None`: there was no file.
    seen: Option<Sha256>,
    _exclusive: Exclusive,
}

impl VaultFile {
    /// Largest encrypted vault.
    pub const LIMIT_BYTES: u64 = 32 << 20;
    /// The file's name.
    pub const NAME: &'static str = "vault.age";

    /// Takes the directory for this process, and removes what an interrupted write left there.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        // The folder itself, so that there is no file that somebody who was killed could leave as his own.
        let folder = File::open(dir).map_err(failed("opening", dir))?;
        let exclusive = Exclusive::take(folder).map_err(|e| match e {
            TryLockError::WouldBlock => FileError::TwoWriters(dir.join(Self::NAME)),
            TryLockError::Error(e) => failed("locking", dir)(e).into(),
        })?;
        durable::clear(&dir.join(Self::NAME))?;
        Ok(Self {
            dir: dir.to_owned(),
            seen: None,
            _exclusive: exclusive,
        })
    }

    /// Reads the file. What it holds is what the next write may replace.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        // A writer that was killed may have put it there without having the disk keep that; what follows says that it is kept.
        durable::settle(&self.dir.join(Self::NAME))?;
        let blob = self.load()?;
        self.seen = blob.as_deref().map(Sha256::of);
        Ok(blob)
    }

    /// Hash of the file as it was last read or written.
    pub fn seen(&self) -> Option<Sha256> {
        self.seen
    }

    /// Replaces the file, unless it is another than the one last read or written.
    pub fn write(&mut self, blob: &[u8]) -> Result<(), FileError> {
        let path = self.dir.join(Self::NAME);
        if self.load()?.as_deref().map(Sha256::of) != self.seen {
            return Err(FileError::ChangedOutside(path));
        }
        let like = Like {
            mode: 0o600,
            owner_of: &self.dir,
        };
        durable::replace(&path, blob, like)?;
        self.seen = Some(Sha256::of(blob));
        Ok(())
    }

    fn load(&self) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.dir.join(Self::NAME);
        // A link could lead out of the volume, and opening a pipe that nobody writes to would never end.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(FileError::NoFile(path));
            }
            Err(e) => return Err(failed("opening", &path)(e).into()),
        };
        let metadata = file.metadata().map_err(failed("looking at", &path))?;
        if !metadata.is_file() {
            return Err(FileError::NoFile(path));
        }
        let mut blob = Vec::new();
        let mut limited = file.take(Self::LIMIT_BYTES + 1);
        let size = limited
            .read_to_end(&mut blob)
            .map_err(failed("reading", &path))?;
        if size as u64 > Self::LIMIT_BYTES {
            return Err(FileError::TooLarge {
                path,
                limit_bytes: Self::LIMIT_BYTES,
            });
        }
        Ok(Some(blob))
    }
}
