use std::path::Path;

use super::*;

const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nprotocol: 2\nentrypoint: ./run.py\ncommands: [{name: poll, type: read}]\nconfig_keys: {required: [key], optional: []}\ncontainer: {pids: 9, memory: 32MiB, egress: [a.example]}";

fn config(plugin: &str) -> Config {
    let text = format!(
        "accounts: {{default: {{memory: 64MiB, cpus: 2}}}}\nplugins: {{greet: {plugin}}}\npipelines: [{{name: p, on: x, steps: [{{uses: greet}}]}}]"
    );
    bailey_config::parse(&BTreeMap::from([("config.yaml".to_owned(), text)])).unwrap()
}

fn terms() -> Terms {
    Terms {
        host_paths: None,
        runtimes: None,
        reset_state: std::collections::BTreeSet::new(),
    }
}

#[test]
fn what_the_manifest_lacks_is_said_all_at_once() {
    let config = config("{schedules: [{every: 1h, command: sync}]}");
    let (name, plugin) = config.plugins.iter().next().unwrap();
    let mut problems = Vec::new();
    let sources = Sources {
        config: &config,
        name,
        plugin,
        manifest: &Manifest::parse(MANIFEST).unwrap(),
        terms: &terms(),
    };
    check(sources, &mut problems);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(
        problems[0].contains("plugins.greet.config")
            && problems[1].contains("sync")
            && problems[2].contains("handle")
    );
}

#[test]
fn the_base_image_is_named_or_told_by_the_entrypoint() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run.py");
    std::fs::write(&run, "#!/usr/bin/env python3\n").unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
    let tree = Tree::read(dir.path()).unwrap();
    let manifest = Manifest::parse(MANIFEST).unwrap();
    let base = |yaml: &str| {
        base_reference(
            config(yaml).plugins.values().next().unwrap(),
            &manifest,
            &tree,
        )
        .unwrap()
    };
    assert_eq!(base("{}"), "bailey/base-python:current");
    assert_eq!(
        base("{container: {image: tools}}"),
        "bailey/base-tools:current"
    );
    assert_eq!(
        base("{container: {image: 'example/base:1'}}"),
        "example/base:1"
    );
}

#[test]
fn the_starter_configuration_fits_the_first_party_plugins() {
    let texts = bailey_config::starter::FILES.iter();
    let texts: BTreeMap<_, _> = texts
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    let config = bailey_config::parse(&texts).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let discovery = discovery::discover(&[root]).unwrap();
    assert_eq!(discovery.warnings, Vec::<String>::new());
    let mut problems = Vec::new();
    for (name, plugin) in config.enabled_plugins() {
        match find(&discovery, name, plugin) {
            Some(found) => {
                let sources = Sources {
                    config: &config,
                    name,
                    plugin,
                    manifest: &found.manifest,
                    terms: &terms(),
                };
                check(sources, &mut problems);
            }
            None => problems.push(not_found(&config, name, plugin, &Discovery::default())),
        }
    }
    assert_eq!(problems, Vec::<String>::new());
}
