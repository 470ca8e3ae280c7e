use std::collections::BTreeMap;

use bailey_plugin::Limits;
use bailey_trust::{HostPath, StateKind};

use super::*;
use crate::testing::{command, proposed};

const CONFIG: &str = "
accounts:
  default: {}
  untrusted: {}
  operator:
    uid: 1000
    gid: 100
    home: /srv/jobs
    mounts:
      - {path: /srv/media}
plugins:
  greet: {}
  backup: {run_as: operator}
";

fn host_path(path: &str, writable: bool) -> HostPath {
    HostPath {
        path: path.into(),
        device: 1,
        inode: 2,
        writable,
    }
}

/// A confined plugin, as the CLI proposes it.
fn greet() -> ProposedPlugin {
    let mut greet = proposed("greet");
    greet.walls.untrusted = Some(Limits::default());
    greet
}

/// A credentialed one.
fn backup() -> ProposedPlugin {
    let mut backup = proposed("backup");
    backup.account = "operator".parse().unwrap();
    backup.walls.mode = Mode::Credentialed {
        uid: 1000,
        gid: 100,
    };
    backup.walls.home = Some("/srv/jobs".into());
    backup.host_paths = vec![host_path("/srv/jobs", true), host_path("/srv/media", false)];
    backup
}

fn check_in(text: &str, proposed: &ProposedPlugin) -> Result<(), String> {
    let files = BTreeMap::from([("config.yaml".to_owned(), text.to_owned())]);
    let config = bailey_config::parse(&files).unwrap();
    let plugin = config.plugins.get(&proposed.manifest.name).unwrap();
    check(&config, plugin, proposed)
}

fn refused(mut proposed: ProposedPlugin, spoil: impl FnOnce(&mut ProposedPlugin)) -> String {
    assert_eq!(check_in(CONFIG, &proposed), Ok(()), "the neighbour");
    spoil(&mut proposed);
    check_in(CONFIG, &proposed).unwrap_err()
}

#[test]
fn only_the_operators_identity_that_is_configured_is_signed() {
    for (uid, gid) in [
        (0, 100),
        (1000, 0),
        (1000, 1000),
        (10_005, 100),
        (20_000, 100),
    ] {
        let why = refused(backup(), |p| p.walls.mode = Mode::Credentialed { uid, gid });
        let expected = format!(
            "is credentialed (uid 1000, gid 100) by its configuration, but is proposed as credentialed (uid {uid}, gid {gid})"
        );
        assert_eq!(why, expected);
    }
    let why = refused(greet(), |p| {
        p.walls.mode = Mode::Credentialed {
            uid: 1000,
            gid: 100,
        };
    });
    assert!(why.starts_with("is confined by its configuration"), "{why}");
}

#[test]
fn nothing_is_unconfined_unless_the_service_is() {
    for plugin in [greet(), backup()] {
        let why = refused(plugin, |p| p.walls.mode = Mode::Unconfined);
        assert!(why.ends_with("is proposed as unconfined"), "{why}");
    }
    let all = CONFIG.replace("accounts:", "service: {unconfined: true}\naccounts:");
    let mut unconfined = greet();
    assert!(check_in(&all, &unconfined).is_err());
    unconfined.walls.mode = Mode::Unconfined;
    assert_eq!(check_in(&all, &unconfined), Ok(()));
    // Nor does it see what its account lists.
    let mut seeing = backup();
    seeing.walls.mode = Mode::Unconfined;
    assert!(check_in(&all, &seeing).is_err());
}

#[test]
fn host_paths_are_exactly_those_of_the_account() {
    type Spoil = fn(&mut ProposedPlugin);
    let spoils: [Spoil; 7] = [
        |p| p.host_paths.push(host_path("/srv/more", false)),
        |p| p.host_paths.truncate(1),
        |p| p.host_paths[1].writable = true,
        |p| p.host_paths[1].path = "/srv/jobs/../media".into(),
        |p| p.host_paths.push(host_path("/srv/media", false)),
        |p| p.walls.home = None,
        |p| p.walls.home = Some("/srv/media".into()),
    ];
    for spoil in spoils {
        let why = refused(backup(), spoil);
        assert_eq!(
            why,
            "is proposed with other host paths than its account has"
        );
    }
    let why = refused(greet(), |p| {
        p.host_paths.push(host_path("/srv/media", false));
    });
    assert_eq!(
        why,
        "is proposed with other host paths than its account has"
    );
}

#[test]
fn the_engines_own_files_are_not_given_away() {
    for path in ["/var/lib/docker/volumes", "/var", "/var/run"] {
        let text = CONFIG.replace("/srv/media", path);
        let mut plugin = backup();
        plugin.host_paths[1] = host_path(path, false);
        let why = check_in(&text, &plugin).unwrap_err();
        assert!(why.ends_with("whoever has that has the host"), "{why}");
    }
    let text = CONFIG.replace("/srv/media", "/var/lib/music");
    let mut plugin = backup();
    plugin.host_paths[1] = host_path("/var/lib/music", false);
    assert_eq!(check_in(&text, &plugin), Ok(()));
}

#[test]
fn what_can_do_something_is_not_kept_warm() {
    let mut warm = greet();
    warm.walls.warm = 2;
    assert_eq!(check_in(CONFIG, &warm), Ok(()));
    let why = refused(warm.clone(), |p| p.state = StateKind::Home);
    assert!(why.starts_with("has state"), "{why}");
    let why = refused(warm, |p| {
        p.egress = vec!["example.org:443".into()];
        p.manifest.container.egress = Some(p.egress.clone());
    });
    assert!(why.starts_with("has egress"), "{why}");
    let why = refused(backup(), |p| p.walls.warm = 1);
    assert!(why.starts_with("has host paths"), "{why}");
}

#[test]
fn egress_and_runtime_are_those_that_were_asked_for() {
    let of = |egress: &[&str]| Some(egress.iter().map(|&host| host.to_owned()).collect());
    let why = refused(greet(), |p| p.egress = vec!["example.org:443".into()]);
    assert!(why.contains("other egress"), "{why}");
    let mut asking = greet();
    asking.manifest.container.egress = of(&["example.org:443"]);
    asking.egress = vec!["example.org:443".into()];
    let why = refused(asking, |p| p.egress.push("example.com:443".into()));
    assert!(why.contains("other egress"), "{why}");

    let why = refused(greet(), |p| p.walls.runtime = Some("runsc".into()));
    assert!(why.contains("another runtime"), "{why}");
    let strong = CONFIG.replace("  default: {}\n", "  default: {runtime: runsc}\n");
    let mut walled = greet();
    assert!(check_in(&strong, &walled).is_err());
    walled.walls.runtime = Some("runsc".into());
    assert_eq!(check_in(&strong, &walled), Ok(()));
}

#[test]
fn an_account_untrusted_is_locked_only_where_there_is_one() {
    let without = CONFIG.replace("  untrusted: {}\n", "");
    let why = check_in(&without, &greet()).unwrap_err();
    assert_eq!(
        why,
        "is proposed with an account untrusted, which there is not"
    );
    let mut plain = greet();
    plain.walls.untrusted = None;
    assert_eq!(check_in(&without, &plain), Ok(()));
}

#[test]
fn a_service_is_proposed_exactly_as_its_stanza_and_manifest_have_it() {
    let beating = |seconds| {
        Some(ServiceTerms {
            heartbeat_seconds: seconds,
        })
    };
    // Nobody said that it is one.
    let why = refused(greet(), |p| p.walls.service = beating(None));
    assert!(why.contains("another mode or heartbeat"), "{why}");

    let text = CONFIG.replace(
        "greet: {}",
        "greet: {container: {mode: service, heartbeat: 1m}}",
    );
    let mut service = greet();
    service.manifest.commands.push(command("serve"));
    service.walls.service = beating(Some(60));
    assert_eq!(check_in(&text, &service), Ok(()), "the neighbour");
    for other in [None, beating(None), beating(Some(61))] {
        let mut service = service.clone();
        service.walls.service = other;
        assert!(check_in(&text, &service).is_err(), "{other:?}");
    }
    service.manifest.commands.pop();
    let why = check_in(&text, &service).unwrap_err();
    assert!(why.contains("no command serve"), "{why}");
}

#[test]
fn what_it_may_keep_is_what_the_configuration_says_or_the_manifest_modestly_asks_for() {
    let keeping = CONFIG.replace(
        "greet: {}",
        "greet: {container: {state: data, state_limit: {bytes: 5GiB}}}",
    );
    let mut kept = greet();
    kept.state = StateKind::Data;
    let why = check_in(&keeping, &kept).unwrap_err();
    assert!(why.contains("another state_limit"), "{why}");
    kept.walls.state_limit.total_bytes = 5 << 30;
    assert_eq!(check_in(&keeping, &kept), Ok(()));
    let why = check_in(CONFIG, &kept).unwrap_err();
    assert!(why.contains("another state_limit"), "{why}");

    let mut greedy = greet();
    greedy.manifest.container.state_limit.total_bytes = Some(5 << 30);
    greedy.walls.state_limit.total_bytes = 5 << 30;
    let why = check_in(CONFIG, &greedy).unwrap_err();
    assert!(why.contains("more state_limit.bytes"), "{why}");
    greedy.manifest.container.state_limit.total_bytes = Some(1 << 20);
    greedy.walls.state_limit.total_bytes = 1 << 20;
    assert_eq!(check_in(CONFIG, &greedy), Ok(()));
}
