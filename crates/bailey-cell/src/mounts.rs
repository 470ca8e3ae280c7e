//! What is mounted into a container beside its tmpfs: state, host paths, the socket of egress-proxy.

use std::collections::HashMap;

use bailey_trust::{HostPath, StateKind};
use bailey_types::{PluginName, StackId};
use bollard_stubs::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig,
};

use crate::{Cell, EGRESS_DIR, Entry, HOME, Holder, Look, Probe, STATE, label};

/// Label of the volumes that this makes the engine make.
pub mod volume_label {
    /// What the volume is for.
    pub const PURPOSE: &str = "bailey.volume";
    /// The purpose of a volume with a plugin's state.
    pub const STATE: &str = "state";
    /// Which of the plugin's states, by number.
    pub const GENERATION: &str = "bailey.generation";
}

/// Name of the volume with a plugin's state. Only cells of this plugin ever mount it: names hold no dots, so no two plugins or stacks meet in one.
pub fn state_volume(stack: &StackId, plugin: &PluginName, generation: u32) -> String {
    format!("bailey-{stack}.state.{plugin}.{generation}")
}

/// Name of the volume with the socket of egress-proxy, as compose makes it.
pub fn egress_volume(stack: &StackId) -> String {
    format!("bailey-{stack}_egress")
}

pub(crate) fn of_cell(cell: &Cell<'_>) -> Vec<Mount> {
    let state = match cell.state() {
        StateKind::None => None,
        StateKind::Data => Some(STATE),
        StateKind::Home => Some(HOME),
    };
    let entry = Entry {
        serial: cell.serial,
        plugin: cell.plugin,
        locked: cell.locked,
    };
    // On a base of ours a new volume takes over the folder that is there: empty, and anybody may write to it. What another image has there is
    // not the plugin's state; for such a one socket-proxy sees to the mode.
    let no_copy = cell.locked.proposed.base.is_none();
    let state = state.map(|target| state_mount(cell.stack, &entry, target, no_copy));
    let paths = cell.host_paths().iter();
    let paths = paths.map(|path| host_path(path, path.writable));
    state.into_iter().chain(paths).collect()
}

/// What the cell has, so that the probe sees what the cell would; but it has no use for writing.
pub(crate) fn of_probe(probe: &Probe<'_>) -> Vec<Mount> {
    match &probe.look {
        Look::Walls => Vec::new(),
        Look::Paths(entry) => {
            let paths = entry.locked.proposed.host_paths.iter();
            paths.map(|path| host_path(path, false)).collect()
        }
        // What the image of probes has there is nobody's state.
        Look::State(entry, _) => vec![Mount {
            read_only: Some(true),
            ..state_mount(probe.stack, entry, STATE, true)
        }],
    }
}

pub(crate) fn of_holder(holder: &Holder<'_>) -> Vec<Mount> {
    if !holder.has_egress() {
        return Vec::new();
    }
    // Compose made it, and its labels; an engine that has to make it makes a useless one.
    let socket = volume(egress_volume(holder.stack), EGRESS_DIR, HashMap::new());
    vec![Mount {
        read_only: Some(true),
        ..socket
    }]
}

fn state_mount(stack: &StackId, entry: &Entry<'_>, target: &str, no_copy: bool) -> Mount {
    let generation = entry.locked.state_generation;
    let labels = [
        (label::STACK, stack.to_string()),
        (label::PLUGIN, entry.plugin.to_string()),
        (volume_label::PURPOSE, volume_label::STATE.to_owned()),
        (volume_label::GENERATION, generation.to_string()),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value));
    let name = state_volume(stack, entry.plugin, generation);
    let mount = volume(name, target, labels.into());
    let options = mount.volume_options.map(|options| MountVolumeOptions {
        no_copy: Some(no_copy),
        ..options
    });
    Mount {
        volume_options: options,
        ..mount
    }
}

fn volume(name: String, target: &str, labels: HashMap<String, String>) -> Mount {
    let driver = MountVolumeOptionsDriverConfig {
        name: Some("local".into()),
        options: Some(HashMap::new()),
    };
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name),
        target: Some(target.to_owned()),
        read_only: Some(false),
        consistency: Some("default".into()),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            labels: Some(labels),
            driver_config: Some(driver),
            subpath: None,
        }),
        bind_options: None,
        image_options: None,
        tmpfs_options: None,
    }
}

/// The same path inside as outside. What is mounted below it on the host stays outside: it was not resolved, and a read-only mount would not
/// cover it.
fn host_path(path: &HostPath, writable: bool) -> Mount {
    let place = path.path.to_string_lossy().into_owned();
    Mount {
        typ: Some(MountType::BIND),
        source: Some(place.clone()),
        target: Some(place),
        read_only: Some(!writable),
        consistency: Some("default".into()),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(true),
            // Known to engines newer than the version that is sent; unset means what is wanted.
            create_mountpoint: None,
            read_only_non_recursive: None,
            read_only_force_recursive: None,
        }),
        volume_options: None,
        image_options: None,
        tmpfs_options: None,
    }
}
