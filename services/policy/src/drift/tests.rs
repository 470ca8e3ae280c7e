use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use bailey_plugin::{Limits, Manifest};
use bailey_trust::Walls;
use bailey_types::Sha256;

use super::*;

const MANIFEST: &str = "
manifest_spec: ductile.plugin
manifest_version: 1
name: greet
protocol: 2
entrypoint: run.py
commands: [{name: poll, type: read}]
";

/// A folder and its seal.
struct World {
    dir: tempfile::TempDir,
    locked: ProposedPlugin,
    known: Known,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        for file in ["manifest.yaml", "run.py", "lib/a.py"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        let locked = locked(dir.path());
        Self {
            dir,
            locked,
            known: Known::default(),
            clock: Clock::system(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn look(&mut self) -> Option<Drift> {
        self.known.look(&self.locked, &self.clock)
    }

    fn detail(&mut self) -> String {
        self.look().unwrap().detail
    }
}

fn locked(dir: &Path) -> ProposedPlugin {
    let tree = Tree::read(dir).unwrap();
    let files = tree.files.iter();
    ProposedPlugin {
        manifest: Manifest::parse(MANIFEST).unwrap(),
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: tree.blake3,
        files: files
            .map(|(path, file)| (path.clone(), file.blake3))
            .collect(),
        base: None,
        tar_sha256: Sha256([3; 32]),
        image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        entrypoint: Vec::new(),
        source: dir.display().to_string(),
        account: "default".parse().unwrap(),
        limits: Limits::default(),
        state: bailey_trust::StateKind::None,
        egress: Vec::new(),
        host_paths: Vec::new(),
        walls: Walls::default(),
        reset_state: false,
    }
}

#[test]
fn a_folder_has_drifted_for_as_long_as_it_differs() {
    let mut world = World::new();
    assert_eq!(world.look(), None);
    fs::write(world.path("run.py"), "run.PY").unwrap();
    assert_eq!(world.detail(), "run.py is another");
    assert_eq!(world.detail(), "run.py is another");
    fs::write(world.path("run.py"), "run.py").unwrap();
    assert_eq!(world.look(), None);
}

#[test]
fn whatever_differs_is_drift_and_is_named() {
    type Change = fn(&World);
    let changes: [(Change, &str); 6] = [
        (
            |w| fs::write(w.path("new.py"), "").unwrap(),
            "new.py is new",
        ),
        (
            |w| fs::remove_file(w.path("lib/a.py")).unwrap(),
            "lib/a.py is gone",
        ),
        (
            |w| {
                fs::rename(w.path("lib/a.py"), w.path("a.py")).unwrap();
                fs::write(w.path("b.py"), "").unwrap();
            },
            "a.py is new, and 2 more differ",
        ),
        (
            |w| fs::set_permissions(w.path("run.py"), Permissions::from_mode(0o755)).unwrap(),
            "the mode of a file is another",
        ),
        (
            |w| symlink("run.py", w.path("link")).unwrap(),
            "is a symbolic link",
        ),
        (
            |w| fs::remove_dir_all(w.dir.path()).unwrap(),
            "No such file",
        ),
    ];
    for (change, expected) in changes {
        let mut world = World::new();
        assert_eq!(world.look(), None);
        change(&world);
        let detail = world.detail();
        assert!(detail.contains(expected), "{detail} is not {expected}");
    }
}

#[test]
fn a_new_seal_of_the_changed_folder_ends_it() {
    let mut world = World::new();
    fs::write(world.path("run.py"), "another").unwrap();
    assert!(world.look().is_some());
    world.locked = locked(world.dir.path());
    assert_eq!(world.look(), None);
}

#[test]
fn a_look_is_kept_only_once_the_next_change_must_show() {
    let mut world = World::new();
    world.look();
    assert!(
        world.known.looked.is_none(),
        "the folder was made a moment ago"
    );
    let later = world.clock.now().plus(Duration::from_mins(1));
    world.clock = Clock::fixed(later);
    world.look();
    assert!(world.known.looked.is_some());
    fs::write(world.path("run.py"), "another").unwrap();
    assert!(world.look().is_some());
}
