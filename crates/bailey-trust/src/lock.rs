//! `config/bailey.lock`: what the operator approved, signed by the broker.
//!
//! The lock carries the text of the configuration it approves, not only its hash: an edited file changes nothing until it is locked, and a
//! service never has to choose between a configuration nobody approved and none at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use bailey_plugin::StateKind;
use bailey_plugin::{Limits, Manifest};
use bailey_types::{AccountName, Blake3, ImageId, PluginName, Serial, StackId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::service::ServiceTerms;
use crate::state::StateLimit;
use crate::statement::Statement;

/// The signed lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Always 1.
    pub version: u32,
    /// The stack it is for.
    pub stack: StackId,
    /// Greater than that of every earlier lock.
    pub serial: Serial,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// The configuration files by their path relative to `config/`, with their text.
    pub config_files: BTreeMap<String, String>,
    /// Every enabled plugin and alias.
    pub plugins: BTreeMap<PluginName, LockedPlugin>,
    /// The next uid to give. Uids are never given twice, so this only grows.
    pub next_uid: u32,
}

impl Statement for Lock {
    const DOMAIN: &'static str = "bailey/lock/v1";
    const KIND: &'static str = "lock";
    const LIMIT_BYTES: usize = 16 << 20;
}

/// One plugin of a lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPlugin {
    /// What the operator proposed.
    pub proposed: ProposedPlugin,
    /// Keyed BLAKE3 of the tree hash under the vault's nonce: only the broker can make or check it.
    pub tree_mac: Blake3,
    /// Uid and gid of its cells; no other plugin ever has it.
    pub uid: u32,
    /// Uid of its holders.
    pub holder_uid: u32,
    /// Tells its state volumes apart: one more than before where the operator had the state reset.
    #[serde(default)]
    pub state_generation: u32,
}

impl LockedPlugin {
    /// Uid and gid of its cells: its own, or the operator's where its account is credentialed.
    pub fn user(&self) -> (u32, u32) {
        match self.proposed.walls.mode {
            Mode::Credentialed { uid, gid } => (uid, gid),
            Mode::Confined | Mode::Unconfined => (self.uid, self.uid),
        }
    }

    /// How much it may keep between calls; `None` where it keeps nothing, or the operator wants no walls.
    pub fn quota(&self) -> Option<StateLimit> {
        let proposed = &self.proposed;
        (proposed.state != StateKind::None && proposed.walls.mode != Mode::Unconfined)
            .then_some(proposed.walls.state_limit)
    }
}

/// One plugin as the CLI proposes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedPlugin {
    /// The manifest, as parsed.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest's bytes.
    pub manifest_blake3: Blake3,
    /// BLAKE3 over all files (bailey-plugin's tree hash).
    pub tree_blake3: Blake3,
    /// BLAKE3 of each file by its path, so that a later change can be told file by file.
    #[serde(default)]
    pub files: BTreeMap<String, Blake3>,
    /// The base image that the files were sealed onto.
    #[serde(default)]
    pub base: Option<ImageId>,
    /// SHA-256 of the tar that was sealed.
    pub tar_sha256: bailey_types::Sha256,
    /// The sealed image.
    pub image: ImageId,
    /// What starts it, inside the image.
    pub entrypoint: Vec<String>,
    /// The folder that it was read from. Policy looks whether that still holds what was sealed.
    pub source: String,
    /// The account it runs under.
    pub account: AccountName,
    /// What a cell of it may use.
    pub limits: Limits,
    /// Whether it keeps files between calls.
    pub state: StateKind,
    /// `host:port` it may reach.
    pub egress: Vec<String>,
    /// Host paths it may see.
    pub host_paths: Vec<HostPath>,
    /// How its cells are walled.
    #[serde(default)]
    pub walls: Walls,
    /// Whether what it kept so far is left behind.
    #[serde(default)]
    pub reset_state: bool,
}

impl ProposedPlugin {
    /// See [`Carried::of`].
    pub fn carries(&self) -> Option<Carried> {
        Carried::of(self.state, &self.egress, &self.host_paths)
    }
}

/// What a cell may have from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Files that outlive it.
    State,
    /// A way out.
    Egress,
    /// A part of the host.
    HostPaths,
}

impl Carried {
    /// The first thing that a plugin's cells have from their start, if there is any. Such a cell must not start before there is a request: it
    /// could spend what it has, unasked.
    pub fn of(state: StateKind, egress: &[String], host_paths: &[HostPath]) -> Option<Self> {
        if state != StateKind::None {
            return Some(Self::State);
        }
        if !egress.is_empty() {
            return Some(Self::Egress);
        }
        (!host_paths.is_empty()).then_some(Self::HostPaths)
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "state",
            Self::Egress => "egress",
            Self::HostPaths => "host paths",
        })
    }
}

/// How the cells of a plugin are walled, beside what they may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Walls {
    /// Of its account.
    pub mode: Mode,
    /// OCI runtime of its cells; unset: `runc`.
    pub runtime: Option<String>,
    /// HOME and working directory of its cells: one of the host paths. Unset: the cell's own.
    pub home: Option<PathBuf>,
    /// Most cells that are kept started and unused; 0 where it has state, egress or host paths.
    pub warm: u32,
    /// What a cell may use that runs as `untrusted` since the plugin's folder has changed; unset: there is no such account.
    pub untrusted: Option<Limits>,
    /// Bounds of what it may send and receive.
    pub egress_limits: EgressLimits,
    /// How much it may keep between calls.
    pub state_limit: StateLimit,
    /// How one of its cells lasts; unset: each serves one call.
    pub service: Option<ServiceTerms>,
}

/// What an account's plugins are to the host (design, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// A uid of the plugin's own, and nothing of the host.
    #[default]
    Confined,
    /// The operator's uid and gid, and the host paths that are listed.
    Credentialed {
        /// Never 0.
        uid: u32,
        /// Never 0.
        gid: u32,
    },
    /// The engine's default container: `service.unconfined`.
    Unconfined,
}

/// Bounds of one call's egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressLimits {
    /// Connections at once.
    pub connections: u32,
    /// Bytes in both directions, of the whole call.
    pub total_bytes: u64,
    /// Longest life of one connection, seconds.
    pub connection_seconds: u32,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            connections: 16,
            total_bytes: 1 << 30,
            connection_seconds: 600,
        }
    }
}

/// A host path as it was resolved when it was locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPath {
    /// The real path on the host.
    pub path: PathBuf,
    /// `st_dev` when it was locked.
    pub device: u64,
    /// `st_ino` when it was locked.
    pub inode: u64,
    /// Whether the plugin may write.
    pub writable: bool,
}

/// What the CLI asks the broker to lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockProposal {
    /// As in [`Lock`].
    pub config_files: BTreeMap<String, String>,
    /// As in [`Lock`], without what the broker adds.
    pub plugins: BTreeMap<PluginName, ProposedPlugin>,
}
