//! Replacing a file so that, whenever the machine stops, it is the old one or the new one, whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// What the file system refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub struct Failed {
    /// What was tried.
    pub doing: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
    /// Whether the new file stands in the old one's place, but may not outlive a loss of power.
    pub replaced: bool,
}

/// What the new file is like.
#[derive(Clone, Copy, Debug)]
pub struct Like<'a> {
    /// Its mode.
    pub mode: u32,
    /// It belongs to whom this belongs.
    pub owner_of: &'a Path,
}

/// Where tests let the process be killed or the disk fail (`fail`'s registry). Nothing of it is in a binary.
macro_rules! point {
    ($path:expr, $step:literal) => {
        #[cfg(test)]
        fail::fail_point!(&crate::faults::point($path, $step), |action| Err(
            crate::faults::injected($path, $step, action)
        ));
    };
}
pub(crate) use point;

/// Replaces `path`, or makes it. After an error the file is the old one, unless the error says that it was replaced.
pub fn replace(path: &Path, bytes: &[u8], like: Like) -> Result<(), Failed> {
    let temporary = temporary(path);
    let written = write_new(path, &temporary, bytes, like);
    if written.is_err() {
        // The first error is the one that helps. What stays is removed by the next write or start; on a full disk it would be in the way.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    std::fs::rename(&temporary, path).map_err(failed("replacing", path))?;
    // Without this the rename itself could be lost with the power.
    sync_folder(path).map_err(|failed| Failed {
        replaced: true,
        ..failed
    })
}

/// Has the disk keep what stands at `path`: who put it there may have been killed before that.
pub fn settle(path: &Path) -> Result<(), Failed> {
    point!(path, "found");
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Removes what an interrupted [`replace`] of `path` left.
pub fn clear(path: &Path) -> Result<(), Failed> {
    let temporary = temporary(path);
    match std::fs::remove_file(&temporary) {
        Ok(()) => {
            tracing::info!(
                "removed {}, left by a write that was interrupted",
                temporary.display()
            );
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("removing", &temporary)(e)),
    }
}

fn write_new(path: &Path, temporary: &Path, bytes: &[u8], like: Like) -> Result<(), Failed> {
    clear(path)?;
    point!(path, "begun");
    // `create_new` refuses whatever is there, links included.
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(like.mode)
        .open(temporary)
        .map_err(failed("making", temporary))?;
    point!(path, "made");
    give(&file, like.owner_of).map_err(failed("giving its owner", temporary))?;
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)
        .map_err(failed("writing", temporary))?;
    point!(path, "half-written");
    file.write_all(rest).map_err(failed("writing", temporary))?;
    point!(path, "written");
    file.sync_all().map_err(failed("syncing", temporary))?;
    point!(path, "synced");
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), Failed> {
    let folder = path.parent().unwrap_or(Path::new("."));
    point!(path, "renamed");
    sync_dir(folder)?;
    point!(path, "done");
    Ok(())
}

/// Has the disk keep what was renamed in `folder`.
pub fn sync_dir(folder: &Path) -> Result<(), Failed> {
    let dir = File::open(folder).map_err(failed("opening", folder))?;
    dir.sync_all().map_err(failed("syncing", folder))
}

/// Gives `file` to whom `owner_of` belongs. Whoever is that already needs no right to give anything away.
pub fn give(file: &File, owner_of: &Path) -> io::Result<()> {
    let (wanted, is) = (std::fs::metadata(owner_of)?, file.metadata()?);
    if (wanted.uid(), wanted.gid()) != (is.uid(), is.gid()) {
        fchown(file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    Ok(())
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// A file or folder that this process has to itself, among those who ask. The system gives it free when the process dies, however it dies.
#[derive(Debug)]
pub struct Exclusive(File);

impl Exclusive {
    /// Takes it, unless somebody has it.
    pub fn take(file: File) -> Result<Self, TryLockError> {
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // Closing would do, but for a child that was being started just now: it has the same open file until it is another program.
        let _ = self.0.unlock();
    }
}

/// A system's error with what was being done.
pub fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Failed + 'a {
    move |source| Failed {
        doing,
        path: path.to_owned(),
        source,
        replaced: false,
    }
}
