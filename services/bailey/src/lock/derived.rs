//! What configuration, manifest and account make of a plugin: the part of a proposal that no file and no seal decides.

use std::collections::BTreeSet;

use bailey_config::{Account, Config, PluginConfig};
use bailey_plugin::{Container, EgressBounds, Limits, Manifest, StateKind};
use bailey_trust::{
    Carried, EgressLimits, HostPath, Mode, ProposedPlugin, SERVE, ServiceTerms, StateLimit, Walls,
};
use bailey_types::PluginName;

use crate::host_paths::Resolved;

/// What the operator says and the host has, beside configuration and files.
pub(super) struct Terms {
    /// What host paths are. None: nobody looked.
    pub(super) host_paths: Option<Resolved>,
    /// OCI runtimes of the engine. None: nobody asked, for no configuration names one.
    pub(super) runtimes: Option<Vec<String>>,
    /// Plugins whose state is to be left behind.
    pub(super) reset_state: BTreeSet<PluginName>,
}

/// How one plugin is to be locked.
pub(super) struct Derived {
    pub(super) entrypoint: Vec<String>,
    pub(super) limits: Limits,
    state: StateKind,
    egress: Vec<String>,
    host_paths: Vec<HostPath>,
    pub(super) walls: Walls,
    reset_state: bool,
}

/// What is looked at to find out.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) config: &'a Config,
    pub(super) name: &'a PluginName,
    pub(super) plugin: &'a PluginConfig,
    pub(super) manifest: &'a Manifest,
    pub(super) terms: &'a Terms,
}

impl Derived {
    /// What is derived, and what stands against locking it.
    pub(super) fn of(sources: Sources<'_>) -> (Self, Vec<String>) {
        let Sources {
            config,
            name,
            plugin,
            manifest,
            terms,
        } = sources;
        let account = config.accounts.get(&plugin.run_as);
        let (here, there) = (&plugin.container, &manifest.container);
        let mut problems = Vec::new();
        let host_paths = host_paths(sources, account, &mut problems);
        let egress = here.egress.as_ref().or(there.egress.as_ref());
        let egress = egress.cloned().unwrap_or_default();
        let state = here.state.or(there.state).unwrap_or_default();
        let reset_state = terms.reset_state.contains(name);
        if reset_state && state == StateKind::None {
            problems.push(format!("{name} keeps no state that could be reset"));
        }
        let home = account.and_then(|account| account.home.clone());
        let home = home.filter(|_| !config.service.unconfined);
        if home.is_some() && state == StateKind::Home {
            problems.push(format!(
                "{name} has `state: home`, but the account {} has a home of the host: `state: data` goes with it",
                plugin.run_as
            ));
        }
        let carried = Carried::of(state, &egress, &host_paths);
        let walls = Walls {
            mode: mode(config, account),
            runtime: runtime(sources, account, &mut problems),
            home,
            warm: warm(sources, carried, &mut problems),
            untrusted: untrusted(config),
            egress_limits: egress_limits(here.egress_limits, there.egress_limits),
            state_limit: state_limit(sources, &mut problems),
            service: service(sources, &mut problems),
        };
        let entrypoint = here.entrypoint.clone().or_else(|| there.entrypoint.clone());
        let derived = Self {
            entrypoint: entrypoint
                .unwrap_or_else(|| vec![format!("/plugin/{}", manifest.entrypoint_path())]),
            limits: Limits::resolve(&[here, there, &account.map(limits).unwrap_or_default()]),
            state,
            egress,
            host_paths,
            walls,
            reset_state,
        };
        (derived, problems)
    }

    /// The sealed plugin as it is to be locked.
    pub(super) fn apply(self, sealed: ProposedPlugin, plugin: &PluginConfig) -> ProposedPlugin {
        ProposedPlugin {
            entrypoint: self.entrypoint,
            account: plugin.run_as.clone(),
            limits: self.limits,
            state: self.state,
            egress: self.egress,
            host_paths: self.host_paths,
            walls: self.walls,
            reset_state: self.reset_state,
            ..sealed
        }
    }
}

fn limits(account: &Account) -> Container {
    Container {
        memory_bytes: account.memory_bytes,
        millicpus: account.millicpus,
        pids: account.pids,
        ..Container::default()
    }
}

fn untrusted(config: &Config) -> Option<Limits> {
    let mut accounts = config.accounts.iter();
    let (_, account) = accounts.find(|(name, _)| name.as_str() == bailey_trust::UNTRUSTED)?;
    Some(Limits::resolve(&[&limits(account)]))
}

/// From the operator's account alone: a manifest has no say in who its plugin is.
fn mode(config: &Config, account: Option<&Account>) -> Mode {
    if config.service.unconfined {
        return Mode::Unconfined;
    }
    match account.and_then(|account| account.ids) {
        Some(ids) => Mode::Credentialed {
            uid: ids.uid,
            gid: ids.gid,
        },
        None => Mode::Confined,
    }
}

fn host_paths(
    sources: Sources<'_>,
    account: Option<&Account>,
    problems: &mut Vec<String>,
) -> Vec<HostPath> {
    if sources.config.service.unconfined {
        return Vec::new();
    }
    let mut paths = Vec::new();
    for mount in account.into_iter().flat_map(Account::host_paths) {
        let resolved = sources.terms.host_paths.as_ref();
        match resolved.and_then(|resolved| resolved.of(&mount.path)) {
            Some(found) => paths.push(HostPath {
                path: mount.path,
                device: found.device,
                inode: found.inode,
                writable: mount.writable,
            }),
            None => problems.push(format!(
                "{} of the account {} ({}) was not looked at on the host: lock with build/bin/bailey there, not in the container",
                mount.path.display(),
                sources.plugin.run_as,
                sources.name
            )),
        }
    }
    paths
}

/// The stanza's, or the account's. What a manifest asks for counts only if one of them says the same: another runtime can have other walls,
/// and devices.
fn runtime(
    sources: Sources<'_>,
    account: Option<&Account>,
    problems: &mut Vec<String>,
) -> Option<String> {
    let Sources {
        name,
        plugin,
        manifest,
        terms,
        ..
    } = sources;
    let granted = plugin.container.runtime.clone();
    let granted = granted.or_else(|| account.and_then(|account| account.runtime.clone()));
    if let Some(asked) = &manifest.container.runtime
        && granted.as_ref() != Some(asked)
    {
        problems.push(format!(
            "{name} asks for the runtime {asked}; grant it with plugins.{name}.container.runtime, or take it out of its manifest"
        ));
    }
    if let (Some(wanted), Some(known)) = (&granted, &terms.runtimes)
        && !known.contains(wanted)
    {
        let mut known = known.clone();
        known.sort();
        problems.push(format!(
            "{name} would run under the runtime {wanted}, which the Docker Engine does not have; it has {}",
            known.join(", ")
        ));
    }
    granted
}

/// How many cells may be started ahead. None of a plugin whose start already has something to reach or to spoil.
fn warm(sources: Sources<'_>, carried: Option<Carried>, problems: &mut Vec<String>) -> u32 {
    let (here, there) = (&sources.plugin.container, &sources.manifest.container);
    if carried.is_none() {
        return here.warm.or(there.warm).unwrap_or(1);
    }
    if let Some(warm) = here.warm.filter(|warm| *warm > 0) {
        problems.push(format!(
            "{} has `warm: {warm}`, but cells with state, egress or host paths are never started ahead",
            sources.name
        ));
    }
    0
}

/// Whether one of its cells lasts. The operator's stanza wins, so that it can switch a service off.
fn service(sources: Sources<'_>, problems: &mut Vec<String>) -> Option<ServiceTerms> {
    let Sources {
        name,
        plugin,
        manifest,
        ..
    } = sources;
    let terms = ServiceTerms::of(&plugin.container, &manifest.container);
    if terms.is_some() && !ServiceTerms::fit(manifest) {
        problems.push(format!(
            "{name} has `mode: service`, but its manifest has no command {SERVE}, which is what a service runs"
        ));
    }
    if terms.is_none() && plugin.container.heartbeat_seconds.is_some() {
        problems.push(format!(
            "{name} has a heartbeat, which belongs to `mode: service`"
        ));
    }
    terms
}

/// How much it may keep. More than the default is for the operator to say.
fn state_limit(sources: Sources<'_>, problems: &mut Vec<String>) -> StateLimit {
    let (here, there) = (&sources.plugin.container, &sources.manifest.container);
    let name = sources.name;
    match StateLimit::of(here.state_limit, there.state_limit) {
        Ok(limit) => limit,
        Err(key) => {
            problems.push(format!(
                "the manifest of {name} asks for more {key} than the default; grant it with plugins.{name}.container.{key}, or set less there"
            ));
            StateLimit::default()
        }
    }
}

fn egress_limits(here: EgressBounds, there: EgressBounds) -> EgressLimits {
    let default = EgressLimits::default();
    EgressLimits {
        connections: here
            .connections
            .or(there.connections)
            .unwrap_or(default.connections),
        total_bytes: here
            .total_bytes
            .or(there.total_bytes)
            .unwrap_or(default.total_bytes),
        connection_seconds: here
            .connection_seconds
            .or(there.connection_seconds)
            .unwrap_or(default.connection_seconds),
    }
}

#[cfg(test)]
mod tests;
