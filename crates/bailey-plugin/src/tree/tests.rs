use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn plugin(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, mode) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    dir
}

const FILES: &[(&str, &str, u32)] = &[
    ("run.py", "#!/usr/bin/env python3\n", 0o755),
    ("lib/b.py", "b", 0o644),
    ("a", "", 0o600),
];

fn manifest(entrypoint: &str) -> Manifest {
    let text = format!(
        "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: x\nprotocol: 2\nentrypoint: {entrypoint}\ncommands: [{{name: poll, type: read}}]"
    );
    Manifest::parse(&text).unwrap()
}

fn tar(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.write_tar(&mut bytes).unwrap();
    bytes
}

#[test]
fn equal_files_make_equal_hashes_and_tars_wherever_and_whenever() {
    let (one, two) = (plugin(FILES), plugin(&[FILES[2], FILES[1], FILES[0]]));
    // Times and the modes that are not the exec bit do not count.
    fs::set_permissions(
        two.path().join("lib/b.py"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::File::open(two.path().join("a"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let (one, two) = (
        Tree::read(one.path()).unwrap(),
        Tree::read(two.path()).unwrap(),
    );
    assert_eq!((one.blake3, tar(&one)), (two.blake3, tar(&two)));
}

#[test]
fn every_change_changes_the_hash() {
    let original = Tree::read(plugin(FILES).path()).unwrap().blake3;
    for (name, change) in [
        ("contents", vec![FILES[0], FILES[1], ("a", "x", 0o600)]),
        ("name", vec![FILES[0], FILES[1], ("c", "", 0o600)]),
        (
            "exec bit",
            vec![("run.py", FILES[0].1, 0o644), FILES[1], FILES[2]],
        ),
        (
            "one more",
            vec![
                FILES[0],
                FILES[1],
                FILES[2],
                ("__pycache__/x.pyc", "", 0o644),
            ],
        ),
        ("one less", vec![FILES[0], FILES[1]]),
        ("moved", vec![FILES[0], ("b.py", "b", 0o644), FILES[2]]),
    ] {
        assert_ne!(
            Tree::read(plugin(&change).path()).unwrap().blake3,
            original,
            "{name}"
        );
    }
}

#[test]
fn the_hash_is_the_documented_one() {
    let tree = Tree::read(plugin(&[("a", "hi", 0o700)]).path()).unwrap();
    let mut bytes = b"bailey tree v1\n\0\0\0\x01a\x01\0\0\0\0\0\0\0\x02".to_vec();
    bytes.extend(blake3::hash(b"hi").as_bytes());
    assert_eq!(tree.blake3.0, *blake3::hash(&bytes).as_bytes());
}

#[test]
fn the_tar_holds_the_files_below_plugin_and_nothing_of_the_host() {
    let dir = plugin(FILES);
    let bytes = tar(&Tree::read(dir.path()).unwrap());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 0)
            );
            assert_eq!(
                (
                    header.username_bytes().unwrap_or_default(),
                    header.groupname_bytes().unwrap_or_default()
                ),
                (&b""[..], &b""[..])
            );
            (
                entry.path().unwrap().display().to_string(),
                header.mode().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("plugin/", 0o555),
        ("plugin/lib/", 0o555),
        ("plugin/a", 0o444),
        ("plugin/lib/b.py", 0o444),
        ("plugin/run.py", 0o555),
    ];
    assert_eq!(
        entries,
        expected.map(|(path, mode)| (path.to_owned(), mode))
    );
}

#[test]
fn a_file_that_changes_after_it_was_hashed_is_not_sealed() {
    let dir = plugin(FILES);
    let tree = Tree::read(dir.path()).unwrap();
    for text in ["c", "cb", ""] {
        fs::write(dir.path().join("lib/b.py"), text).unwrap();
        let error = tree.write_tar(std::io::sink()).unwrap_err();
        assert!(
            matches!(error, Error::Changed { .. } | Error::Write(_)),
            "{text:?}: {error}"
        );
    }
}

#[test]
fn what_takes_the_place_of_a_file_is_neither_followed_nor_waited_for() {
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let elsewhere = plugin(&[("b.py", "b", 0o644)]);
    let pipe = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    };
    let changes: [Change; 3] = [
        ("lib/b.py", &pipe),
        ("lib/b.py", &|path| {
            std::os::unix::fs::symlink(elsewhere.path().join("b.py"), path).unwrap();
        }),
        ("lib", &|path| {
            std::os::unix::fs::symlink(elsewhere.path(), path).unwrap();
        }),
    ];
    for (name, change) in changes {
        let dir = plugin(FILES);
        let tree = Tree::read(dir.path()).unwrap();
        let (path, away) = (dir.path().join(name), dir.path().join("away"));
        fs::rename(&path, away).unwrap();
        change(&path);
        // The same bytes, but not of this plugin.
        assert!(tree.write_tar(std::io::sink()).is_err(), "{name}");
        // Between the look at the entry and its opening: the same opening, without the look.
        let opened = open::root(dir.path()).and_then(|root| open::below(&root, "lib/b.py"));
        assert!(matches!(opened, Ok(None) | Err(_)), "{name}");
        let entrypoint = manifest("lib/b.py");
        assert!(tree.suggested_image(&entrypoint).is_err(), "{name}");
    }
    let dir = plugin(FILES);
    let root = open::root(dir.path()).unwrap();
    assert!(open::below(&root, "lib/b.py").unwrap().is_some());
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let said = Tree::read(&link).unwrap_err().to_string();
    assert!(said.contains("is not a folder"), "{said}");
}

#[test]
fn links_pipes_and_world_writable_folders_are_refused() {
    let refused = |dir: &tempfile::TempDir| Tree::read(dir.path()).unwrap_err().to_string();
    let dir = plugin(FILES);
    std::os::unix::fs::symlink("/etc/shadow", dir.path().join("lib/link")).unwrap();
    assert!(refused(&dir).contains("lib/link is a symbolic link"));
    let dir = plugin(FILES);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert!(refused(&dir).contains("neither a file nor a folder"));
    let dir = plugin(FILES);
    fs::set_permissions(dir.path().join("lib"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&dir).contains("written by everybody"));
    let dir = plugin(&[("run\n.py", "", 0o755)]);
    assert!(refused(&dir).contains("control characters"));
}

#[test]
fn the_entrypoint_must_be_there_and_executable() {
    let dir = plugin(FILES);
    let tree = Tree::read(dir.path()).unwrap();
    assert!(tree.check_entrypoint(&manifest("run.py")).is_ok());
    assert!(tree.check_entrypoint(&manifest("./run.py")).is_ok());
    assert!(
        tree.check_entrypoint(&manifest("lib/b.py"))
            .unwrap_err()
            .to_string()
            .contains("chmod +x")
    );
    assert!(
        tree.check_entrypoint(&manifest("missing"))
            .unwrap_err()
            .to_string()
            .contains("no such file")
    );
}

#[test]
fn the_base_image_follows_from_how_the_entrypoint_starts() {
    for (start, image) in [
        ("#!/usr/bin/python3 -I\n", Some("python")),
        ("#!/usr/bin/env python3\n", Some("python")),
        ("#!/usr/bin/env -S python3 -u\n", Some("python")),
        ("#!/bin/sh\n", Some("tools")),
        ("#!/usr/bin/env bash\npython3\n", Some("tools")),
        ("\x7fELF\x02", Some("none")),
        ("#!/usr/bin/env node\n", None),
        ("print('no shebang')\n", None),
    ] {
        let dir = plugin(&[("p", start, 0o755)]);
        let tree = Tree::read(dir.path()).unwrap();
        assert_eq!(
            tree.suggested_image(&manifest("p")).unwrap(),
            image,
            "{start}"
        );
    }
}
