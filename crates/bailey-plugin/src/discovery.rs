//! Finding plugins below the roots.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bailey_types::{Blake3, PluginName};

use crate::{Manifest, manifest};

/// The file that makes a folder a plugin.
pub const MANIFEST: &str = "manifest.yaml";

/// Deepest folder below a root that is looked into.
const MAX_DEPTH: usize = 8;
/// Most folders that are looked into.
const MAX_FOLDERS: usize = 50_000;
/// Largest manifest.
const MAX_MANIFEST_BYTES: u64 = 256 << 10;

/// A plugin that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its folder.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest's bytes.
    pub manifest_blake3: Blake3,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// By name; of several plugins of one name, the first.
    pub plugins: BTreeMap<PluginName, Found>,
    /// What was passed over, and why; one line each.
    pub warnings: Vec<String>,
    /// Folders of which we are not permitted to read what would tell whether they are plugins, or which.
    pub unreadable: Vec<PathBuf>,
}

/// A root cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist, or may not be read.
    #[error("searching the plugin root {root}")]
    Root {
        /// The folder.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are too many folders in it.
    #[error("the plugin root {root} has more than {MAX_FOLDERS} folders")]
    TooLarge {
        /// The folder.
        root: PathBuf,
    },
}

/// Searches the roots in their order. A root that is no folder is an error; a plugin that is no plugin is a warning.
pub fn discover(roots: &[PathBuf]) -> Result<Discovery, Error> {
    let mut discovery = Discovery::default();
    for root in roots {
        let failed = |source| Error::Root {
            root: root.clone(),
            source,
        };
        if !std::fs::metadata(root).map_err(failed)?.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let mut folders = vec![(root.clone(), 0)];
        let mut count = 0;
        while let Some((dir, depth)) = folders.pop() {
            count += 1;
            if count > MAX_FOLDERS {
                return Err(Error::TooLarge { root: root.clone() });
            }
            let inner = match subfolders(&dir) {
                Ok(inner) => inner,
                Err(source) if depth == 0 => return Err(failed(source)),
                Err(e) => {
                    discovery.warnings.push(format!("{}: {e}", dir.display()));
                    if e.kind() == io::ErrorKind::PermissionDenied {
                        discovery.unreadable.push(dir);
                    }
                    continue;
                }
            };
            if std::fs::symlink_metadata(dir.join(MANIFEST)).is_ok() {
                discovery.take(&dir);
                // What lies inside of a plugin belongs to it.
                continue;
            }
            if depth < MAX_DEPTH {
                folders.extend(inner.into_iter().rev().map(|dir| (dir, depth + 1)));
            }
        }
    }
    Ok(discovery)
}

/// The folders in `dir`, sorted, links not followed.
fn subfolders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut inner = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            inner.push(entry.path());
        }
    }
    inner.sort();
    Ok(inner)
}

impl Discovery {
    fn take(&mut self, dir: &Path) {
        let found = match read(dir) {
            Ok((found, text)) => {
                let path = dir.join(MANIFEST);
                let keys = manifest::unknown_keys(&text);
                self.warnings
                    .extend(keys.iter().map(|key| {
                        format!("{}: the key {key} means nothing here", path.display())
                    }));
                found
            }
            Err(problem) => {
                let path = dir.join(MANIFEST);
                self.warnings.push(format!("{}: {problem}", path.display()));
                let denied = |e: io::Error| e.kind() == io::ErrorKind::PermissionDenied;
                if std::fs::File::open(&path).is_err_and(denied) {
                    self.unreadable.push(dir.to_owned());
                }
                return;
            }
        };
        if let Some(first) = self.plugins.get(&found.manifest.name) {
            let (name, first) = (&found.manifest.name, first.dir.display());
            self.warnings.push(format!(
                "{}: another plugin {name} was found first, in {first}",
                dir.display()
            ));
            return;
        }
        self.plugins.insert(found.manifest.name.clone(), found);
    }
}

fn read(dir: &Path) -> Result<(Found, String), String> {
    let path = dir.join(MANIFEST);
    let metadata = std::fs::symlink_metadata(&path).map_err(|e| e.to_string())?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if metadata.len() > MAX_MANIFEST_BYTES {
        return Err(format!(
            "has {} bytes; at most {MAX_MANIFEST_BYTES} are allowed",
            metadata.len()
        ));
    }
    let mode = std::fs::metadata(dir)
        .map_err(|e| e.to_string())?
        .permissions()
        .mode();
    if mode & 0o002 != 0 {
        return Err("lies in a folder that everybody may write (chmod o-w)".to_owned());
    }
    let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
    let manifest = Manifest::parse(&text).map_err(|e| e.to_string())?;
    let manifest_blake3 = Blake3(*blake3::hash(text.as_bytes()).as_bytes());
    Ok((
        Found {
            dir: dir.to_owned(),
            manifest,
            manifest_blake3,
        },
        text,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: {name}\nprotocol: 2\nentrypoint: run.py\ncommands: [{{name: poll, type: read}}]\n"
        )
    }

    fn put(root: &Path, dir: &str, text: &str) {
        let dir = root.join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(MANIFEST), text).unwrap();
    }

    #[test]
    fn roots_are_searched_in_order_and_the_first_of_a_name_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(one.path(), "deep/er/greet", &manifest("greet"));
        put(one.path(), "deep/er/greet/vendored", &manifest("inner"));
        put(two.path(), "greet", &manifest("greet"));
        put(two.path(), "echo", &(manifest("echo") + "homepage: x\n"));
        put(
            two.path(),
            "broken",
            "manifest_spec: ductile.plugin\nname: [\n",
        );
        let found = discover(&[one.path().into(), two.path().into()]).unwrap();
        let names: Vec<_> = found.plugins.keys().map(PluginName::as_str).collect();
        assert_eq!(names, ["echo", "greet"]);
        assert!(
            found.plugins[&"greet".parse().unwrap()]
                .dir
                .starts_with(one.path())
        );
        assert_eq!(found.warnings.len(), 3, "{:?}", found.warnings);
        assert!(
            found.warnings[0].contains("broken/manifest.yaml: 2:7"),
            "{:?}",
            found.warnings
        );
        assert!(
            found.warnings[1].contains("homepage means nothing")
                && found.warnings[2].contains("found first")
        );
    }

    #[test]
    fn a_missing_root_is_an_error() {
        let error = discover(&["/nonexistent/plugins".into()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "searching the plugin root /nonexistent/plugins"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(discover(&[file.path().into()]).is_err());
    }

    #[test]
    fn a_folder_that_everybody_may_write_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a", &manifest("a"));
        std::fs::set_permissions(
            root.path().join("a"),
            std::fs::Permissions::from_mode(0o777),
        )
        .unwrap();
        let found = discover(&[root.path().into()]).unwrap();
        assert!(found.plugins.is_empty() && found.warnings[0].contains("chmod o-w"));
    }
}
