//! The part of a lock that happens on the host. In the place of `docker` stands a script that writes down what it was asked.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use crate::{Ran, ran, text};

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
        self.bailey_at(args, Stdio::null()).await
    }

    /// With what is given as its standard input.
    async fn bailey_at(&self, args: &[&str], stdin: Stdio) -> Ran {
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
            .stdin(stdin)
            .output()
            .await
            .unwrap();
        ran(output)
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

/// A container that does what `script` says, with what it was given on standard input in the file `given`.
fn container(host: &Host, script: &str) {
    let docker = host.home.path().join("bin/docker");
    let asked = host.asked();
    let text = format!(
        "#!/bin/sh\nprintf '%s ' \"$@\" >>{0}; echo >>{0}\n{script}\n",
        text(&asked)
    );
    fs::write(docker, text).unwrap();
}

#[tokio::test]
async fn a_refusal_of_the_container_stands_for_itself() {
    let host = Host::new();
    container(&host, "echo 'bailey: there is no secret x' >&2; exit 78");
    let refused = host.bailey(&["vault", "describe", "x"]).await.expect(78);
    assert_eq!(refused.stderr, "bailey: there is no secret x\n");
}

#[tokio::test]
async fn only_the_vaults_status_says_that_it_is_closed() {
    let host = Host::new();
    container(&host, "cat >/dev/null; exit 2");
    host.bailey(&["vault", "status"]).await.expect(2);
    // A Docker that crashes ends so too, and has said nothing of the vault.
    for other in [&["list"][..], &["unseal"], &["adopt"], &["rotate-key"]] {
        host.bailey(&[&["vault"], other].concat()).await.expect(1);
    }
}

#[tokio::test]
async fn a_token_that_went_into_a_file_is_said_to_be_there() {
    let host = Host::new();
    container(&host, "echo bly_x");
    let file = host.home.path().join("phone.token");
    let create = [
        "token",
        "create",
        "--name",
        "phone",
        "--scope",
        "*",
        "--out",
        text(&file),
    ];
    let made = host.bailey(&create).await.expect(0);
    assert!(!made.stdout.contains("bly_x"), "{made:?}");
    made.says(&format!(
        "wrote {}, readable by its owner only",
        text(&file)
    ));
    assert_eq!(fs::read_to_string(&file).unwrap(), "bly_x\n");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o400);
    // Never over another, and nothing stays of one that was refused.
    host.bailey(&create)
        .await
        .expect(1)
        .complains("never overwritten");
    fs::remove_file(&file).unwrap();
    container(&host, "exit 1");
    host.bailey(&create).await.expect(1);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_restore_is_told_first_and_done_only_with_consent() {
    let host = Host::new();
    container(&host, "echo '  good again: the secret leaked'");
    let copy = host.home.path().join("vault.age");
    fs::write(&copy, "copy").unwrap();
    let restore = ["vault", "restore", text(&copy), "--replace"];
    // Nobody sits there who could be asked.
    host.bailey(&restore)
        .await
        .expect(78)
        .says("good again: the secret leaked")
        .complains("the same with --yes does it");
    let asked = || fs::read_to_string(host.asked()).unwrap();
    assert!(
        asked().ends_with("custody restore --replace \n"),
        "{}",
        asked()
    );
    host.bailey(&[&restore[..], &["--yes"]].concat())
        .await
        .expect(0);
    assert!(
        asked().ends_with("custody restore --replace --yes \n"),
        "{}",
        asked()
    );
    assert_eq!(asked().lines().count(), 2);
    // The file that is taken over is the one that was shown.
    container(&host, "echo 'good: the secret demo'; echo 'sha256 0123ab'");
    let shown = host.bailey(&["vault", "adopt"]).await.expect(78);
    shown
        .says("good: the secret demo")
        .complains("--yes --expect 0123ab");
    assert!(asked().ends_with("custody adopt \n"), "{}", asked());
    let adopt = ["vault", "adopt", "--yes", "--expect", "0123ab"];
    host.bailey(&adopt).await.expect(0);
    assert!(
        asked().ends_with("custody adopt --yes --expect 0123ab \n"),
        "{}",
        asked()
    );
    // Where nothing is to be taken over, nothing is asked.
    container(&host, "echo 'the vault is your own'");
    host.bailey(&["vault", "adopt"]).await.expect(0);
    // What cannot be done is not asked about.
    container(&host, "echo 'bailey: the broker runs' >&2; exit 78");
    let refused = host.bailey(&restore).await.expect(78);
    assert_eq!(refused.stderr, "bailey: the broker runs\n");
}

#[tokio::test]
async fn a_key_is_asked_for_at_a_terminal_only() {
    let host = Host::new();
    let copy = host.home.path().join("vault.age");
    fs::write(&copy, "copy").unwrap();
    // Without a terminal of its own, whoever runs the tests.
    let mut command = tokio::process::Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_bailey"), "vault", "restore"]);
    command.args([text(&copy), "--identity", "-"]);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    ran(output)
        .expect(78)
        .complains("is asked for at a terminal")
        .complains("--identity FILE");
}

#[tokio::test]
async fn what_was_shown_before_it_was_agreed_to_is_not_shown_again() {
    let host = Host::new();
    let script = "cat >/dev/null; echo 'differs in this:'; echo '  good again: leaked'\ncase $* in *--yes*) echo 'restored 1 secret';; esac";
    container(&host, script);
    let copy = host.home.path().join("vault.age");
    fs::write(&copy, "copy").unwrap();
    let (_controller, terminal) = crate::vault::typed(b"y\n");
    let restore = ["vault", "restore", text(&copy)];
    let restored = host.bailey_at(&restore, terminal.into()).await.expect(0);
    assert_eq!(
        restored.stdout,
        "differs in this:\n  good again: leaked\nrestored 1 secret\n"
    );
    // What is different by then is shown.
    let (_controller, terminal) = crate::vault::typed(b"y\n");
    container(
        &host,
        &script
            .replace("echo '  good again: leaked'", "echo \"  $(wc -l <ASKED)\"")
            .replace("ASKED", text(&host.asked())),
    );
    let restored = host.bailey_at(&restore, terminal.into()).await.expect(0);
    assert_eq!(restored.stdout.matches("differs in this").count(), 2);
}
