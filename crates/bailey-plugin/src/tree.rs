//! The files of a directory plugin: listed, hashed, and packed so that equal files always make equal bytes.
//!
//! Nothing is left out: whatever lies in the folder is sealed and hashed, `__pycache__` too. Files and the folders that hold them are all
//! there is; a link, socket, pipe or device is refused, and so is a folder that everybody may write.

mod mark;
mod open;
mod pack;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bailey_types::Blake3;

pub use mark::Mark;

use crate::Manifest;

/// Most files of one plugin.
pub const MAX_FILES: usize = 20_000;
/// Most bytes of one plugin.
pub const MAX_BYTES: u64 = 256 << 20;
/// Deepest folder.
pub const MAX_DEPTH: usize = 24;
/// Longest path, bytes.
pub const MAX_PATH: usize = 240;

/// The files of one plugin, as they were when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    dir: PathBuf,
    /// By path relative to the folder, with `/`.
    pub files: BTreeMap<String, File>,
    /// Over all of them.
    pub blake3: Blake3,
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Whether its owner may execute it.
    pub executable: bool,
    /// Size.
    pub bytes: u64,
    /// Of its contents.
    pub blake3: Blake3,
}

/// Why a folder cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("reading {path}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
    /// Something lies there that must not.
    #[error("{path} {problem}")]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file is not what it was when it was hashed.
    #[error("{path} changed while it was read; try again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The tar could not be passed on.
    #[error("writing the tar")]
    Write(#[source] io::Error),
}

impl Tree {
    /// Lists and hashes all files below `dir`.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let files = scan::scan(dir)?;
        let blake3 = hash(&files);
        Ok(Self {
            dir: dir.to_owned(),
            files,
            blake3,
        })
    }

    /// Checks that the manifest's entrypoint is among the files and may be executed.
    pub fn check_entrypoint(&self, manifest: &Manifest) -> Result<(), Error> {
        let name = manifest.entrypoint_path();
        let refused = |problem| Error::Refused {
            path: self.dir.join(name),
            problem,
        };
        match self.files.get(name) {
            None => Err(refused(
                "is the manifest's entrypoint, but there is no such file",
            )),
            Some(file) if !file.executable => Err(refused(
                "is the manifest's entrypoint and must be executable (chmod +x)",
            )),
            Some(_) => Ok(()),
        }
    }

    /// Writes the tar that is sealed: every file below `plugin/`, sorted by path, owner 0:0, time 0, modes 0555 and 0444. A file that is
    /// no longer what was hashed is an error.
    pub fn write_tar(&self, to: impl io::Write) -> Result<(), Error> {
        pack::write(&self.dir, &self.files, to)
    }

    /// The base image that suits the entrypoint, by its first bytes: for plugins whose manifest does not name one. `None` if they tell nothing.
    pub fn suggested_image(&self, manifest: &Manifest) -> Result<Option<&'static str>, Error> {
        let start = scan::first_bytes(&self.dir, manifest.entrypoint_path())?;
        if start.starts_with(b"\x7fELF") {
            return Ok(Some("none"));
        }
        let line = start.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let Some(interpreter) = line.strip_prefix("#!") else {
            return Ok(None);
        };
        // `/usr/bin/env -S python3 -u`: any of the words may be the interpreter.
        let mut words = interpreter
            .split_whitespace()
            .filter_map(|word| word.rsplit('/').next());
        Ok(words.find_map(|word| match word {
            "sh" | "bash" | "dash" => Some("tools"),
            _ if word.starts_with("python") => Some("python"),
            _ => None,
        }))
    }
}

/// BLAKE3 of a version line and, for each file in the order of the paths' bytes: length of the path (4 bytes, big-endian), path, 1 if it is
/// executable or else 0, size (8 bytes, big-endian), BLAKE3 of the contents. Folders count only through the paths of their files.
pub fn hash(files: &BTreeMap<String, File>) -> Blake3 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"bailey tree v1\n");
    for (path, file) in files {
        let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
        hasher.update(&length.to_be_bytes()).update(path.as_bytes());
        hasher
            .update(&[u8::from(file.executable)])
            .update(&file.bytes.to_be_bytes())
            .update(&file.blake3.0);
    }
    Blake3(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests;
