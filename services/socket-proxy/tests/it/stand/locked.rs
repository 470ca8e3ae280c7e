//! The plugin as it is locked.

use std::collections::BTreeMap;

use bailey_plugin::{Limits, Manifest};
use bailey_trust::{LockedPlugin, ProposedPlugin, StateKind};
use bailey_types::{Blake3, ImageId, Sha256};

pub fn locked(image: ImageId) -> LockedPlugin {
    let manifest = "manifest_spec: ductile.plugin\nmanifest_version: 1\nname: fixture\nversion: 1.0.0\nprotocol: 2\n\
        entrypoint: fixture\ncommands:\n  - name: echo\n    type: read\n";
    let proposed = ProposedPlugin {
        manifest: Manifest::parse(manifest).unwrap(),
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: Blake3([7; 32]),
        files: BTreeMap::new(),
        base: None,
        tar_sha256: Sha256([3; 32]),
        image,
        entrypoint: vec!["/plugin/fixture".into()],
        source: "fixture".into(),
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
        tree_mac: Blake3([5; 32]),
        uid: 20_000,
        holder_uid: 20_001,
        state_generation: 0,
    }
}
