//! Writing the roots so that there are all of them or none, whenever the machine stops.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::{Error, names};

/// In `secrets_dir` while files are being written. Where it stands, every root is of an unfinished run: before it was made, none existed.
const MARKER: &str = ".init-unfinished";

/// Who may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Secret,
    Public,
}

/// A file that is to be written.
pub(crate) struct Draft {
    name: String,
    mode: Mode,
    bytes: Zeroizing<Vec<u8>>,
}

impl Draft {
    pub(crate) fn secret(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            mode: Mode::Secret,
            bytes: Zeroizing::new(bytes.to_vec()),
        }
    }

    pub(crate) fn public(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.to_owned(),
            mode: Mode::Public,
            bytes: Zeroizing::new(bytes.to_vec()),
        }
    }
}

/// Which roots of trust exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// These do.
    pub existing: Vec<PathBuf>,
    /// These do not.
    pub missing: Vec<PathBuf>,
    /// A run was interrupted: [`crate::make`] starts anew.
    pub unfinished: bool,
}

impl Survey {
    /// Whether the roots were made, all of them.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && !self.unfinished
    }
}

/// Says which roots of trust exist; changes nothing.
pub fn survey(config_dir: &Path, secrets_dir: &Path) -> Survey {
    let paths = names()
        .into_iter()
        .map(|(name, mode)| path(config_dir, secrets_dir, &name, mode));
    let (existing, missing) = paths.partition(|path| exists(path));
    Survey {
        existing,
        missing,
        unfinished: exists(&secrets_dir.join(MARKER)),
    }
}

pub(crate) fn path(config_dir: &Path, secrets_dir: &Path, name: &str, mode: Mode) -> PathBuf {
    match mode {
        Mode::Secret => secrets_dir.join(name),
        Mode::Public => config_dir.join(name),
    }
}

/// One run at a time, for as long as it lives.
pub(crate) struct Lock {
    dir: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, but for a child that was being started just now: it has the same open file until it is another program.
        let _ = self.dir.unlock();
    }
}

/// Locks the folders for one run and clears what an interrupted one left.
pub(crate) fn begin(config_dir: &Path, secrets_dir: &Path) -> Result<Lock, Error> {
    // The operator's own token lies in `secrets_dir`: others may pass through it, but not look around.
    make_dir(secrets_dir, 0o711)?;
    make_dir(config_dir, 0o755)?;
    let lock = lock(secrets_dir)?;
    let found = survey(config_dir, secrets_dir);
    if !found.unfinished && !found.existing.is_empty() {
        return Err(Error::Exists(found.existing));
    }
    let path = secrets_dir.join(MARKER);
    let marker = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    marker
        .and_then(|marker| marker.sync_all())
        .map_err(failed("making", &path))?;
    sync_dir(secrets_dir)?;
    remove(&found.existing)?;
    Ok(lock)
}

/// Keeps other runs out.
pub(crate) fn lock(secrets_dir: &Path) -> Result<Lock, Error> {
    // The lock is on the folder: it ends with this process, however that ends.
    let lock = File::open(secrets_dir).map_err(failed("opening", secrets_dir))?;
    lock.try_lock()
        .map_err(|_| Error::Busy(secrets_dir.to_owned()))?;
    Ok(Lock { dir: lock })
}

/// Writes all drafts, or removes what it wrote. The marker goes last.
pub(crate) fn write(
    _lock: &Lock,
    config_dir: &Path,
    secrets_dir: &Path,
    drafts: &[Draft],
) -> Result<(), Error> {
    let written = write_all(config_dir, secrets_dir, drafts);
    if written.is_err() {
        // The first error is the one that helps; if this fails too, the marker stays and the next run clears up.
        remove(&survey(config_dir, secrets_dir).existing)?;
    }
    let path = secrets_dir.join(MARKER);
    fs::remove_file(&path).map_err(failed("removing", &path))?;
    sync_dir(secrets_dir)?;
    written
}

fn write_all(config_dir: &Path, secrets_dir: &Path, drafts: &[Draft]) -> Result<(), Error> {
    for draft in drafts {
        let path = path(config_dir, secrets_dir, &draft.name, draft.mode);
        create(&path, draft.mode, &draft.bytes).map_err(failed("writing", &path))?;
    }
    sync_dir(config_dir)?;
    sync_dir(secrets_dir)
}

pub(crate) fn create(path: &Path, mode: Mode, bytes: &[u8]) -> std::io::Result<()> {
    let mode = match mode {
        Mode::Secret => 0o400,
        Mode::Public => 0o444,
    };
    // `create_new` refuses whatever is there, links included.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        fs::remove_file(path).map_err(failed("removing", path))?;
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(failed("making the folder", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(failed("syncing the folder", path))
}

/// A dangling link is in the way as much as a file.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A system's error with what was being done.
pub(crate) fn failed<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
