//! The file that the lock is put into. Whether it can be is tried before the lock is signed: one that is signed and not there stops every job.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::Misconfigured;

/// The file of the lock, which can be replaced.
pub(super) struct Place(PathBuf);

impl Place {
    /// Tries everything that putting a lock there needs, by putting there what is there. Whoever puts another one there in that moment loses it,
    /// and the next look of the broker tells.
    pub(super) fn tried(path: &Path) -> anyhow::Result<Self> {
        let refused = |why: String| Misconfigured(format!("{why}; nothing was signed"));
        let shown = path.display();
        let found = match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => Some(found.uid()),
            Ok(_) => return Err(refused(format!("{shown} is not a regular file")).into()),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(refused(format!("{shown} cannot be looked at: {e}")).into()),
        };
        let copied = draft(path, |file| match found {
            Some(_) => io::copy(&mut File::open(path)?, file).map(drop),
            None => Ok(()),
        });
        let copied = copied.map_err(|e| {
            let folder = path.parent().unwrap_or(path).display();
            let way = way_out(&e, "owner and mode");
            refused(format!("no lock can be written into {folder}: {e}{way}"))
        })?;
        if let Some(owner) = found {
            copied.persist(path).map_err(|e| {
                let way = way_out(&e.error, "owner");
                let why = e.error;
                refused(format!(
                    "{shown} cannot be replaced: {why}; it belongs to uid {owner}{way}"
                ))
            })?;
        }
        Ok(Self(path.to_owned()))
    }

    /// Replaces the lock, so that a reader finds the old one or the new one and never a part.
    pub(super) fn put(&self, text: &str) -> anyhow::Result<()> {
        let path = &self.0;
        let put = draft(path, |file| file.write_all(text.as_bytes())).and_then(|file| {
            file.persist(path).map_err(|e| e.error)?;
            File::open(folder(path)?)?.sync_all()
        });
        put.with_context(|| format!("writing {}", path.display()))
    }
}

/// A file beside `path`, on the disk, with what `write` writes.
fn draft(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".bailey.lock")
        .tempfile_in(folder(path)?)?;
    write(file.as_file_mut())?;
    // Every service reads it.
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> io::Result<&Path> {
    path.parent()
        .ok_or_else(|| io::Error::other("the lock has no folder"))
}

/// What helps where the system says that something is not permitted.
fn way_out(error: &io::Error, what: &str) -> String {
    if error.kind() == ErrorKind::PermissionDenied {
        format!(": `make up` sets its {what}")
    } else {
        String::new()
    }
}
