//! Walking a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bailey_types::Blake3;

use super::{Error, File, MAX_BYTES, MAX_DEPTH, MAX_FILES, MAX_PATH};

pub(super) fn scan(dir: &Path) -> Result<BTreeMap<String, File>, Error> {
    let mut walk = Walk {
        files: BTreeMap::new(),
        bytes: 0,
    };
    walk.folder(dir, "", 0)?;
    Ok(walk.files)
}

struct Walk {
    files: BTreeMap<String, File>,
    bytes: u64,
}

impl Walk {
    fn folder(&mut self, dir: &Path, prefix: &str, depth: usize) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: dir.to_owned(),
            source,
        };
        let refused = |path: &Path, problem| Error::Refused {
            path: path.to_owned(),
            problem,
        };
        let metadata = fs::symlink_metadata(dir).map_err(io)?;
        if !metadata.is_dir() {
            return Err(refused(dir, "is not a folder"));
        }
        if metadata.permissions().mode() & 0o002 != 0 {
            return Err(refused(dir, "may be written by everybody (chmod o-w)"));
        }
        if depth > MAX_DEPTH {
            return Err(refused(dir, "lies too deep"));
        }
        for entry in fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| refused(&path, "has a name that is not UTF-8"))?;
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
            // The type of the entry itself: a link is never followed.
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() {
                self.folder(&path, &relative, depth + 1)?;
            } else if kind.is_file() {
                self.file(&path, relative)?;
            } else if kind.is_symlink() {
                return Err(refused(
                    &path,
                    "is a symbolic link; a sealed plugin has none",
                ));
            } else {
                return Err(refused(&path, "is neither a file nor a folder"));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, relative: String) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let refused = |problem| Error::Refused {
            path: path.to_owned(),
            problem,
        };
        if self.files.len() == MAX_FILES {
            return Err(refused("is one file too many for a plugin"));
        }
        let mut file = fs::File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.bytes > MAX_BYTES {
            return Err(refused("makes the plugin too large to be sealed"));
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

/// Hashes at most one byte more than `expected`: a file that grows is noticed, not followed.
fn hash(file: &mut fs::File, expected: u64) -> io::Result<(u64, Blake3)> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut file.take(expected.saturating_add(1)), &mut hasher)?;
    Ok((bytes, Blake3(*hasher.finalize().as_bytes())))
}

/// Enough of a file to see what starts it.
pub(super) fn first_bytes(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    fs::File::open(path)?.take(256).read_to_end(&mut start)?;
    Ok(start)
}
