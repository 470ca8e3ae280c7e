//! Opening what lies in a folder that somebody else may change meanwhile: no link is followed, no pipe waited for, and everything below a
//! folder is looked for in the folder that was opened.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// The folder that `dir` names itself.
pub(super) fn root(dir: &Path) -> io::Result<OwnedFd> {
    folder(CWD, dir)
}

/// The folder `name` in `dir`; an error where it is a link or anything else.
pub(super) fn folder(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, OFlags::RDONLY | flags, Mode::empty())?)
}

/// The regular file `name` in `dir`; `None` where it is something else by now. Without waiting: a pipe would keep whoever opens it.
pub(super) fn file(
    dir: impl AsFd,
    name: impl rustix::path::Arg,
) -> io::Result<Option<(fs::File, fs::Metadata)>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(dir, name, OFlags::RDONLY | flags, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        // A link; a socket, or a device that is not there.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

/// The regular file at `path` below `root`, with no link on the way.
pub(super) fn below(root: &OwnedFd, path: &str) -> io::Result<Option<(fs::File, fs::Metadata)>> {
    let Some((first, rest)) = path.split_once('/') else {
        return file(root, path);
    };
    below(&folder(root, first)?, rest)
}
