//! Walking a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bailey_types::Blake3;
use rustix::fs::{AtFlags, Dir, FileType, fstat, statat};

use super::{Error, File, MAX_BYTES, MAX_DEPTH, MAX_FILES, MAX_PATH, open};

pub(super) fn scan(dir: &Path) -> Result<BTreeMap<String, File>, Error> {
    let mut walk = Walk {
        files: BTreeMap::new(),
        bytes: 0,
    };
    let opened = open::root(dir).map_err(|error| not_opened(dir, error))?;
    walk.folder(&opened, dir, "", 0)?;
    Ok(walk.files)
}

struct Walk {
    files: BTreeMap<String, File>,
    bytes: u64,
}

impl Walk {
    fn folder(
        &mut self,
        opened: &OwnedFd,
        dir: &Path,
        prefix: &str,
        depth: usize,
    ) -> Result<(), Error> {
        let io = |error: rustix::io::Errno| Error::Io {
            path: dir.to_owned(),
            source: error.into(),
        };
        if fstat(opened).map_err(io)?.st_mode & 0o002 != 0 {
            return Err(refused(dir, "may be written by everybody (chmod o-w)"));
        }
        if depth > MAX_DEPTH {
            return Err(refused(dir, "lies too deep"));
        }
        for entry in Dir::read_from(opened).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = dir.join(std::ffi::OsStr::from_bytes(name));
            let name = std::str::from_utf8(name)
                .map_err(|_| refused(&path, "has a name that is not UTF-8"))?;
            let relative = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            if relative.len() > MAX_PATH || relative.bytes().any(|b| b < b' ' || b == 0x7f) {
                return Err(refused(
                    &path,
                    "has a name that is too long or holds control characters",
                ));
            }
            // The type of the entry itself: a link is never followed. What is opened may be another by then, and is looked at again.
            let stat = statat(opened, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let inner = open::folder(opened, name).map_err(|e| not_opened(&path, e))?;
                    self.folder(&inner, &path, &relative, depth + 1)?;
                }
                FileType::RegularFile => self.file(opened, name, &path, relative)?,
                FileType::Symlink => {
                    return Err(refused(
                        &path,
                        "is a symbolic link; a sealed plugin has none",
                    ));
                }
                FileType::Fifo
                | FileType::Socket
                | FileType::CharacterDevice
                | FileType::BlockDevice
                | FileType::Unknown => {
                    return Err(refused(&path, "is neither a file nor a folder"));
                }
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        path: &Path,
        relative: String,
    ) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        if self.files.len() == MAX_FILES {
            return Err(refused(path, "is one file too many for a plugin"));
        }
        let opened = open::file(dir, name).map_err(io)?;
        let (mut file, metadata) = opened.ok_or_else(|| Error::Changed {
            path: path.to_owned(),
        })?;
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.bytes > MAX_BYTES {
            return Err(refused(path, "makes the plugin too large to be sealed"));
        }
        let (bytes, blake3) = hash(&mut file, metadata.len()).map_err(io)?;
        if bytes != metadata.len() {
            return Err(Error::Changed {
                path: path.to_owned(),
            });
        }
        let executable = metadata.permissions().mode() & 0o100 != 0;
        self.files.insert(
            relative,
            File {
                executable,
                bytes,
                blake3,
            },
        );
        Ok(())
    }
}

fn refused(path: &Path, problem: &'static str) -> Error {
    Error::Refused {
        path: path.to_owned(),
        problem,
    }
}

/// Why a folder could not be opened: a link is not one either.
fn not_opened(path: &Path, source: io::Error) -> Error {
    if matches!(
        source
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error),
        Some(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP)
    ) {
        return refused(path, "is not a folder");
    }
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

/// Hashes at most one byte more than `expected`: a file that grows is noticed, not followed.
fn hash(file: &mut fs::File, expected: u64) -> io::Result<(u64, Blake3)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut file.take(expected.saturating_add(1)), &mut hasher)?;
    Ok((bytes, Blake3(*hasher.finalize().as_bytes())))
}

/// Enough of a file to see what starts it.
pub(super) fn first_bytes(dir: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io {
        path: dir.join(name),
        source,
    };
    let opened = open::root(dir).and_then(|root| open::below(&root, name));
    let (file, _) = opened.map_err(io)?.ok_or_else(|| Error::Changed {
        path: dir.join(name),
    })?;
    let mut start = Vec::new();
    file.take(256).read_to_end(&mut start).map_err(io)?;
    Ok(start)
}
