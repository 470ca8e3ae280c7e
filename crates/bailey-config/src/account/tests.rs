use std::collections::BTreeMap;

use super::*;
use crate::{Config, Errors, parse};

fn config(accounts: &str) -> Result<Config, Errors> {
    let text = format!("accounts:\n  default: {{}}\n{accounts}\n");
    parse(&BTreeMap::from([("config.yaml".to_owned(), text)]))
}

/// What is said of one account, which stands in line 3.
#[track_caller]
fn complaint(account: &str) -> String {
    let said = config(&format!("  ops: {account}"))
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("config.yaml:3:"), "{account}: {said}");
    said
}

fn ops(account: &str) -> Account {
    let config = config(&format!("  ops: {account}")).unwrap();
    config.accounts[&"ops".parse().unwrap()].clone()
}

#[test]
fn uid_and_gid_make_an_account_credentialed() {
    assert!(!ops("{memory: 64MiB, runtime: runsc}").is_credentialed());
    let account = ops(
        "{uid: 1000, gid: 1000, home: /home/me/, mounts: [{path: /srv//notes}, {path: /srv/in, writable: true}]}",
    );
    assert_eq!(
        account.ids,
        Some(Ids {
            uid: 1000,
            gid: 1000
        })
    );
    let paths: Vec<_> = account
        .host_paths()
        .map(|mount| (mount.path.display().to_string(), mount.writable))
        .collect();
    let expected = [("/home/me", true), ("/srv/notes", false), ("/srv/in", true)];
    assert_eq!(paths, expected.map(|(path, rw)| (path.to_owned(), rw)));
}

#[test]
fn an_identity_is_whole_and_nobody_elses() {
    for (account, reason) in [
        ("{uid: 1000}", "belong together"),
        ("{gid: 1000}", "belong together"),
        ("{uid: 0, gid: 1000}", "uid is 0"),
        ("{uid: 1000, gid: 0}", "gid is 0"),
        ("{uid: 10005, gid: 1000}", "a service of Bailey"),
        ("{uid: 1000, gid: 10013}", "a service of Bailey"),
        ("{uid: 20000, gid: 1000}", "plugins that are confined"),
        ("{uid: 1000, gid: 59999}", "plugins that are confined"),
    ] {
        let said = complaint(account);
        assert!(said.contains(reason), "{account}: {said}");
    }
    for ids in ["{uid: 10000, gid: 10014}", "{uid: 19998, gid: 60000}"] {
        assert!(ops(ids).is_credentialed(), "{ids}");
    }
}

#[test]
fn host_paths_need_an_identity() {
    for account in ["{home: /home/me}", "{mounts: [{path: /srv}]}"] {
        assert!(complaint(account).contains("confined"), "{account}");
    }
}

#[test]
fn the_reserved_accounts_stay_confined() {
    for (name, account, reason) in [
        ("default", "{uid: 1000, gid: 1000}", "credentialed"),
        ("default", "{mounts: [{path: /srv}]}", "confined"),
        ("untrusted", "{uid: 1000, gid: 1000}", "credentialed"),
        ("untrusted", "{home: /srv}", "confined"),
        ("untrusted", "{runtime: runsc}", "runtime"),
    ] {
        let text = format!("accounts:\n  {name}: {account}\n");
        let said = parse(&BTreeMap::from([("config.yaml".to_owned(), text)]))
            .unwrap_err()
            .to_string();
        assert!(said.contains(reason), "{name} {account}: {said}");
    }
    assert!(config("  untrusted: {memory: 64MiB, cpus: 0.25, pids: 32}").is_ok());
}

#[test]
fn a_host_path_is_absolute_and_hides_nothing_of_the_cell() {
    let mounts = |path: &str| format!("{{uid: 1000, gid: 1000, mounts: [{{path: '{path}'}}]}}");
    for (path, reason) in [
        ("srv", "absolute"),
        ("/srv/../etc", "'..'"),
        ("/srv/./notes", "'.'"),
        ("/", "root of the host"),
        ("//", "root of the host"),
        ("/plugin", "is its own"),
        ("/plugin/lib", "is its own"),
        ("/state", "is its own"),
        ("/home", "/home/plugin"),
        ("/tmp/x", "is its own"),
        ("/run/user/1000", "is its own"),
        ("/proc/1", "is its own"),
        ("/usr/lib/python3", "/usr"),
        ("/usr", "/usr"),
    ] {
        let said = complaint(&mounts(path));
        assert!(said.contains(reason), "{path}: {said}");
    }
    for path in [
        "/home/me",
        "/statex",
        "/usr/local/share/x",
        "/etc/motd",
        "/srv",
    ] {
        assert_eq!(ops(&mounts(path)).mounts.len(), 1, "{path}");
    }
    assert!(
        complaint("{uid: 1, gid: 1, home: /srv/a, mounts: [{path: /srv/a/}]}").contains("twice")
    );
    assert!(complaint("{uid: 1, gid: 1, mounts: [{path: /srv/a, write: true}]}").contains("write"));
    let many = (0..33).map(|n| format!("{{path: /srv/{n}}}"));
    let many = many.collect::<Vec<_>>().join(", ");
    assert!(complaint(&format!("{{uid: 1, gid: 1, mounts: [{many}]}}")).contains("at most 32"));
}

#[test]
fn nothing_overlaps_what_an_account_may_write() {
    let two = |one: &str, other: &str| {
        config(&format!(
            "  a: {{uid: 1000, gid: 1000, mounts: [{one}]}}\n  b: {{uid: 1001, gid: 1001, mounts: [{other}]}}"
        ))
    };
    for (one, other) in [
        ("{path: /srv/x, writable: true}", "{path: /srv/x}"),
        ("{path: /srv/x, writable: true}", "{path: /srv/x/y}"),
        ("{path: /srv}", "{path: /srv/x, writable: true}"),
        (
            "{path: /srv/x, writable: true}",
            "{path: /srv/x, writable: true}",
        ),
        (
            "{path: /srv}, {path: /srv/x, writable: true}",
            "{path: /opt}",
        ),
    ] {
        let said = two(one, other).unwrap_err().to_string();
        assert!(said.contains("may write"), "{one} {other}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    for (one, other) in [
        ("{path: /srv/x}", "{path: /srv/x}"),
        ("{path: /srv}", "{path: /srv/x}"),
        (
            "{path: /srv/x, writable: true}",
            "{path: /srv/xy, writable: true}",
        ),
        (
            "{path: /srv/x, writable: true}, {path: /srv/y}",
            "{path: /opt}",
        ),
    ] {
        assert!(two(one, other).is_ok(), "{one} {other}");
    }
}

#[test]
fn nobody_runs_as_untrusted_by_choice() {
    let said = config("  untrusted: {}\nplugins: {a: {run_as: untrusted}}")
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("config.yaml:4:23: ") && said.contains("has changed"),
        "{said}"
    );
    let other = config("  careful: {}\nplugins: {a: {run_as: careful}}").unwrap();
    let plugin = &other.plugins[&"a".parse().unwrap()];
    assert_eq!(plugin.run_as.as_str(), "careful");
}

#[test]
fn without_walls_no_default_account_is_needed_but_a_named_one_is() {
    let parsed = |text: &str| {
        parse(&BTreeMap::from([(
            "config.yaml".to_owned(),
            text.to_owned(),
        )]))
    };
    let config = parsed("service: {unconfined: true}\nplugins: {a: {}}\n").unwrap();
    assert!(config.service.unconfined && config.accounts.is_empty());
    let said = parsed("plugins: {a: {}}\n").unwrap_err().to_string();
    assert!(
        said.contains("the account default, which is not under accounts"),
        "{said}"
    );
    let said = parsed("service: {unconfined: true}\nplugins: {a: {run_as: ops}}\n")
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("config.yaml:2:23: ") && said.contains("ops"),
        "{said}"
    );
}
