//! What the containers cannot read of what the operator wrote. They run as uids of their own, so others must be able to.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bailey_config::{Config, Files};
use bailey_plugin::discovery;
use bailey_plugin::tree::{self, Tree};

use crate::Misconfigured;
use crate::home::Home;

/// Deepest folder of a plugin, and most of its entries, that are looked at: a larger one cannot be locked.
const MAX_DEPTH: usize = tree::MAX_DEPTH;
const MAX_ENTRIES: usize = tree::MAX_FILES;

/// What others may not read, one line each: files of the configuration, and folders of the plugins that it enables.
pub(crate) fn warnings(home: &Home, files: &Files, config: &Config) -> Vec<String> {
    let dir = home.config_dir();
    let paths = files.texts.keys().map(|name| dir.join(name));
    let closed = paths.filter(|path| is_closed(path, 0o004).unwrap_or(false));
    let mut warnings: Vec<_> = closed
        .map(|path| {
            let path = path.display();
            format!(
                "{path} can be read by its owner only, and not by the stack: `chmod a+r {path}`"
            )
        })
        .collect();
    let roots: Vec<_> = config
        .plugin_roots
        .iter()
        .map(|root| on_host(home, root))
        .filter(|root| root.is_dir())
        .collect();
    // What cannot be searched at all is said when it is locked.
    let Ok(found) = discovery::discover(&roots) else {
        return warnings;
    };
    let mut seen = Vec::new();
    for (name, plugin) in config.enabled_plugins() {
        let wanted = plugin.uses.as_ref().unwrap_or(name);
        let Some(found) = found.plugins.get(wanted) else {
            continue;
        };
        if seen.contains(&&found.dir) {
            continue;
        }
        seen.push(&found.dir);
        if has_closed(&found.dir, 0, &mut 0).unwrap_or(false) {
            let dir = found.dir.display();
            warnings.push(format!(
                "{dir} holds what only its owner can read, and not the stack: {}",
                opened(&found.dir)
            ));
        }
    }
    warnings
}

/// What opens a plugin's folder to the containers.
pub(crate) fn opened(dir: &Path) -> String {
    let shown = dir.strip_prefix(Home::PLUGINS_INSIDE).map_or_else(
        |_| dir.to_owned(),
        |rest| Path::new(Home::PLUGINS_OUTSIDE).join(rest),
    );
    format!("`chmod -R a+rX {}`", shown.display())
}

/// The files of a plugin, or what helps to read them.
pub(crate) fn tree(dir: &Path) -> anyhow::Result<Tree> {
    Tree::read(dir).map_err(|e| match e {
        tree::Error::Io { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
            let (path, way) = (path.display(), opened(dir));
            Misconfigured(format!("{path} cannot be read: {source}; {way}")).into()
        }
        e @ (tree::Error::Io { .. }
        | tree::Error::Refused { .. }
        | tree::Error::Changed { .. }
        | tree::Error::Write(_)) => e.into(),
    })
}

fn on_host(home: &Home, root: &Path) -> PathBuf {
    root.strip_prefix(Home::PLUGINS_INSIDE)
        .map_or_else(|_| root.to_owned(), |rest| home.plugin_roots().join(rest))
}

fn is_closed(path: &Path, wanted: u32) -> io::Result<bool> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    Ok(mode & wanted != wanted)
}

/// Whether others can read less than everything in `dir`.
fn has_closed(dir: &Path, depth: usize, entries: &mut usize) -> io::Result<bool> {
    if is_closed(dir, 0o005)? {
        return Ok(true);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        *entries += 1;
        if *entries > MAX_ENTRIES {
            return Ok(false);
        }
        let (path, kind) = (entry.path(), entry.file_type()?);
        let closed = if kind.is_dir() && depth < MAX_DEPTH {
            has_closed(&path, depth + 1, entries)?
        } else {
            kind.is_file() && is_closed(&path, 0o004)?
        };
        if closed {
            return Ok(true);
        }
    }
    Ok(false)
}
