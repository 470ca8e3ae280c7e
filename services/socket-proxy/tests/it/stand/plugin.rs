//! The plugin that is sealed and locked: the fixture of the examples.

use std::path::{Path, PathBuf};

use bailey_proto::management::v1::seal_request::Message;
use bailey_proto::management::v1::{SealHeader, SealRequest};
use bailey_types::Sha256;

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

pub fn fixture_path() -> PathBuf {
    // `cargo test` builds examples beside the tests.
    let exe = std::env::current_exe().unwrap();
    exe.parent()
        .and_then(Path::parent)
        .unwrap()
        .join("examples/fixture")
}

pub fn fixture_tar() -> Vec<u8> {
    let fixture = fixture_path();
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
