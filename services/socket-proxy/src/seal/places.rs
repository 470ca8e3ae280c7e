//! Where cells keep what outlives them: a new volume takes over what the image has there, so an image may have nothing there but the base's folder.

use bailey_cell::{HOME, STATE};
use http::{Method, StatusCode};

use crate::engine::{self, Engine};

/// Whether each of the places is an empty folder that anybody may write to, or is not there at all. The error is a sentence.
pub(super) async fn check(
    engine: &Engine,
    container: &str,
) -> Result<Result<(), String>, engine::Error> {
    for place in [STATE, HOME] {
        let path = format!("/containers/{container}/archive?path={place}");
        let tar = match engine.call(Method::GET, &path, None).await {
            Ok(answer) => engine::read(answer).await?,
            Err(engine::Error::Answered {
                status: StatusCode::NOT_FOUND,
                ..
            }) => continue,
            Err(error) => return Err(error),
        };
        if !is_empty_folder(&tar) {
            return Ok(Err(format!(
                "{place} belongs to the base image: an empty folder of mode 0777 or nothing"
            )));
        }
    }
    Ok(Ok(()))
}

fn is_empty_folder(archive: &[u8]) -> bool {
    let mut archive = tar::Archive::new(archive);
    let Ok(mut entries) = archive.entries() else {
        return false;
    };
    let folder = entries.next().is_some_and(|entry| {
        entry.is_ok_and(|entry| {
            let header = entry.header();
            let open = header.mode().is_ok_and(|mode| mode & 0o7777 == 0o777);
            header.entry_type().is_dir() && open
        })
    });
    folder && entries.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, u32)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, mode) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_size(0);
            if kind.is_symlink() {
                tar.append_link(&mut header, path, "/etc").unwrap();
            } else {
                tar.append_data(&mut header, path, std::io::empty())
                    .unwrap();
            }
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn only_an_empty_open_folder_is_one() {
        use tar::EntryType::{Directory, Regular, Symlink};

        assert!(is_empty_folder(&archive(&[("state/", Directory, 0o777)])));
        for wrong in [
            archive(&[("state/", Directory, 0o755)]),
            archive(&[
                ("state/", Directory, 0o777),
                ("state/.curlrc", Regular, 0o644),
            ]),
            archive(&[("state", Symlink, 0o777)]),
            archive(&[("state", Regular, 0o777)]),
            Vec::new(),
        ] {
            assert!(!is_empty_folder(&wrong));
        }
    }
}
