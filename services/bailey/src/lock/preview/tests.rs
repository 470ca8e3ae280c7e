use bailey_plugin::{Limits, Manifest, StateKind};
use bailey_types::{Blake3, ImageId, Sha256, Timestamp};

use super::*;

const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nversion: '1'\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]";

fn locked(files: &[(&str, u8)]) -> LockedPlugin {
    let proposed = ProposedPlugin {
        manifest: Manifest::parse(MANIFEST).unwrap(),
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: Blake3([2; 32]),
        files: files
            .iter()
            .map(|(name, hash)| ((*name).to_owned(), Blake3([*hash; 32])))
            .collect(),
        base: Some(ImageId(Sha256([4; 32]))),
        tar_sha256: Sha256([3; 32]),
        image: ImageId(Sha256([5; 32])),
        entrypoint: vec!["/plugin/run.py".into()],
        source: "/plugins/greet".into(),
        account: "default".parse().unwrap(),
        limits: Limits::default(),
        state: StateKind::None,
        egress: Vec::new(),
        host_paths: Vec::new(),
    };
    LockedPlugin {
        proposed,
        tree_mac: Blake3([6; 32]),
        uid: 20_000,
        holder_uid: 20_001,
    }
}

fn lock(plugins: &[(&str, LockedPlugin)], config: &[(&str, &str)]) -> Lock {
    Lock {
        version: 1,
        stack: "test".parse().unwrap(),
        serial: Serial(7),
        signed_at: Timestamp(0),
        config_files: config
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect(),
        plugins: plugins
            .iter()
            .map(|(name, plugin)| (name.parse().unwrap(), plugin.clone()))
            .collect(),
        next_uid: 20_002,
    }
}

fn shown(before: Option<&Lock>, after: &Lock) -> String {
    let mut out = Out::default();
    Preview::of(before, after).show(&mut out);
    out.text().to_owned()
}

#[test]
fn the_first_lock_shows_everything_as_new() {
    let text = shown(
        None,
        &lock(
            &[("greet", locked(&[("run.py", 1)]))],
            &[("config.yaml", "a")],
        ),
    );
    assert!(
        text.starts_with(
            "Lock 7 would change:\n+ configuration config.yaml\n+ plugin greet\n    + run.py\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("account default") && text.contains("egress none"),
        "{text}"
    );
}

#[test]
fn a_change_is_told_file_by_file_and_grant_by_grant() {
    let before = lock(
        &[
            ("greet", locked(&[("run.py", 1), ("old.py", 1)])),
            ("echo", locked(&[])),
            ("gone", locked(&[])),
        ],
        &[("config.yaml", "a")],
    );
    let mut changed = locked(&[("run.py", 2), ("new.py", 1)]);
    changed.proposed.egress = vec!["example.com:443".into()];
    let after = lock(
        &[("greet", changed), ("echo", locked(&[]))],
        &[("config.yaml", "b")],
    );
    let expected = "Lock 7 would change:\n~ configuration config.yaml\n- plugin gone\n~ plugin greet\n    + new.py\n    - old.py\n    ~ run.py\n      egress none -> example.com:443\n= 1 plugins as they are\n";
    assert_eq!(shown(Some(&before), &after), expected);
}

#[test]
fn the_same_lock_again_changes_nothing() {
    let before = lock(
        &[("greet", locked(&[("run.py", 1)]))],
        &[("config.yaml", "a")],
    );
    let mut after = before.clone();
    after.serial = Serial(8);
    let preview = Preview::of(Some(&before), &after);
    assert!(preview.is_empty() && preview.to_json("CODE")["code"].is_null());
}
