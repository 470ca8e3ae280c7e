//! What tests of reconciling need: locks, a keeper that remembers, and a reconciler with both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bailey_config::ROOT;
use bailey_trust::{Lock, LockSource, LockedPlugin, SigningKey, TrustFile, sign, source};
use bailey_types::{Serial, StackId, Timestamp};
use serde_json::json;

use super::{Keeper, Kept, Reconciler};
use crate::audit::Recorded;
use crate::docker::Engine;
use crate::quarantine::Quarantine;

/// A plugin whose image id is this digit, again and again.
pub fn locked(digit: char) -> LockedPlugin {
    let zeros = "0".repeat(64);
    let manifest = json!({
        "name": "subject", "version": "1", "description": "", "entrypoint": "run.py", "concurrency_safe": true,
        "commands": [], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
        "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null, "egress": []},
    });
    let proposed = json!({
        "manifest": manifest, "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros,
        "image": format!("sha256:{}", digit.to_string().repeat(64)), "entrypoint": ["/run"], "source": "test", "account": "default",
        "limits": {"memory_bytes": 64 << 20, "millicpus": 1000, "pids": 32, "tmp_bytes": 1 << 20},
        "state": "none", "egress": [], "host_paths": [],
    });
    let plugin =
        json!({"proposed": proposed, "tree_mac": zeros, "uid": 20000, "holder_uid": 20001});
    serde_json::from_value(plugin).unwrap()
}

/// A lock of these plugins.
pub fn lock(stack: &str, plugins: &[(&str, char)]) -> Lock {
    let plugins = plugins
        .iter()
        .map(|(name, digit)| (name.parse().unwrap(), locked(*digit)));
    let config = "accounts:\n  default: {}\n".to_owned();
    Lock {
        version: 1,
        stack: stack.parse().unwrap(),
        serial: Serial(3),
        signed_at: Timestamp(0),
        config_files: BTreeMap::from([(ROOT.to_owned(), config)]),
        plugins: plugins.collect(),
        next_uid: 30_000,
    }
}

/// Writes a lock where its source reads it, under roots of trust of its own.
pub fn write(dir: &Path, lock: &Lock) -> LockSource<bailey_config::Config> {
    let (config, secrets) = (dir.join("config"), dir.join("secrets"));
    bailey_roots::make(&lock.stack, &config, &secrets).unwrap();
    let trust = TrustFile::read(&config.join("trust.json")).unwrap();
    let key = SigningKey::read(&secrets.join("signing-broker")).unwrap();
    let text = source::to_file_text(&sign(lock, &key).unwrap());
    let path = config.join("bailey.lock");
    std::fs::write(&path, text).unwrap();
    let parse = |lock: &Lock| bailey_config::parse(&lock.config_files).map_err(|e| e.to_string());
    LockSource::new(
        &path,
        trust.signing.broker,
        lock.stack.clone(),
        Serial(0),
        parse,
    )
}

/// Keeps what it is told, and remembers what it was told is gone.
#[derive(Default)]
pub struct FakeKeeper {
    /// What should live.
    pub kept: Mutex<Vec<Kept>>,
    gone: Mutex<Vec<String>>,
    told: tokio::sync::Notify,
}

impl FakeKeeper {
    /// Keeps this container of `subject`.
    pub fn keep(&self, id: &str) {
        self.kept.lock().unwrap().push(Kept {
            id: id.to_owned(),
            plugin: "subject".parse().unwrap(),
        });
    }

    /// Ids that are gone, oldest first.
    pub fn gone(&self) -> Vec<String> {
        self.gone.lock().unwrap().clone()
    }

    /// Waits until it was told that something is gone.
    pub async fn told(&self) {
        self.told.notified().await;
    }
}

impl Keeper for FakeKeeper {
    fn kept(&self) -> Vec<Kept> {
        self.kept.lock().unwrap().clone()
    }

    fn gone(&self, id: &str) {
        self.kept.lock().unwrap().retain(|kept| kept.id != id);
        self.gone.lock().unwrap().push(id.to_owned());
        self.told.notify_one();
    }

    fn wake(&self) {}
}

/// A reconciler with a keeper and a log that remember.
pub struct Stand {
    /// What is tested.
    pub reconciler: Arc<Reconciler>,
    /// Who keeps containers.
    pub keeper: Arc<FakeKeeper>,
    /// What was audited.
    pub recorded: Arc<Recorded>,
}

impl Stand {
    /// For the containers of the lock's stack on this engine.
    pub fn new(engine: Engine, stack: StackId, lock: LockSource<bailey_config::Config>) -> Self {
        let (keeper, recorded) = (Arc::<FakeKeeper>::default(), Arc::<Recorded>::default());
        let reconciler = Reconciler {
            engine,
            stack,
            roster: crate::roster::Roster::default(),
            keeper: Arc::clone(&keeper) as _,
            quarantine: Arc::new(Quarantine::new(Arc::clone(&recorded) as _)),
            lock: Arc::new(lock),
        };
        Self {
            reconciler: Arc::new(reconciler),
            keeper,
            recorded,
        }
    }
}
