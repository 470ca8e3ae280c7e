//! The tar (POSIX ustar) of a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use bailey_types::Blake3;

use super::{Error, File, open};

/// Where the files lie in the image.
const PREFIX: &str = "plugin/";

pub(super) fn write(
    dir: &Path,
    files: &BTreeMap<String, File>,
    to: impl io::Write,
) -> Result<(), Error> {
    let mut tar = tar::Builder::new(to);
    for folder in folders(files) {
        append(
            &mut tar,
            tar::EntryType::Directory,
            &folder,
            0o555,
            0,
            io::empty(),
        )?;
    }
    let root = open::root(dir).map_err(|source| Error::Io {
        path: dir.to_owned(),
        source,
    })?;
    for (name, file) in files {
        let path = dir.join(name);
        let opened = open::below(&root, name).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let Some((source, _)) = opened else {
            return Err(Error::Changed { path });
        };
        let mut reader = Hashing {
            inner: source.take(file.bytes),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        let mode = if file.executable { 0o555 } else { 0o444 };
        append(
            &mut tar,
            tar::EntryType::Regular,
            &format!("{PREFIX}{name}"),
            mode,
            file.bytes,
            &mut reader,
        )?;
        if reader.bytes != file.bytes || Blake3(*reader.hasher.finalize().as_bytes()) != file.blake3
        {
            return Err(Error::Changed { path });
        }
    }
    tar.into_inner()
        .map_err(Error::Write)?
        .flush()
        .map_err(Error::Write)
}

/// Every folder that holds a file, each before those inside of it.
fn folders(files: &BTreeMap<String, File>) -> BTreeSet<String> {
    let mut folders = BTreeSet::from([PREFIX.to_owned()]);
    for name in files.keys() {
        folders.extend(
            name.match_indices('/')
                .filter_map(|(end, _)| Some(format!("{PREFIX}{}/", name.get(..end)?))),
        );
    }
    folders
}

fn append(
    tar: &mut tar::Builder<impl io::Write>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    bytes: u64,
    contents: impl Read,
) -> Result<(), Error> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    tar.append_data(&mut header, path, contents)
        .map_err(Error::Write)
}

struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(count as u64);
        Ok(count)
    }
}
