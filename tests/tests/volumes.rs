//! deploy/volumes.sh, with volumes of a stack that has nothing else. That it brings a whole stack back is in e2e/canary.rs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stack_tests::checkout;

const TOOLS: &str = "bailey/base-tools:current";

/// A stack's volumes, and a folder for copies. A second stack's name begins like its own.
struct Stand {
    name: String,
    folder: tempfile::TempDir,
}

impl Stand {
    /// With what a service keeps, what a plugin keeps, and the other stack's vault.
    fn new(test: &str) -> Self {
        let stand = Self {
            name: format!("volumes-{test}-{}", std::process::id()),
            folder: tempfile::tempdir().unwrap(),
        };
        stand.remove_all();
        for (volume, label) in stand.volumes() {
            let label = format!("--label={label}");
            docker(&["volume", "create", &label, "--label=kept=too", &volume]);
        }
        stand.inside(
            &stand.own(),
            "echo one >/v/file; chown 10005:10005 /v/file; chmod 0640 /v/file; mkdir /v/d; chown 0:4711 /v/d; chmod 2750 /v/d",
        );
        stand.inside(&stand.state(), "echo two >/v/file");
        stand.inside(&stand.other(), "echo other >/v/file");
        stand
    }

    fn own(&self) -> String {
        format!("bailey-{}_data", self.name)
    }

    fn state(&self) -> String {
        format!("bailey-{}.state.greet.1", self.name)
    }

    fn other(&self) -> String {
        format!("bailey-{}_b_data", self.name)
    }

    fn volumes(&self) -> [(String, String); 3] {
        let project = format!("com.docker.compose.project=bailey-{}", self.name);
        [
            (self.own(), project.clone()),
            (self.state(), format!("bailey.stack={}", self.name)),
            (self.other(), format!("{project}_b")),
        ]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the script; what it said. With `broken`, the engine fails when a container is to run for the second time.
    fn script(&self, verb: &str, folder: &Path, broken: bool) -> Result<String, String> {
        let bin = self.path("bin");
        if broken {
            fs::create_dir(&bin).unwrap();
            let (program, count) = (bin.join("docker"), bin.join("count"));
            let text = format!(
                "#!/bin/sh\nif [ \"$1\" = run ]; then\n  [ ! -e {count} ] || exit 1\n  : >{count}\nfi\nPATH=${{PATH#*:}} exec docker \"$@\"\n",
                count = count.display()
            );
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Where there is no such folder, the engine is the one that is there.
        let mut command = Command::new("sh");
        command
            .args(["-c", "PATH=$0:$PATH exec deploy/volumes.sh \"$@\""])
            .arg(&bin)
            .arg(verb)
            .arg(folder)
            .current_dir(checkout())
            .env("BAILEY_HOME", self.path("home"))
            .env("BAILEY_STACK", &self.name)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        if broken {
            fs::remove_dir_all(bin).unwrap();
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        if output.status.success() {
            Ok(said)
        } else {
            Err(said)
        }
    }

    fn save(&self, folder: &Path) -> Result<String, String> {
        self.script("save", folder, false)
    }

    fn load(&self, folder: &Path) -> Result<String, String> {
        self.script("load", folder, false)
    }

    /// Asserts that it was refused, and why.
    fn refused(&self, verb: &str, folder: &Path, why: &str) {
        let said = self.script(verb, folder, false).unwrap_err();
        assert!(said.contains(why), "{verb}: {said}");
    }

    /// Runs `script` where the volume is at /v.
    fn inside(&self, volume: &str, script: &str) -> String {
        assert!(volume.contains(&self.name), "{volume} is somebody else's");
        let mount = format!("{volume}:/v");
        docker(&[
            "run",
            "--rm",
            "--pull",
            "never",
            "--network",
            "none",
            "-v",
            &mount,
            TOOLS,
            "sh",
            "-c",
            script,
        ])
    }

    /// What the first two volumes hold, and their labels.
    fn told(&self) -> String {
        let look = "stat -c '%n %u:%g %a' /v/*; cat /v/file";
        let mut told = String::new();
        for volume in [self.own(), self.state()] {
            told += &self.inside(&volume, look);
            told += &docker(&["volume", "inspect", "-f", "{{json .Labels}}", &volume]);
        }
        told
    }

    fn remove(&self) {
        docker(&["volume", "rm", &self.own(), &self.state()]);
    }

    fn remove_all(&self) {
        let loading = format!("bailey-{}.loading", self.name);
        let mut command = Command::new("docker");
        command
            .args(["volume", "rm", "--force", &loading])
            .args(self.volumes().map(|(volume, _)| volume));
        assert!(command.output().unwrap().status.success());
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove_all();
        }
    }
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_volumes_of_this_stack_and_of_no_other_come_back_as_they_were() {
    let stand = Stand::new("back");
    let (copy, before) = (stand.path("copy"), stand.told());
    // When they are saved
    assert!(stand.save(&copy).unwrap().contains("2 volumes are in"));
    // Then the other stack's is not among them, nor anything half
    let files =
        [stand.state(), stand.own()].map(|it| [format!("{it}.labels"), format!("{it}.tar")]);
    let mut files = files.concat();
    files.push("manifest.sha256".to_owned());
    assert_eq!(names(&copy), files);
    assert!(!stand.path("copy.partial").exists());
    // And nothing is written over, neither a copy nor a volume
    stand.refused("save", &copy, "nothing is written over");
    stand.refused("save", &stand.path("nowhere/copy"), "nowhere is not there");
    stand.refused("load", &copy, "nothing is written over");
    // When they are lost, and loaded
    stand.remove();
    assert!(
        stand
            .load(&copy)
            .unwrap()
            .contains("2 volumes are as they were saved")
    );
    // Then everything is as before
    assert_eq!(stand.told(), before);
    assert!(before.contains("10005:10005 640") && before.contains("0:4711 2750"));
    assert_eq!(stand.inside(&stand.other(), "cat /v/file"), "other\n");
    // And one that somebody made without labels is not written over either.
    stand.remove();
    docker(&["volume", "create", &stand.own()]);
    stand.refused("load", &copy, "there is a volume");
}

#[test]
fn nothing_to_save_leaves_nothing() {
    let stand = Stand::new("none");
    stand.remove();
    stand.refused("save", &stand.path("copy"), "has no volumes");
    assert!(!stand.path("copy").exists() && !stand.path("copy.partial").exists());
}

#[test]
fn a_stack_of_which_a_cell_runs_is_not_copied() {
    let stand = Stand::new("runs");
    let copy = stand.path("copy");
    for label in [
        format!("bailey.stack={}", stand.name),
        format!("com.docker.compose.project=bailey-{}", stand.name),
    ] {
        let id = docker(&[
            "run",
            "-d",
            "--rm",
            "--pull",
            "never",
            "--network",
            "none",
            "--label",
            &label,
            TOOLS,
            "sleep",
            "600",
        ]);
        let said = stand.save(&copy).unwrap_err();
        docker(&["rm", "--force", id.trim()]);
        assert!(said.contains("the stack runs and writes"), "{said}");
        assert!(!copy.exists());
    }
    assert!(stand.save(&copy).is_ok());
}

#[test]
fn a_save_that_breaks_off_leaves_no_copy() {
    let stand = Stand::new("half");
    let copy = stand.path("copy");
    assert!(stand.script("save", &copy, true).is_err());
    assert!(!copy.exists() && !stand.path("copy.partial").exists());
    // One that was killed leaves what is not loaded.
    assert!(stand.save(&copy).is_ok());
    let partial = stand.path("copy.partial");
    fs::rename(&copy, &partial).unwrap();
    fs::remove_file(partial.join("manifest.sha256")).unwrap();
    stand.refused("save", &copy, "if a save left it, remove it");
    stand.remove();
    stand.refused("load", &partial, "no copy that volumes.sh made");
}

#[test]
fn what_is_not_what_was_saved_is_not_loaded() {
    let stand = Stand::new("check");
    let copy = stand.path("copy");
    assert!(stand.save(&copy).is_ok());
    let tar = copy.join(format!("{}.tar", stand.own()));
    let bytes = fs::read(&tar).unwrap();
    stand.remove();
    let other = copy.join(format!("{}.tar", stand.other()));
    let labels = copy.join(format!("{}.labels", stand.other()));
    let manifest = copy.join("manifest.sha256");
    let listed = fs::read_to_string(&manifest).unwrap();
    let lines: Vec<_> = listed.lines().collect();
    let fewer = lines[..lines.len() - 2].join("\n") + "\n";
    // Cut, gone, one more, and a list that was cut
    fs::write(&tar, &bytes[..bytes.len() / 2]).unwrap();
    stand.refused("load", &copy, "is not what was saved");
    fs::remove_file(&tar).unwrap();
    stand.refused("load", &copy, "is not what was saved");
    fs::write(&tar, &bytes).unwrap();
    fs::write(&other, &bytes).unwrap();
    fs::write(&labels, "x=y\n").unwrap();
    stand.refused("load", &copy, "is not what was saved");
    fs::remove_file(&other).unwrap();
    fs::remove_file(&labels).unwrap();
    fs::write(&manifest, fewer).unwrap();
    stand.refused("load", &copy, "is not what was saved");
    // Or of another stack
    let changed = listed.replace(&format!("# stack {}", stand.name), "# stack another");
    fs::write(&manifest, changed).unwrap();
    stand.refused("load", &copy, "is not what was saved");
    // And nothing was made of any of it.
    let filter = format!("name=bailey-{}[._]data", stand.name);
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &filter]), "");
    fs::write(&manifest, listed).unwrap();
    assert!(stand.load(&copy).is_ok());
}

#[test]
fn a_load_that_broke_off_is_seen_and_can_be_repeated() {
    let stand = Stand::new("again");
    let (copy, before) = (stand.path("copy"), stand.told());
    assert!(stand.save(&copy).is_ok());
    stand.remove();
    // Given a load that broke off with one volume whole and one empty
    assert!(stand.script("load", &copy, true).is_err());
    // Then they are not taken for the stack's, neither by a save nor by `make up`
    stand.refused("save", &stand.path("second"), "a load broke off");
    let mut init = Command::new("deploy/init.sh");
    init.current_dir(checkout())
        .env("BAILEY_HOME", stand.path("home"))
        .env("BAILEY_STACK", &stand.name);
    let init = init.output().unwrap();
    assert!(!init.status.success());
    assert!(String::from_utf8_lossy(&init.stderr).contains("a load broke off"));
    // And once more is enough.
    assert!(stand.load(&copy).is_ok());
    assert_eq!(stand.told(), before);
    assert!(stand.save(&stand.path("second")).is_ok());
}
