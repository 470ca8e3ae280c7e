//! What an owner who is not root, but may use Docker, does with the scripts in deploy/: secrets/ holds files that he cannot even read.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use stack_tests::checkout;

const TOOLS: &str = "bailey/base-tools:current";
/// The owner, where the tests themselves are root's, and one who owns the same files on another machine.
const OWNER: u32 = 4711;
const OTHER: u32 = 4712;

/// A checkout of the owner's and of nobody else's, with a stack that has folders and one volume but never ran.
struct Stand {
    name: String,
    folder: tempfile::TempDir,
    uid: u32,
}

impl Stand {
    fn new(test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let me = folder.path().metadata().unwrap().uid();
        let stand = Self {
            name: format!("owner-{test}-{}", std::process::id()),
            folder,
            uid: if me == 0 { OWNER } else { me },
        };
        for part in [
            "Cargo.toml",
            "compose.yaml",
            "compose",
            "deploy",
            "tailscale",
        ] {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(checkout().join(part)).arg(stand.root());
            assert!(copy.status().unwrap().success(), "{part}");
        }
        stand.as_root(&format!("chown -R {} /root", stand.uid));
        stand
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// As `make up` leaves it: the owner's folders, with files of the services in them that only they read.
    fn with_a_stack(&self) {
        self.as_root(&format!(
            "cd /root && umask 022 && mkdir -p config secrets/cli plugin-roots/mine/words
             echo BAILEY_STACK={name} >.env && echo yaml >config/config.yaml && echo py >plugin-roots/mine/words/run.py
             chown -R {uid} .env config secrets plugin-roots && chgrp 10012 config && chmod 1775 config && chmod 0711 secrets
             echo key >secrets/age.key && chown 10005:10005 secrets/age.key
             echo token >secrets/cli/admin.token && chown -R 10012:10012 secrets/cli && chmod 0700 secrets/cli
             chmod 0400 secrets/age.key secrets/cli/admin.token",
            name = self.name,
            uid = self.uid,
        ));
    }

    /// Owners, modes and contents of all that the stack has beside its volumes.
    fn told(&self) -> String {
        self.as_root(
            "cd /root && for f in .env $(find config secrets plugin-roots | sort); do stat -c '%n %u:%g %a' $f; [ -d $f ] || cat $f; done",
        )
    }

    /// Runs something where the stand's folder is at /root, and cleans up behind what has other owners.
    fn as_root(&self, script: &str) -> String {
        let mount = format!("{}:/root", self.root().display());
        let container = ["run", "--rm", "--pull", "never", "--network", "none", "-v"];
        docker(&[&container[..], &[&mount, TOOLS, "sh", "-euc", script]].concat())
    }

    /// A command of the owner's: with the rights that the group docker has, and no others. No image can be lost by it.
    fn owner(&self, uid: u32, script: &str) -> Output {
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .current_dir(self.root())
            .env_clear()
            .env("HOME", self.root())
            .env("BAILEY_STACK", &self.name)
            .env("BAILEY_TAG", "no-such-tag")
            .env("CONFIRM", "yes")
            .env(
                "PATH",
                format!(
                    "{}:/usr/sbin:/usr/bin:/sbin:/bin",
                    self.path("bin").display()
                ),
            )
            .stdin(Stdio::null());
        if Path::new("/proc/self").metadata().unwrap().uid() == 0 {
            let socket = Path::new("/var/run/docker.sock").metadata().unwrap();
            command.uid(uid).gid(socket.gid());
        }
        command.output().unwrap()
    }

    /// What it said, of a command that succeeds.
    fn done(&self, script: &str) -> String {
        let output = self.owner(self.uid, script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// Asserts that it was refused, and why.
    fn refused(&self, script: &str, why: &str) {
        let output = self.owner(self.uid, script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(why),
            "{script}: {said}"
        );
    }

    /// An engine that notes which images are to go, and removes none. Beside a file `alone` it knows of no other stack.
    fn keep_images(&self) {
        let bin = self.path("bin");
        fs::create_dir(&bin).unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in\nrmi* | 'image prune'*) echo \"$@\" >>{root}/asked; exit ;;
             *'label=com.docker.compose.project --format'*) [ ! -e {root}/alone ] || exit 0 ;;\nesac
             PATH=${{PATH#*:}} exec docker \"$@\"\n",
            root = self.root().display()
        );
        fs::write(bin.join("docker"), text).unwrap();
        fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.as_root("rm -rf /root/* /root/.env");
        }
    }
}

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn the_owner_copies_what_he_cannot_read_and_brings_it_back() {
    let stand = Stand::new("copy");
    stand.with_a_stack();
    let before = stand.told();
    assert!(
        before.contains("secrets/cli/admin.token 10012:10012 400\ntoken"),
        "{before}"
    );
    // When it is saved
    stand.done("mkdir backup && deploy/home.sh save backup/home.tar.gz");
    // Then nobody else reads the copy, nothing half is beside it, and nothing is written over.
    let copy = stand.path("backup/home.tar.gz");
    assert_eq!(
        (mode(&copy), copy.metadata().unwrap().uid()),
        (0o600, stand.uid)
    );
    assert_eq!(fs::read_dir(stand.path("backup")).unwrap().count(), 1);
    stand.refused(
        "deploy/home.sh save backup/home.tar.gz",
        "nothing is written over",
    );
    stand.refused(
        "deploy/home.sh save nowhere/home.tar.gz",
        "nowhere is not there",
    );
    stand.refused(
        "deploy/home.sh load backup/home.tar.gz",
        "nothing is written over",
    );
    assert_eq!(stand.told(), before);
    // What a link leads to would not be in it.
    stand.done("mv config elsewhere && ln -s elsewhere config");
    stand.refused("deploy/home.sh save another.tar.gz", "config is a link");
    stand.done("rm config && mv elsewhere config");
    assert_eq!(stand.told(), before);
    // When all of it is lost, half a copy brings back nothing
    stand.as_root("cd /root && rm -rf .env config secrets plugin-roots");
    let bytes = fs::read(&copy).unwrap();
    fs::write(stand.path("half"), &bytes[..bytes.len() / 2]).unwrap();
    stand.refused("deploy/home.sh load half", "is not what was saved");
    assert!(!stand.path("secrets").exists() && !stand.path(".env").exists());
    // And a whole one all of it.
    stand.done("deploy/home.sh load backup/home.tar.gz");
    assert_eq!(stand.told(), before);
    assert!(!stand.path(".home.partial").exists());
}

#[test]
fn a_copy_is_its_owners_on_a_machine_that_counts_users_otherwise() {
    let stand = Stand::new("uid");
    stand.with_a_stack();
    let before = stand.told();
    stand.done("deploy/home.sh save home.tar.gz");
    stand.as_root("cd /root && rm -rf .env config secrets plugin-roots");
    let other = if stand.uid == OWNER { OTHER } else { stand.uid };
    stand.as_root(&format!("chown {other} /root/home.tar.gz"));
    let loaded = stand.owner(other, "deploy/home.sh load home.tar.gz");
    assert!(loaded.status.success(), "{loaded:?}");
    let expected = before.replace(&format!(" {}:", stand.uid), &format!(" {other}:"));
    assert_eq!(stand.told(), expected);
}

#[test]
fn the_owner_removes_all_of_it_and_leaves_the_images_to_other_stacks() {
    let stand = Stand::new("clean");
    stand.with_a_stack();
    stand.keep_images();
    let (project, other) = (
        format!("bailey-{}", stand.name),
        format!("bailey-{}-b", stand.name),
    );
    let volume = |name: &str, labels: &[String]| {
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let all: Vec<_> = ["volume", "create"]
            .into_iter()
            .chain(labels)
            .chain([name])
            .collect();
        docker(&all);
    };
    let listed = || {
        let filter = format!("name={}", stand.name);
        docker(&["volume", "ls", "-q", "--filter", &filter])
    };
    volume(
        &format!("{project}_engine-data"),
        &[
            format!("com.docker.compose.project={project}"),
            "com.docker.compose.volume=engine-data".into(),
        ],
    );
    let state = [
        format!("bailey.stack={}", stand.name),
        "bailey.volume=state".into(),
    ];
    volume(&format!("{project}.state.words.1"), &state);
    let loading = [format!("bailey.loading={}", stand.name)];
    volume(&format!("{project}.loading"), &loading);
    volume(&other, &[format!("com.docker.compose.project={other}")]);
    stand.as_root("mkdir -m 0700 /root/.home.partial");
    // Where no engine answers, nothing is removed.
    let before = listed();
    stand.refused(
        "DOCKER_SOCKET=/nowhere.sock deploy/clean.sh",
        "nothing was. Start it",
    );
    assert_eq!((listed(), stand.path("secrets").exists()), (before, true));
    // When there is another stack
    let said = stand.done("deploy/clean.sh");
    let left = listed();
    docker(&["volume", "rm", &other]);
    // Then nothing of this one is left, and no image was asked for.
    assert!(said.contains(&format!("{}-b", stand.name)), "{said}");
    assert_eq!(left.trim(), other);
    for part in [
        "secrets",
        "config",
        ".env",
        "plugin-roots/first-party",
        ".home.partial",
    ] {
        assert!(!stand.path(part).exists(), "{part}");
    }
    assert!(stand.path("plugin-roots/mine/words/run.py").exists());
    assert!(!stand.path("asked").exists());
    // And where there is none, they go.
    fs::write(stand.path("alone"), "").unwrap();
    stand.done("deploy/clean.sh");
    let asked = fs::read_to_string(stand.path("asked")).unwrap();
    assert!(asked.contains("image prune"), "{asked}");
}

#[test]
fn what_the_services_read_is_readable_whatever_the_umask() {
    let stand = Stand::new("umask");
    stand.as_root("chmod 0700 /root/tailscale && chmod 0600 /root/tailscale/*");
    stand.done("umask 077 && deploy/settings.sh");
    for folder in [
        "plugin-roots",
        "plugin-roots/first-party",
        "plugin-roots/mine",
        "tailscale",
    ] {
        assert_eq!(mode(&stand.path(folder)), 0o755, "{folder}");
    }
    assert_eq!(mode(&stand.path("tailscale/serve.json")), 0o644);
    assert_eq!(mode(&stand.path("secrets/ts_authkey")), 0o600);
}
