//! The part of a lock that happens on the host. In the place of `docker` stands a script that writes down what it was asked.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use crate::{Ran, text};

const DOCKER: &str = "#!/bin/sh
if [ \"$1\" = info ]; then echo /var/lib/docker; exit; fi
printf '%s\n' \"$@\" > ASKED
";

struct Host {
    home: tempfile::TempDir,
    /// Not below /tmp, which a cell has for itself.
    places: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            home: tempfile::tempdir().unwrap(),
            places: tempfile::tempdir_in("/var/tmp").unwrap(),
        };
        for dir in ["config", "secrets", "bin"] {
            fs::create_dir(host.home.path().join(dir)).unwrap();
        }
        let socket = host.home.path().join("docker.sock");
        for (name, contents) in [
            ("compose.yaml", String::new()),
            ("docker.sock", String::new()),
            (".env", format!("DOCKER_SOCKET={}\n", text(&socket))),
            ("bin/docker", DOCKER.replace("ASKED", text(&host.asked()))),
        ] {
            fs::write(host.home.path().join(name), contents).unwrap();
        }
        let docker = host.home.path().join("bin/docker");
        fs::set_permissions(docker, fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn asked(&self) -> PathBuf {
        self.home.path().join("asked")
    }

    fn configure(&self, accounts: &str) {
        let text = format!("accounts: {{default: {{}}, untrusted: {{}}{accounts}}}\n");
        fs::write(self.home.path().join("config/config.yaml"), text).unwrap();
    }

    async fn bailey(&self, args: &[&str]) -> Ran {
        let path = format!("{}:/usr/bin:/bin", text(&self.home.path().join("bin")));
        let compose = self.home.path().join("compose.yaml");
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bailey"));
        let output = command
            .args([
                "--home",
                text(self.home.path()),
                "--compose",
                text(&compose),
            ])
            .args(args)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

#[tokio::test]
async fn the_host_looks_at_its_paths_and_tells_the_container_what_they_are() {
    let host = Host::new();
    let notes = host.places.path().join("notes");
    fs::create_dir(&notes).unwrap();
    let ops = format!(
        ", ops: {{uid: 1000, gid: 100, mounts: [{{path: {}}}]}}",
        text(&notes)
    );
    host.configure(&ops);
    for args in [["plugin", "lock", "--all"].as_slice(), &["config", "lock"]] {
        host.bailey(args).await.expect(0);
        let asked = fs::read_to_string(host.asked()).unwrap();
        let found = asked.split("--host-paths\n").nth(1).unwrap().trim();
        let found: serde_json::Value = serde_json::from_str(found).unwrap();
        let inode = fs::metadata(&notes).unwrap().ino();
        assert_eq!(found[text(&notes)]["inode"], inode, "{asked}");
    }
    // A code commits what was previewed: nothing is looked at again.
    host.bailey(&["plugin", "lock", "--all", "K7MQ2XWA"])
        .await
        .expect(0);
    let asked = fs::read_to_string(host.asked()).unwrap();
    assert!(
        asked.contains("K7MQ2XWA") && !asked.contains("--host-paths"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_path_that_is_refused_stops_before_the_container() {
    let host = Host::new();
    let (notes, link) = (
        host.places.path().join("notes"),
        host.places.path().join("link"),
    );
    fs::create_dir(&notes).unwrap();
    symlink(&notes, &link).unwrap();
    let account =
        |path: &str| format!(", ops: {{uid: 1000, gid: 100, mounts: [{{path: {path}}}]}}");
    host.configure(&account(text(&link)));
    host.bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("is a symbolic link");
    host.configure(&account("/var/lib"));
    host.bailey(&["plugin", "lock", "--all"])
        .await
        .expect(78)
        .complains("holds or lies in /var/lib/docker, which is the Docker Engine's");
    assert!(!host.asked().exists());
}

#[tokio::test]
async fn without_host_paths_nothing_is_looked_at() {
    let host = Host::new();
    host.configure("");
    host.bailey(&["plugin", "lock", "--all"]).await.expect(0);
    let asked = fs::read_to_string(host.asked()).unwrap();
    assert!(!asked.contains("--host-paths"), "{asked}");
}
