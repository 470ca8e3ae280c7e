//! `vault.age` on disk: one writer, whole or not at all, and never over a change that somebody else made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bailey_types::Sha256;

/// What can be wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Two brokers on one volume.
    #[error("another process writes {0}; a vault has one writer")]
    TwoWriters(PathBuf),
    /// It was replaced, edited or deleted behind the broker's back.
    #[error(
        "{0} was changed by somebody else; nothing was written: restart the broker to use what is there now"
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
    /// The file system refuses.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The file, held for writing as long as this value lives.
#[derive(Debug)]
pub struct VaultFile {
    dir: PathBuf,
    /// Hash of what was last read or written; `None`: there was no file.
    seen: Option<Sha256>,
    /// Released by the system when the process dies, however it dies.
    _exclusive: File,
}

impl VaultFile {
    /// Largest encrypted vault.
    pub const LIMIT_BYTES: u64 = 32 << 20;
    const NAME: &'static str = "vault.age";
    const TEMPORARY: &'static str = ".vault.age.new";
    const EXCLUSIVE: &'static str = ".vault.age.lock";

    /// Takes the directory for this process and reads the file, if there is one.
    pub fn open(dir: &Path) -> Result<(Self, Option<Vec<u8>>), FileError> {
        let path = dir.join(Self::EXCLUSIVE);
        let exclusive = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("opening", &path))?;
        match exclusive.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FileError::TwoWriters(dir.join(Self::NAME)));
            }
            Err(TryLockError::Error(e)) => return Err(failed("locking", &path)(e)),
        }
        let mut file = Self {
            dir: dir.to_owned(),
            seen: None,
            _exclusive: exclusive,
        };
        let blob = file.read()?;
        Ok((file, blob))
    }

    /// Reads the file again. What it holds is what the next write may replace.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, FileError> {
        let blob = self.load()?;
        self.seen = blob.as_deref().map(Sha256::of);
        Ok(blob)
    }

    /// Whether the file is still what was last read or written.
    pub fn unchanged(&self) -> Result<bool, FileError> {
        Ok(self.load()?.as_deref().map(Sha256::of) == self.seen)
    }

    /// Replaces the file. After an error the file is the old one, or the next write finds it changed and refuses.
    pub fn write(&mut self, blob: &[u8]) -> Result<(), FileError> {
        let path = self.dir.join(Self::NAME);
        if !self.unchanged()? {
            return Err(FileError::ChangedOutside(path));
        }
        let temporary = self.dir.join(Self::TEMPORARY);
        match std::fs::remove_file(&temporary) {
            Ok(()) => tracing::info!("removed what an interrupted write of the vault left"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("removing", &temporary)(e)),
        }
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed("making", &temporary))?;
        file.write_all(blob)
            .map_err(failed("writing", &temporary))?;
        file.sync_all().map_err(failed("syncing", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(failed("replacing", &path))?;
        // Without this the rename itself could be lost with the power.
        let dir = File::open(&self.dir).map_err(failed("opening", &self.dir))?;
        dir.sync_all().map_err(failed("syncing", &self.dir))?;
        self.seen = Some(Sha256::of(blob));
        Ok(())
    }

    fn load(&self) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.dir.join(Self::NAME);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("opening", &path)(e)),
        };
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

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
