use bailey_plugin::Manifest;
use bailey_trust::{HostPath, Lock};
use bailey_types::{Blake3, ImageId, Sha256, Timestamp};

use super::*;

const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nversion: '1'\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]";

/// A configuration that nothing is to be said about.
const QUIET: &str = "accounts: {default: {}, untrusted: {}}";

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
        walls: bailey_trust::Walls::default(),
        reset_state: false,
    };
    LockedPlugin {
        proposed,
        tree_mac: Blake3([6; 32]),
        uid: 20_000,
        holder_uid: 20_001,
        state_generation: 0,
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

fn preview(before: Option<&Lock>, after: &Lock) -> Preview {
    let grants = rated::Grants::default();
    let before = before.map(|before| Rated::of(before, &grants));
    let known = before.as_ref().map_or(Serial(0), |rated| rated.lock.serial);
    Preview::of(
        before.as_ref(),
        &Rated::of(after, &grants),
        (known, Vec::new()),
    )
}

fn shown(before: Option<&Lock>, after: &Lock) -> String {
    let mut out = Out::default();
    preview(before, after).show(&mut out);
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
        &[("config.yaml", QUIET)],
    );
    let mut changed = locked(&[("run.py", 2), ("new.py", 1)]);
    changed.proposed.egress = vec!["example.com:443".into()];
    let after = lock(
        &[("greet", changed), ("echo", locked(&[]))],
        &[("config.yaml", &format!("{QUIET}\n"))],
    );
    let expected = "Lock 7 would change:\n~ configuration config.yaml\n- plugin gone\n~ plugin greet\n    + new.py\n    - old.py\n    ~ run.py\n      egress none -> example.com:443 (16 connections at once, 1048576 KiB a call, 600 s each)\n      rating 8 of 8 -> 7 of 8: reaches 1 host\n= 1 plugin as it is\n";
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
    let preview = preview(Some(&before), &after);
    assert!(preview.is_empty() && preview.to_json("CODE")["code"].is_null());
}

#[test]
fn what_an_account_and_its_walls_give_is_told_with_what_it_costs() {
    let before = lock(&[("greet", locked(&[]))], &[]);
    let mut changed = locked(&[]);
    changed.proposed.account = "ops".parse().unwrap();
    changed.proposed.host_paths = vec![HostPath {
        path: "/home/me".into(),
        device: 1,
        inode: 2,
        writable: true,
    }];
    changed.proposed.walls = bailey_trust::Walls {
        mode: Mode::Credentialed {
            uid: 1000,
            gid: 100,
        },
        runtime: Some("runsc".into()),
        home: Some("/home/me".into()),
        warm: 2,
        untrusted: Some(Limits::default()),
        ..bailey_trust::Walls::default()
    };
    let text = shown(Some(&before), &lock(&[("greet", changed)], &[]));
    for line in [
        "account default -> ops",
        "runs as confined, uid 20000 -> CREDENTIALED, uid 1000, gid 100 of the host",
        "runtime runc -> runsc",
        "host paths none -> /home/me (rw, HOME)",
        "if it changes it fails -> untrusted: 256 MiB memory",
        "warm cells 0 -> 2",
        "rating 8 of 8 -> 5 of 8: writes 1 path of the host; acts on the host as uid 1000",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn what_a_plugin_may_keep_is_said_and_so_is_a_change_of_it() {
    let mut small = locked(&[]);
    small.proposed.state = StateKind::Data;
    let mut large = small.clone();
    large.proposed.walls.state_limit.total_bytes = 5 << 30;
    let (before, after) = (
        lock(&[("greet", small)], &[]),
        lock(&[("greet", large)], &[]),
    );
    let text = shown(None, &before);
    assert!(
        text.contains("state data (1024 MiB, 100000 files)"),
        "{text}"
    );
    let text = shown(Some(&before), &after);
    let line = "state data (1024 MiB, 100000 files) -> data (5120 MiB, 100000 files)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn state_is_kept_or_left_behind_and_either_is_said() {
    let mut old = locked(&[("run.py", 1)]);
    old.proposed.state = StateKind::Data;
    let before = lock(&[("greet", old.clone())], &[]);
    let mut sealed_again = old.clone();
    sealed_again.proposed.image = ImageId(Sha256([9; 32]));
    let text = shown(
        Some(&before),
        &lock(&[("greet", sealed_again.clone())], &[]),
    );
    assert!(
        text.contains("to leave it behind: --reset-state greet"),
        "{text}"
    );
    sealed_again.state_generation = 1;
    let text = shown(Some(&before), &lock(&[("greet", sealed_again)], &[]));
    assert!(
        text.contains("is left behind") && !text.contains("--reset-state"),
        "{text}"
    );
    let mut only_reset = old;
    only_reset.state_generation = 1;
    assert!(!preview(Some(&before), &lock(&[("greet", only_reset)], &[])).is_empty());
}

#[test]
fn what_the_configuration_allows_is_said_before_it_is_signed() {
    let credentialed = "accounts: {default: {}, untrusted: {}, ops: {uid: 1000, gid: 1000}}";
    let after = lock(&[], &[("config.yaml", credentialed)]);
    let text = shown(None, &after);
    assert!(text.contains("\n! CREDENTIALED: the account ops"), "{text}");
    let quiet = lock(&[], &[("config.yaml", QUIET)]);
    assert!(!shown(None, &quiet).contains('!'));
}

#[test]
fn a_host_path_that_was_exchanged_is_told_though_its_name_is_the_same() {
    let with = |inode| {
        let mut plugin = locked(&[]);
        plugin.proposed.host_paths = vec![HostPath {
            path: "/srv/notes".into(),
            device: 1,
            inode,
            writable: false,
        }];
        lock(&[("greet", plugin)], &[])
    };
    let text = shown(Some(&with(2)), &with(3));
    assert!(
        text.contains("/srv/notes is another folder or file"),
        "{text}"
    );
    assert!(preview(Some(&with(2)), &with(2)).is_empty());
}

#[test]
fn a_locked_configuration_that_cannot_be_read_is_not_taken_for_one_without_upstreams() {
    let upstream = "upstreams:\n  model: {url: \"https://api.example.com\"}";
    let before = lock(&[], &[("config.yaml", "of another version")]);
    let after = lock(&[], &[("config.yaml", &format!("{QUIET}\n{upstream}"))]);
    let text = shown(Some(&before), &after);
    assert!(text.contains("+ upstream model\n"), "{text}");
    assert!(text.contains("shown as if they were new"), "{text}");
}

#[test]
fn a_lock_and_a_vault_of_two_times_are_told_and_locked_anew() {
    let grants = rated::Grants::default();
    let same = lock(&[], &[]);
    let rated = || Rated::of(&same, &grants);
    let shown = |known| {
        let mut out = Out::default();
        Preview::of(Some(&rated()), &rated(), (Serial(known), Vec::new())).show(&mut out);
        out.text().to_owned()
    };
    assert!(shown(7).starts_with("Nothing is different"));
    assert!(shown(8).contains("is lock 7, but 8 was signed"));
    let earlier = shown(6);
    assert!(
        earlier.contains("is lock 7, but the vault knows of 6 only"),
        "{earlier}"
    );
    assert!(earlier.contains("would be the same anew"), "{earlier}");
}
