//! How much is kept ready for a plugin.

use bailey_config::Config;
use bailey_trust::{LockedPlugin, ProposedPlugin};
use bailey_types::PluginName;

use crate::shelf::Bounds;

/// How much may be kept ready for a plugin of which so many jobs may run. What has state, host paths or egress never starts ahead, whatever
/// the lock says.
pub(super) fn bounds(proposed: &ProposedPlugin, jobs: usize) -> Bounds {
    if !proposed.egress.is_empty() {
        return Bounds {
            cells: 0,
            holders: 0,
        };
    }
    let warm = usize::try_from(proposed.walls.warm).unwrap_or(usize::MAX);
    Bounds {
        cells: if proposed.carries().is_some() {
            0
        } else {
            warm
        },
        // One whose cell is being removed is not ready: so twice as many as jobs run.
        holders: jobs.saturating_mul(2),
    }
}

/// Most jobs of the plugin that the engine runs at once.
pub(super) fn parallelism(config: &Config, plugin: &PluginName, locked: &LockedPlugin) -> usize {
    let workers = config.service.max_workers;
    let by_default = if locked.proposed.manifest.concurrency_safe {
        workers
    } else {
        1
    };
    let configured = config.enabled_plugin(plugin);
    let most = configured.and_then(|plugin| plugin.parallelism);
    usize::try_from(most.unwrap_or(by_default)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use bailey_trust::{HostPath, StateKind};
    use serde_json::json;

    use super::*;

    fn proposed() -> ProposedPlugin {
        let zeros = "0".repeat(64);
        let manifest = json!({
            "name": "greet", "version": "1", "description": "", "entrypoint": "run", "concurrency_safe": true,
            "commands": [], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
            "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null, "egress": []},
        });
        let proposed = json!({
            "manifest": manifest, "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros, "image": format!("sha256:{zeros}"),
            "entrypoint": ["/run"], "source": "test", "account": "default",
            "limits": {"memory_bytes": 1, "millicpus": 1, "pids": 1, "tmp_bytes": 1},
            "state": "none", "egress": [], "host_paths": [], "walls": {"warm": 3},
        });
        serde_json::from_value(proposed).unwrap()
    }

    #[test]
    fn what_keeps_or_reaches_something_never_starts_ahead() {
        let of = |cells, holders| Bounds { cells, holders };
        assert_eq!(bounds(&proposed(), 2), of(3, 4));
        let with_state = ProposedPlugin {
            state: StateKind::Data,
            ..proposed()
        };
        assert_eq!(bounds(&with_state, 2), of(0, 4));
        let path = HostPath {
            path: "/srv".into(),
            device: 1,
            inode: 2,
            writable: false,
        };
        let with_path = ProposedPlugin {
            host_paths: vec![path],
            ..proposed()
        };
        assert_eq!(bounds(&with_path, 2), of(0, 4));
        let with_egress = ProposedPlugin {
            egress: vec!["example.org:443".into()],
            ..proposed()
        };
        assert_eq!(bounds(&with_egress, 2), of(0, 0));
    }
}
