//! What the world is made of: the lock with its one plugin, and the image of holders and probes.

use std::path::Path;

use bailey_trust::Lock;
use bailey_types::{ImageId, Serial, StackId};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::world::docker;

const CONFIG: &str = "service: {}\naccounts:\n  default: {}\n";
/// What the tests import for holders and probes.
pub(super) const HOLDER_IMAGE: &str = "bd-test:runner-holder";

/// An image with a program that waits, where holders have theirs.
pub(super) async fn holder_image() -> ImageId {
    static IMAGE: OnceCell<ImageId> = OnceCell::const_new();
    *IMAGE.get_or_init(import_holder).await
}

async fn import_holder() -> ImageId {
    // `cargo test` builds examples beside the tests.
    let exe = std::env::current_exe().unwrap();
    let built = exe.parent().and_then(Path::parent).unwrap();
    let program = std::fs::read(built.join("examples/holder")).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o555);
    header.set_size(program.len() as u64);
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["holder", "socket-proxy"] {
        tar.append_data(&mut header, name, &program[..]).unwrap();
    }
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo("bd-test")
        .tag("runner-holder")
        .build();
    let body = bollard::body_full(tar.into_inner().unwrap().into());
    let made = docker().create_image(Some(options), Some(body), None);
    made.collect::<Vec<_>>().await;
    let found = docker().inspect_image(HOLDER_IMAGE).await.unwrap();
    found.id.unwrap().parse().unwrap()
}

/// A lock with the plugin `subject`, which is this Python text.
pub(super) fn lock(
    stack: &StackId,
    image: ImageId,
    script: &str,
    serial: Serial,
    change: fn(&mut Value),
) -> Lock {
    let zeros = "0".repeat(64);
    let manifest = json!({
        "name": "subject", "version": "1", "description": "", "entrypoint": "run.py", "concurrency_safe": true,
        "commands": [], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
        "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null, "egress": []},
    });
    let proposed = json!({
        "manifest": manifest, "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros, "image": image,
        "entrypoint": ["/usr/bin/python3", "-c", script], "source": "test", "account": "default",
        "limits": {"memory_bytes": 64 << 20, "millicpus": 1000, "pids": 32, "tmp_bytes": 1 << 20},
        "state": "none", "egress": [], "host_paths": [],
    });
    let mut subject =
        json!({"proposed": proposed, "tree_mac": zeros, "uid": 20000, "holder_uid": 20001});
    change(&mut subject);
    let text = json!({
        "version": 1, "stack": stack, "serial": serial, "signed_at": bailey_types::Timestamp(0),
        "config_files": {bailey_config::ROOT: CONFIG}, "plugins": {"subject": subject}, "next_uid": 20002,
    });
    serde_json::from_value(text).unwrap()
}

/// What socket-proxy audits is tested where it lives.
pub(super) struct Unrecorded;

impl socket_proxy::audit::Record for Unrecorded {
    fn record(&self, _: &'static str, _: Value, _: bool) {}
}

/// Ends a container from outside.
pub(super) async fn kill(id: &str) {
    docker().kill_container(id, None).await.unwrap();
}
