//! What the pure tests of several modules need.

use std::collections::BTreeMap;

use bailey_plugin::{Container, Limits, Manifest};
use bailey_trust::{ProposedPlugin, SealingKey, SigningKey, SigningKeys, StateKind, TrustFile};
use bailey_types::{Blake3, Sha256};

/// A trust file whose only key that matters is the vault's.
pub(crate) fn trust(age_key: &SealingKey) -> TrustFile {
    let any = || SigningKey::generate().verifying_key();
    TrustFile {
        version: 1,
        stack: "test".parse().unwrap(),
        root_ca_pem: String::new(),
        signing: SigningKeys {
            broker: any(),
            policy: any(),
            audit: any(),
            scheduler: any(),
        },
        socket_proxy: SealingKey::generate().recipient(),
        vault: age_key.recipient(),
        enrolment: BTreeMap::new(),
    }
}

/// A plugin as the CLI proposes it.
pub(crate) fn proposed(name: &str) -> ProposedPlugin {
    ProposedPlugin {
        manifest: Manifest {
            name: name.parse().unwrap(),
            version: "1".into(),
            description: String::new(),
            entrypoint: "run.py".into(),
            concurrency_safe: true,
            commands: Vec::new(),
            fact_outputs: Vec::new(),
            config_keys: bailey_plugin::manifest::ConfigKeys::default(),
            container: Container::default(),
        },
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: Blake3([2; 32]),
        files: BTreeMap::new(),
        tar_sha256: Sha256([3; 32]),
        base: None,
        image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        entrypoint: vec!["/plugin/run.py".into()],
        source: format!("plugins/{name}"),
        account: "default".parse().unwrap(),
        limits: Limits::default(),
        state: StateKind::None,
        egress: Vec::new(),
        host_paths: Vec::new(),
        walls: bailey_trust::Walls::default(),
        reset_state: false,
    }
}

/// A command of a manifest.
pub(crate) fn command(name: &str) -> bailey_plugin::manifest::Command {
    bailey_plugin::manifest::Command {
        name: name.parse().unwrap(),
        access: bailey_plugin::manifest::Access::Read,
        description: String::new(),
        idempotent: false,
        retry_safe: false,
        input_schema: None,
        output_schema: None,
    }
}
