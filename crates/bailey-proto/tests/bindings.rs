//! The committed bindings are what the definitions give.

use std::path::Path;

use prost::Message as _;

const PACKAGES: [&str; 7] = [
    "audit",
    "broker",
    "egress",
    "engine",
    "management",
    "policy",
    "trust",
];

fn generate(out: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = PACKAGES.map(|p| root.join(format!("bailey/{p}/v1/{p}.proto")));
    let mut set = protox::compile(&files, [&root]).expect("the definitions compile");
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(out)
        .bytes(".")
        .compile_fds(set.clone())
        .expect("bindings are made");
    for file in &mut set.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec()).unwrap();
}

#[test]
fn bindings_are_current() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    if option_env!("UPDATE_BINDINGS").is_some() {
        generate(&committed);
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    for name in PACKAGES
        .map(|p| format!("bailey.{p}.v1.rs"))
        .iter()
        .chain([&"descriptors.bin".to_owned()])
    {
        let (made, kept) = (
            std::fs::read(fresh.path().join(name)),
            std::fs::read(committed.join(name)),
        );
        assert_eq!(
            made.unwrap(),
            kept.unwrap(),
            "{name}: run UPDATE_BINDINGS=1 cargo test -p bailey-proto"
        );
    }
}
