//! Plugins of which one cell lasts: what is locked of them, and what makes one another than before.

use bailey_plugin::{Container, Manifest, RunMode};
use bailey_types::{CommandName, Sha256};
use serde::{Deserialize, Serialize};

use crate::lock::LockedPlugin;

/// The command that such a cell runs.
pub const SERVE: &str = "serve";

/// Most of them in a lock: each holds a cell for good.
pub const MAX_SERVICES: usize = 16;

/// How a cell lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceTerms {
    /// How long it may write no line before it counts as unhealthy, seconds; unset: as long as it likes.
    pub heartbeat_seconds: Option<u32>,
}

impl ServiceTerms {
    /// What the operator's stanza and the plugin's own manifest come to; the stanza wins.
    pub fn of(here: &Container, there: &Container) -> Option<Self> {
        match here.mode.or(there.mode).unwrap_or_default() {
            RunMode::Call => None,
            RunMode::Service => Some(Self {
                heartbeat_seconds: here.heartbeat_seconds.or(there.heartbeat_seconds),
            }),
        }
    }

    /// Whether a plugin with this manifest can be run so.
    pub fn fit(manifest: &Manifest) -> bool {
        manifest
            .commands
            .iter()
            .any(|command| command.name.as_str() == SERVE)
    }
}

impl LockedPlugin {
    /// The terms on which `command` lasts; `None`: it is called.
    pub fn lasts(&self, command: &CommandName) -> Option<&ServiceTerms> {
        let terms = self.proposed.walls.service.as_ref();
        terms.filter(|_| command.as_str() == SERVE)
    }

    /// Stands for everything that a running cell of this plugin rests on. `config` is how the operator configured it. Another value: what
    /// runs is not what is locked any more.
    pub fn definition(&self, config: &impl Serialize) -> Result<Sha256, serde_json::Error> {
        let mut same = self.clone();
        // What was reset is told by the generation; having been asked for it is no difference.
        same.proposed.reset_state = false;
        let text = serde_json::to_vec(&(same, config))?;
        Ok(Sha256::of(&text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(walls: &serde_json::Value) -> LockedPlugin {
        let zeros = "0".repeat(64);
        let command = |name: &str| json!({"name": name, "access": "read", "description": "", "idempotent": false, "retry_safe": false, "input_schema": null, "output_schema": null});
        let manifest = json!({
            "name": "watcher", "version": "1", "description": "", "entrypoint": "run", "concurrency_safe": true,
            "commands": [command("serve"), command("handle")], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
            "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null},
        });
        let locked = json!({"proposed": {
            "manifest": manifest, "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros, "image": format!("sha256:{zeros}"),
            "entrypoint": ["/run"], "source": "test", "account": "default",
            "limits": {"memory_bytes": 1, "millicpus": 1, "pids": 1, "tmp_bytes": 1},
            "state": "none", "egress": [], "host_paths": [], "walls": walls,
        }, "tree_mac": zeros, "uid": 1, "holder_uid": 2});
        serde_json::from_value(locked).unwrap()
    }

    #[test]
    fn the_stanza_wins_over_the_manifest_and_can_switch_a_service_off() {
        let of = |mode: Option<RunMode>, heartbeat_seconds| Container {
            mode,
            heartbeat_seconds,
            ..Container::default()
        };
        let service = of(Some(RunMode::Service), Some(60));
        let terms = |heartbeat_seconds| Some(ServiceTerms { heartbeat_seconds });
        assert_eq!(ServiceTerms::of(&of(None, None), &service), terms(Some(60)));
        assert_eq!(
            ServiceTerms::of(&of(None, Some(5)), &service),
            terms(Some(5))
        );
        assert_eq!(
            ServiceTerms::of(&of(Some(RunMode::Call), None), &service),
            None
        );
        assert_eq!(
            ServiceTerms::of(&of(Some(RunMode::Service), None), &of(None, None)),
            terms(None)
        );
        assert_eq!(ServiceTerms::of(&of(None, None), &of(None, None)), None);
    }

    #[test]
    fn only_serve_of_a_service_lasts() {
        let (serve, handle) = ("serve".parse().unwrap(), "handle".parse().unwrap());
        let service = plugin(&json!({"service": {"heartbeat_seconds": 60}}));
        assert_eq!(service.lasts(&serve).unwrap().heartbeat_seconds, Some(60));
        assert_eq!(service.lasts(&handle), None);
        assert_eq!(plugin(&json!({})).lasts(&serve), None);
    }

    #[test]
    fn a_definition_changes_with_plugin_and_configuration_but_not_with_a_reset_that_was_asked_for()
    {
        let known = plugin(&json!({"service": {}}));
        let of = |plugin: &LockedPlugin, config| plugin.definition(&config).unwrap();
        let first = of(&known, json!({"every": 1}));
        assert_eq!(first, of(&known.clone(), json!({"every": 1})));
        assert_ne!(first, of(&known, json!({"every": 2})));
        let other = plugin(&json!({"service": {"heartbeat_seconds": 60}}));
        assert_ne!(first, of(&other, json!({"every": 1})));
        let mut reset = known.clone();
        reset.proposed.reset_state = true;
        assert_eq!(first, of(&reset, json!({"every": 1})));
        reset.state_generation = 1;
        assert_ne!(first, of(&reset, json!({"every": 1})));
    }
}
