//! Verbs that touch files only.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use crate::{bailey, listing, text};

#[tokio::test]
async fn init_makes_everything_once_and_a_second_run_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let args = ["--home", text(home.path()), "init", "--stack", "attic"];
    bailey(args)
        .await
        .expect(0)
        .says("roots of trust: made for the stack attic")
        .says("configuration: made config.yaml");
    let config = home.path().join("config");
    let before: Vec<_> = listing(&config)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert_eq!(listing(&config).len(), 5, "{:?}", listing(&config));
    bailey(args)
        .await
        .expect(0)
        .says("roots of trust: were there")
        .says("configuration: was there");
    let after: Vec<_> = listing(&config)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    assert_eq!(before, after);
    bailey(["--home", text(home.path()), "config", "check"])
        .await
        .expect(0)
        .says("nothing is wrong");
}

#[tokio::test]
async fn init_as_root_gives_each_file_its_owner() {
    let home = tempfile::tempdir().unwrap();
    let run = bailey(["--home", text(home.path()), "init", "--owner", "1234:5678"]).await;
    if fs::metadata(home.path()).unwrap().uid() != 0 {
        run.expect(78).complains("--owner needs root");
        return;
    }
    run.expect(0);
    let owner = |name: &str| {
        let metadata = fs::metadata(home.path().join(name)).unwrap();
        (
            metadata.uid(),
            metadata.gid(),
            metadata.permissions().mode() & 0o7777,
        )
    };
    assert_eq!(owner("config"), (1234, 10012, 0o1775));
    assert_eq!(owner("config/config.yaml"), (1234, 5678, 0o644));
    assert_eq!(owner("config/trust.json"), (0, 0, 0o444));
    assert_eq!(owner("secrets"), (1234, 5678, 0o711));
    assert_eq!(owner("secrets/cli"), (10012, 10012, 0o700));
    assert_eq!(owner("secrets/age.key"), (10005, 10005, 0o400));
    assert_eq!(owner("secrets/enroll-gateway"), (10001, 10001, 0o400));
    // What is made later belongs to the container `cli`, whoever unpacked a copy of it.
    let (token, lock) = ("secrets/cli/admin.token", "config/bailey.lock");
    for name in [token, lock] {
        let path = home.path().join(name);
        fs::write(&path, "x").unwrap();
        chown(&path, Some(1234), Some(5678)).unwrap();
    }
    let again = ["--home", text(home.path()), "init", "--owner", "1234:5678"];
    bailey(again).await.expect(0);
    assert_eq!(owner(token), (10012, 10012, 0o400));
    assert_eq!(owner(lock), (10012, 10012, 0o644));
    // That container could put anything in their place: what a link leads to is given to nobody.
    let key = home.path().join("secrets/age.key");
    for (name, hard) in [(token, false), (lock, false), (lock, true)] {
        let path = home.path().join(name);
        fs::remove_file(&path).unwrap();
        if hard {
            fs::hard_link(&key, &path).unwrap();
        } else {
            symlink(&key, &path).unwrap();
        }
        bailey(again)
            .await
            .expect(1)
            .complains("is not a file of its own");
        assert_eq!(owner("secrets/age.key"), (10005, 10005, 0o400));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
    }
    bailey(again).await.expect(0);
}

#[tokio::test]
async fn init_makes_no_age_key_beside_a_vault() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("vault.age"), "x").unwrap();
    let args = [
        "--home",
        text(home.path()),
        "init",
        "--vault-dir",
        text(home.path()),
    ];
    bailey(args)
        .await
        .expect(78)
        .complains("only its own age key opens it");
    assert!(!home.path().join("secrets/age.key").exists());
}

#[tokio::test]
async fn init_leaves_a_configuration_of_the_operators_own_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("config")).unwrap();
    fs::write(
        home.path().join("config/config.yaml"),
        "service: {name: mine}\n",
    )
    .unwrap();
    bailey(["--home", text(home.path()), "init"])
        .await
        .expect(0)
        .says("configuration: was there");
    assert_eq!(
        fs::read_to_string(home.path().join("config/config.yaml")).unwrap(),
        "service: {name: mine}\n"
    );
    assert!(!home.path().join("config/plugins.yaml").exists());
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_every_place_and_exit_code_78() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("config.yaml"),
        "accounts: {default: {}}\nplugins:\n  a: {run_as: x}\n  b: {run_as: y}\n",
    )
    .unwrap();
    let args = ["--config-dir", text(dir.path()), "config", "check"];
    let ran = bailey(args).await.expect(78);
    ran.complains("config.yaml:3:15: ")
        .complains("config.yaml:4:15: ");
    let ran = bailey([
        "--json",
        "--config-dir",
        text(dir.path()),
        "config",
        "check",
    ])
    .await
    .expect(78);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&json["ok"], &json["errors"][1]["place"]["line"]),
        (&false.into(), &4.into())
    );
}

#[tokio::test]
async fn the_shown_configuration_has_its_defaults() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("config.yaml"),
        "accounts: {default: {}}\nplugins: {a: {}}\n",
    )
    .unwrap();
    let ran = bailey(["--config-dir", text(dir.path()), "config", "show"])
        .await
        .expect(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["plugins"]["a"]["retry"]["backoff_base"], "30s");
    assert_eq!(json["service"]["job_log_retention"], "30d");
}

#[tokio::test]
async fn mistakes_on_the_command_line_have_exit_code_78_and_help_has_0() {
    bailey(["statsu"])
        .await
        .expect(78)
        .complains("unrecognized subcommand");
    bailey(["--help"]).await.expect(0).says("Examples:");
    bailey(["plugin", "lock", "--help"])
        .await
        .expect(0)
        .says("prints a code");
    bailey(["completions", "bash"])
        .await
        .expect(0)
        .says("_bailey");
}

#[tokio::test]
async fn an_audit_log_that_is_not_there_is_not_verified() {
    let stack = bailey_test::TestStack::new();
    let (dir, trust) = (
        stack.dir().join("nothing"),
        stack.config_dir().join("trust.json"),
    );
    bailey([
        "audit",
        "verify",
        "--dir",
        text(&dir),
        "--trust",
        text(&trust),
    ])
    .await
    .expect(1)
    .complains("cannot be read");
    bailey([
        "audit",
        "verify",
        "--dir",
        text(&dir),
        "--trust",
        text(&dir),
    ])
    .await
    .expect(78)
    .complains("bailey init");
}

#[tokio::test]
async fn a_management_verb_without_a_stack_says_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let compose = home.path().join("absent/compose.yaml");
    let args = [
        "--home",
        text(home.path()),
        "--compose",
        text(&compose),
        "vault",
        "list",
    ];
    let ran = bailey(args).await;
    // Docker is there or not: either way it fails, and not silently.
    assert!(ran.code != Some(0) && !ran.stderr.is_empty(), "{ran:?}");
}
