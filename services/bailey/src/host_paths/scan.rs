//! Looks into a folder that is to be given away: for sockets, and for what a mount shows there of what is never given away.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use super::{Found, Host};
use crate::output::count;

/// Most entries that are looked at: a folder of photographs must not take minutes.
const MAX_ENTRIES: usize = 100_000;

/// Refuses a folder that has a socket anywhere in it, or a place of `host` under another name. What was not looked at is noted: nothing is
/// passed over in silence.
pub(super) fn search(root: &Path, host: &Host, notes: &mut Vec<String>) -> Result<(), String> {
    bounded(root, host, MAX_ENTRIES, notes)
}

fn bounded(root: &Path, host: &Host, most: usize, notes: &mut Vec<String>) -> Result<(), String> {
    let mut folders = vec![root.to_owned()];
    let (mut entries, mut closed) = (0_usize, 0_usize);
    while let Some(folder) = folders.pop() {
        let Ok(listed) = fs::read_dir(&folder) else {
            closed += 1;
            continue;
        };
        for entry in listed {
            entries += 1;
            if entries > most {
                notes.push(format!(
                    "only the first {most} entries of {} were searched for sockets and for second names of the stack",
                    root.display()
                ));
                return Ok(());
            }
            let kind = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            match kind {
                Ok((path, kind)) if kind.is_socket() => {
                    return Err(format!(
                        "{} holds the socket {}: whoever can connect to it has what is behind it",
                        root.display(),
                        path.display()
                    ));
                }
                // A new look: what the folder lists of a mount point is what lies below the mount.
                Ok((path, kind)) if kind.is_dir() => match fs::symlink_metadata(&path) {
                    Ok(metadata) => {
                        host.check_inside(&path, Found::of(&metadata))
                            .map_err(|said| format!("{}: {said}", root.display()))?;
                        folders.push(path);
                    }
                    Err(_) => closed += 1,
                },
                Ok(_) => {}
                Err(_) => closed += 1,
            }
        }
    }
    if closed > 0 {
        notes.push(format!(
            "{} of {} could not be searched for sockets and for second names of the stack",
            count(closed, "entry"),
            root.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn nothing() -> Host {
        Host::new(Vec::new(), None)
    }

    #[test]
    fn a_socket_is_found_however_deep_and_other_files_pass() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "x").unwrap();
        let mut notes = Vec::new();
        assert_eq!(search(dir.path(), &nothing(), &mut notes), Ok(()));
        let _socket = UnixListener::bind(deep.join("agent.sock")).unwrap();
        let said = search(dir.path(), &nothing(), &mut notes).unwrap_err();
        assert!(said.contains("a/b/c/agent.sock"), "{said}");
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn what_is_not_searched_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut notes = Vec::new();
        assert_eq!(bounded(dir.path(), &nothing(), 3, &mut notes), Ok(()));
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(bounded(dir.path(), &nothing(), 2, &mut notes), Ok(()));
        assert!(notes[0].contains("first 2 entries"), "{notes:?}");
    }

    #[test]
    fn what_is_never_given_away_is_found_in_it_by_what_it_is() {
        // As a mount shows it there: no name is compared.
        let dir = tempfile::tempdir().unwrap();
        let shown = dir.path().join("a/shown");
        fs::create_dir_all(&shown).unwrap();
        let host = |path| Host::new(vec![(path, "this stack's".to_owned())], None);
        let mut notes = Vec::new();
        let said = search(dir.path(), &host(shown), &mut notes).unwrap_err();
        assert!(said.contains("which is this stack's"), "{said}");
        let beside = tempfile::tempdir().unwrap();
        let beside = host(beside.path().to_owned());
        assert_eq!(search(dir.path(), &beside, &mut notes), Ok(()));
    }
}
