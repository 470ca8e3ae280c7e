//! The plugin that is sealed and locked: the fixture of the examples.

use std::collections::BTreeMap;
use std::path::Path;

use bailey_plugin::{Limits, Manifest};
use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::{SealHeader, SealRequest};
use bailey_trust::{LockedPlugin, ProposedPlugin, StateKind};
use bailey_types::{Blake3, ImageId, Sha256};

pub fn seal_header(base: &str, plugin: &str, tar: &[u8]) -> SealHeader {
    SealHeader {
        plugin: plugin.into(),
        base_image: base.into(),
        entrypoint: vec!["/plugin/fixture".into()],
        tar_sha256: Sha256::of(tar).0.to_vec().into(),
        tree_blake3: vec![7; 32].into(),
    }
}

pub fn seal_messages(header: SealHeader, tar: &[u8]) -> Vec<SealRequest> {
    let chunks = tar
        .chunks(1 << 20)
        .map(|chunk| Message::Chunk(chunk.to_vec().into()));
    let messages = std::iter::once(Message::Header(header)).chain(chunks);
    messages
        .map(|message| SealRequest {
            message: Some(message),
        })
        .collect()
}

pub fn fixture_tar() -> Vec<u8> {
    // `cargo test` builds examples beside the tests.
    let exe = std::env::current_exe().unwrap();
    let fixture = exe
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/fixture");
    let bytes = std::fs::read(&fixture).unwrap_or_else(|e| {
        panic!(
            "{}: {e}; `cargo build -p socket-proxy --examples` makes it",
            fixture.display()
        )
    });
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o555);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, "plugin/fixture", &bytes[..])
        .unwrap();
    tar.into_inner().unwrap()
}

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
    };
    LockedPlugin {
        proposed,
        tree_mac: Blake3([5; 32]),
        uid: 20_000,
        holder_uid: 20_001,
    }
}
