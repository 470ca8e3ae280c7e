//! The files of a configuration, as texts.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use crate::assemble::{self, include_problem};
use crate::error::{Error, Errors};

/// The file that every configuration starts with.
pub const ROOT: &str = "config.yaml";

/// Most files of one configuration.
pub const MAX_FILES: usize = 64;

/// The texts of a configuration by their path relative to `config/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// [`ROOT`] and every included file.
    pub texts: BTreeMap<String, String>,
}

/// Reads [`ROOT`] in `dir` and all that it includes.
pub fn read_dir(dir: &Path) -> Result<Files, Errors> {
    let mut texts = BTreeMap::new();
    let mut wanted = vec![ROOT.to_owned()];
    while let Some(name) = wanted.pop() {
        // A file that is included twice is an error of `parse`, which knows both places.
        if texts.contains_key(&name) {
            continue;
        }
        if texts.len() == MAX_FILES {
            let message = format!("more than {MAX_FILES} files are included");
            return Err(Error {
                file: name,
                place: None,
                message,
            }
            .into());
        }
        let text = read_file(dir, &name)?;
        let raw = assemble::parse_file(&name, &text)?;
        let includes = raw
            .include
            .iter()
            .filter(|include| include_problem(&include.value).is_none());
        wanted.extend(includes.map(|include| include.value.clone()));
        texts.insert(name, text);
    }
    Ok(Files { texts })
}

fn read_file(dir: &Path, name: &str) -> Result<String, Error> {
    let failed = |message: String| Error {
        file: name.to_owned(),
        place: None,
        message,
    };
    let path = dir.join(name);
    let metadata =
        std::fs::symlink_metadata(&path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    if !metadata.is_file() {
        return Err(failed("is not a regular file".to_owned()));
    }
    if metadata.len() > bailey_yaml::MAX_BYTES as u64 {
        return Err(failed(format!(
            "has {} bytes; at most {} are allowed",
            metadata.len(),
            bailey_yaml::MAX_BYTES
        )));
    }
    let bytes = std::fs::read(&path).map_err(|e| {
        // The containers are not the owner.
        let way = if e.kind() == ErrorKind::PermissionDenied {
            format!("; `chmod a+r config/{name}`")
        } else {
            String::new()
        };
        failed(format!("cannot be read: {e}{way}"))
    })?;
    String::from_utf8(bytes).map_err(|e| failed(format!("is not UTF-8: {e}")))
}
