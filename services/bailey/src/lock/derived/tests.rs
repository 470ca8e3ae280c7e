use std::collections::BTreeMap;

use super::*;

const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nprotocol: 2\nentrypoint: ./run.py\ncommands: [{name: poll, type: read}]\n";

const ACCOUNTS: &str = "accounts:
  default: {memory: 64MiB, cpus: 2}
  untrusted: {memory: 32MiB, pids: 8}
  strong: {runtime: runsc}
  ops: {uid: 1000, gid: 100, home: /home/me, mounts: [{path: /srv/notes}]}
";

fn nobody_asked() -> Terms {
    Terms {
        host_paths: None,
        runtimes: None,
        reset_state: BTreeSet::new(),
    }
}

fn looked() -> Terms {
    let found =
        r#"{"/home/me": {"device": 1, "inode": 2}, "/srv/notes": {"device": 1, "inode": 3}}"#;
    Terms {
        host_paths: Some(found.parse().unwrap()),
        ..nobody_asked()
    }
}

/// What is locked of `greet` with this stanza and this `container:` in its manifest.
fn derive(top: &str, stanza: &str, manifest: &str, terms: &Terms) -> (Derived, Vec<String>) {
    let text = format!("{top}{ACCOUNTS}plugins: {{greet: {stanza}}}\n");
    let config = bailey_config::parse(&BTreeMap::from([("config.yaml".to_owned(), text)])).unwrap();
    let (name, plugin) = config.plugins.iter().next().unwrap();
    let manifest = Manifest::parse(&format!("{MANIFEST}container: {manifest}\n")).unwrap();
    Derived::of(Sources {
        config: &config,
        name,
        plugin,
        manifest: &manifest,
        terms,
    })
}

#[track_caller]
fn derived(stanza: &str, manifest: &str, terms: &Terms) -> Derived {
    let (derived, problems) = derive("", stanza, manifest, terms);
    assert_eq!(problems, Vec::<String>::new());
    derived
}

#[track_caller]
fn refused(stanza: &str, manifest: &str, terms: &Terms, reason: &str) {
    let (_, problems) = derive("", stanza, manifest, terms);
    assert!(
        problems.len() == 1 && problems[0].contains(reason),
        "{reason}: {problems:?}"
    );
}

#[test]
fn configuration_wins_over_manifest_and_manifest_over_account() {
    let derived = derived(
        "{container: {pids: 8, egress: [a.example]}}",
        "{pids: 9, memory: 32MiB, egress: [b.example], egress_limits: {connections: 2}}",
        &nobody_asked(),
    );
    let expected = Limits {
        memory_bytes: 32 << 20,
        millicpus: 2000,
        pids: 8,
        tmp_bytes: 16 << 20,
    };
    assert_eq!(
        (derived.limits, derived.entrypoint),
        (expected, vec!["/plugin/run.py".to_owned()])
    );
    assert_eq!(derived.egress, ["a.example:443"]);
    assert_eq!(derived.walls.egress_limits.connections, 2);
}

#[test]
fn more_state_than_the_default_is_for_the_operator_to_grant() {
    let limit =
        |stanza: &str, manifest: &str| derived(stanza, manifest, &nobody_asked()).walls.state_limit;
    assert_eq!(limit("{}", "{state: data}"), StateLimit::default());
    let less = limit("{}", "{state_limit: {bytes: 1MiB, files: 20}}");
    assert_eq!((less.total_bytes, less.files), (1 << 20, 20));
    let more = limit(
        "{container: {state_limit: {bytes: 5GiB}}}",
        "{state_limit: {bytes: 9GiB}}",
    );
    assert_eq!(more.total_bytes, 5 << 30);
    refused(
        "{}",
        "{state_limit: {bytes: 5GiB}}",
        &nobody_asked(),
        "grant it with plugins.greet.container.state_limit.bytes",
    );
    refused(
        "{container: {state_limit: {bytes: 5GiB}}}",
        "{state_limit: {files: 200000}}",
        &nobody_asked(),
        "plugins.greet.container.state_limit.files",
    );
}

#[test]
fn an_operator_can_deny_what_a_manifest_asks_for() {
    let egress = |stanza: &str| derived(stanza, "{egress: [b.example]}", &nobody_asked()).egress;
    assert_eq!(egress("{}"), ["b.example:443"]);
    assert_eq!(egress("{container: {egress: []}}"), [""; 0]);
}

#[test]
fn a_confined_plugin_has_the_walls_of_its_account_and_of_untrusted() {
    let derived = derived("{}", "{}", &nobody_asked());
    assert_eq!(derived.walls.mode, Mode::Confined);
    assert_eq!((derived.walls.runtime, derived.walls.home), (None, None));
    assert!(derived.host_paths.is_empty());
    let untrusted = derived.walls.untrusted.unwrap();
    assert_eq!((untrusted.memory_bytes, untrusted.pids), (32 << 20, 8));
}

#[test]
fn a_credentialed_plugin_has_the_operators_identity_and_the_paths_as_they_were_found() {
    let derived = derived("{run_as: ops}", "{}", &looked());
    assert_eq!(
        derived.walls.mode,
        Mode::Credentialed {
            uid: 1000,
            gid: 100
        }
    );
    assert_eq!(derived.walls.home, Some("/home/me".into()));
    let path = |path: &str, inode, writable| HostPath {
        path: path.into(),
        device: 1,
        inode,
        writable,
    };
    assert_eq!(
        derived.host_paths,
        [path("/home/me", 2, true), path("/srv/notes", 3, false)]
    );
    refused(
        "{run_as: ops, container: {state: home}}",
        "{}",
        &looked(),
        "has a home of the host",
    );
}

#[test]
fn a_path_that_nobody_looked_at_is_not_locked() {
    let (_, problems) = derive("", "{run_as: ops}", "{}", &nobody_asked());
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("/home/me") && problems[0].contains("build/bin/bailey"));
}

#[test]
fn unconfined_is_every_plugin_whatever_its_account_and_takes_the_host_paths_away() {
    let top = "service: {unconfined: true}\n";
    for stanza in ["{}", "{run_as: ops}"] {
        let (derived, problems) = derive(top, stanza, "{}", &nobody_asked());
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(derived.walls.mode, Mode::Unconfined);
        assert_eq!((derived.host_paths.len(), derived.walls.home), (0, None));
    }
}

#[test]
fn a_manifest_never_chooses_its_account() {
    // Wherever such a key may stand, the manifest either cannot be read or is as if it did not have it.
    for key in [
        "run_as: ops",
        "account: ops",
        "uid: 0",
        "user: root",
        "accounts: {default: {uid: 1, gid: 1}}",
    ] {
        let inside = format!("{MANIFEST}container: {{{key}}}\n");
        assert!(Manifest::parse(&inside).is_err(), "{key}");
        let outside = Manifest::parse(&format!("{MANIFEST}{key}\n")).unwrap();
        assert_eq!(outside, Manifest::parse(MANIFEST).unwrap(), "{key}");
    }
    let named = Manifest::parse(&MANIFEST.replace("name: greet", "name: ops")).unwrap();
    let text = format!("{ACCOUNTS}plugins: {{ops: {{}}}}\n");
    let config = bailey_config::parse(&BTreeMap::from([("config.yaml".to_owned(), text)])).unwrap();
    let (name, plugin) = config.plugins.iter().next().unwrap();
    let terms = nobody_asked();
    let (derived, _) = Derived::of(Sources {
        config: &config,
        name,
        plugin,
        manifest: &named,
        terms: &terms,
    });
    assert_eq!(derived.walls.mode, Mode::Confined);
}

#[test]
fn a_runtime_is_the_operators_choice_and_one_that_the_engine_has() {
    let has = |runtimes: &[&str]| Terms {
        runtimes: Some(runtimes.iter().map(|&name| name.to_owned()).collect()),
        ..nobody_asked()
    };
    let both = has(&["runc", "runsc"]);
    let runtime = |stanza: &str, manifest: &str| derived(stanza, manifest, &both).walls.runtime;
    assert_eq!(runtime("{}", "{}"), None);
    assert_eq!(runtime("{run_as: strong}", "{}").as_deref(), Some("runsc"));
    let stanza = "{run_as: strong, container: {runtime: runc}}";
    assert_eq!(runtime(stanza, "{}").as_deref(), Some("runc"));
    let granted = runtime("{container: {runtime: runsc}}", "{runtime: runsc}");
    assert_eq!(granted.as_deref(), Some("runsc"));
    refused(
        "{}",
        "{runtime: runsc}",
        &both,
        "grant it with plugins.greet.container.runtime",
    );
    refused(
        "{run_as: strong}",
        "{runtime: nvidia}",
        &both,
        "asks for the runtime nvidia",
    );
    refused(
        "{run_as: strong}",
        "{}",
        &has(&["runc"]),
        "which the Docker Engine does not have; it has runc",
    );
}

#[test]
fn only_cells_that_have_nothing_to_reach_or_to_spoil_are_started_ahead() {
    let warm = |stanza: &str, manifest: &str| derived(stanza, manifest, &looked()).walls.warm;
    assert_eq!((warm("{}", "{}"), warm("{}", "{warm: 3}")), (1, 3));
    assert_eq!(warm("{container: {warm: 0}}", "{warm: 3}"), 0);
    for stanza in [
        "{container: {state: data}}",
        "{container: {egress: [a.example]}}",
        "{run_as: ops}",
    ] {
        assert_eq!(warm(stanza, "{warm: 3}"), 0, "{stanza}");
    }
    refused(
        "{container: {state: data, warm: 2}}",
        "{}",
        &looked(),
        "never started ahead",
    );
}

#[test]
fn only_state_that_is_kept_can_be_reset() {
    let terms = Terms {
        reset_state: BTreeSet::from(["greet".parse().unwrap()]),
        ..nobody_asked()
    };
    assert!(derived("{container: {state: data}}", "{}", &terms).reset_state);
    assert!(!derived("{container: {state: data}}", "{}", &nobody_asked()).reset_state);
    refused("{}", "{}", &terms, "keeps no state");
}

#[test]
fn a_service_needs_its_command_and_the_stanza_has_the_last_word() {
    let of = |stanza: &str, container: &str| {
        let text = format!("{ACCOUNTS}plugins: {{greet: {stanza}}}\n");
        let files = BTreeMap::from([("config.yaml".to_owned(), text)]);
        let config = bailey_config::parse(&files).unwrap();
        let (name, plugin) = config.plugins.iter().next().unwrap();
        let commands = "commands: [{name: serve, type: write}, {name: poll, type: read}]";
        let manifest = MANIFEST.replace("commands: [{name: poll, type: read}]", commands);
        let manifest = Manifest::parse(&format!("{manifest}container: {container}\n")).unwrap();
        let (derived, problems) = Derived::of(Sources {
            config: &config,
            name,
            plugin,
            manifest: &manifest,
            terms: &nobody_asked(),
        });
        assert_eq!(problems, Vec::<String>::new(), "{stanza} {container}");
        derived.walls.service
    };
    let terms = |heartbeat_seconds| Some(ServiceTerms { heartbeat_seconds });
    assert_eq!(of("{}", "{}"), None);
    assert_eq!(of("{}", "{mode: service}"), terms(None));
    assert_eq!(of("{container: {mode: service}}", "{}"), terms(None));
    let beating = "{mode: service, heartbeat: 1m}";
    assert_eq!(of("{}", beating), terms(Some(60)));
    assert_eq!(of("{container: {heartbeat: 5s}}", beating), terms(Some(5)));
    assert_eq!(of("{container: {mode: call}}", beating), None);
    refused(
        "{container: {mode: service}}",
        "{}",
        &nobody_asked(),
        "no command serve",
    );
    refused(
        "{container: {heartbeat: 5s}}",
        "{}",
        &nobody_asked(),
        "belongs to `mode: service`",
    );
}
