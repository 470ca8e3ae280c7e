use bailey_plugin::{Limits, Manifest};
use bailey_types::{Blake3, ImageId, Sha256};

use super::*;
use crate::{HostPath, ProposedPlugin, Walls};

const MANIFEST: &str = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: greet\nprotocol: 2\nentrypoint: run.py\ncommands: [{name: poll, type: read}]";

fn locked() -> LockedPlugin {
    LockedPlugin {
        proposed: ProposedPlugin {
            manifest: Manifest::parse(MANIFEST).unwrap(),
            manifest_blake3: Blake3([1; 32]),
            tree_blake3: Blake3([2; 32]),
            files: std::collections::BTreeMap::new(),
            base: None,
            tar_sha256: Sha256([3; 32]),
            image: ImageId(Sha256([5; 32])),
            entrypoint: vec!["/plugin/run.py".into()],
            source: "/plugins/greet".into(),
            account: "default".parse().unwrap(),
            limits: Limits::default(),
            state: StateKind::None,
            egress: Vec::new(),
            host_paths: Vec::new(),
            walls: Walls::default(),
            reset_state: false,
        },
        tree_mac: Blake3([6; 32]),
        uid: 20_000,
        holder_uid: 20_001,
        state_generation: 0,
    }
}

const NOTHING: Facts = Facts {
    secrets: Secrets::Granted(0),
    drifted: false,
};

fn score(facts: &Facts, change: impl FnOnce(&mut ProposedPlugin)) -> u8 {
    let mut plugin = locked();
    change(&mut plugin.proposed);
    rating(&plugin, facts).score
}

fn path(writable: bool) -> HostPath {
    HostPath {
        path: "/srv".into(),
        device: 1,
        inode: 2,
        writable,
    }
}

const OPERATOR: Mode = Mode::Credentialed {
    uid: 1000,
    gid: 1000,
};

#[test]
fn a_plugin_with_nothing_but_its_request_is_best_and_has_no_reasons() {
    let rated = rating(&locked(), &NOTHING);
    assert_eq!((rated.score, rated.reasons), (8, Vec::new()));
}

#[test]
fn every_thing_that_is_given_costs_and_more_of_it_costs_more() {
    let cost = |change: fn(&mut ProposedPlugin)| 8 - score(&NOTHING, change);
    assert_eq!(cost(|p| p.walls.mode = OPERATOR), 2);
    assert_eq!(cost(|p| p.walls.mode = Mode::Unconfined), 5);
    assert_eq!(cost(|p| p.egress = vec!["a.example:443".into()]), 1);
    assert_eq!(
        cost(|p| p.egress = vec!["a.example:443".into(), "*.b.example:443".into()]),
        2
    );
    assert_eq!(cost(|p| p.host_paths = vec![path(false)]), 1);
    assert_eq!(cost(|p| p.host_paths = vec![path(false), path(true)]), 2);
    assert_eq!(cost(|p| p.state = StateKind::Data), 0);
    assert_eq!(cost(|p| p.state = StateKind::Home), 1);
    let facts = |secrets, drifted| Facts { secrets, drifted };
    assert_eq!(score(&facts(Secrets::Granted(3), false), |_| ()), 7);
    assert_eq!(score(&facts(Secrets::Required, false), |_| ()), 7);
    assert_eq!(score(&facts(Secrets::Unknown, false), |_| ()), 8);
    assert_eq!(score(&facts(Secrets::Granted(0), true), |_| ()), 6);
}

#[test]
fn a_runtime_with_a_kernel_of_its_own_gives_a_point_back_and_never_more() {
    let under = |runtime: &str, mode: Mode| {
        score(&NOTHING, |p| {
            p.walls.runtime = Some(runtime.to_owned());
            p.walls.mode = mode;
        })
    };
    assert_eq!((under("runc", OPERATOR), under("runsc", OPERATOR)), (6, 7));
    assert_eq!(under("kata-qemu", OPERATOR), 7);
    assert_eq!(under("runscx", OPERATOR), 6);
    assert_eq!(under("runsc", Mode::Confined), 8);
}

#[test]
fn everything_at_once_is_the_worst_and_each_reason_is_told() {
    let mut plugin = locked();
    plugin.proposed.walls.mode = OPERATOR;
    plugin.proposed.host_paths = vec![path(true), path(true)];
    plugin.proposed.egress = vec!["*.b.example:443".into()];
    plugin.proposed.state = StateKind::Home;
    let facts = Facts {
        secrets: Secrets::Granted(1),
        drifted: true,
    };
    let rated = rating(&plugin, &facts);
    assert_eq!((rated.score, rated.reasons.len()), (1, 6));
    let points: Vec<_> = rated.reasons.iter().map(|reason| reason.points).collect();
    assert_eq!(points, [2, 2, 2, 2, 1, 1]);
    for text in [
        "uid 1000",
        "writes 2 paths",
        "below a suffix",
        "HOME",
        "gets 1 secret",
        "not what was sealed",
    ] {
        let told = rated
            .reasons
            .iter()
            .any(|reason| reason.text.contains(text));
        assert!(told, "{text}: {:?}", rated.reasons);
    }
}
