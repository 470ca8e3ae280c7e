#![doc = include_str!("../README.md")]

mod body;
mod identity;
pub mod launch;
pub mod probe;
pub mod seccomp;
#[cfg(test)]
mod tests;

pub use body::create_body;
pub use identity::{BadLabels, Identity, Kind, label, labels, name, name_prefix};

use bailey_trust::LockedPlugin;
use bailey_types::{AttemptNumber, ImageId, JobId, PluginName, Serial, StackId};

/// Where HOME and the working directory are.
pub const HOME: &str = "/home/plugin";

/// Largest create body that there is a reason for, bytes; the seccomp profile is most of it.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// Uid and gid of probes; no service and no plugin has it.
pub const PROBE_UID: u32 = 19_999;

/// Memory of a probe, bytes: the probe compares it with its cgroup.
pub const PROBE_MEMORY_BYTES: u64 = 32 << 20;

/// Processes and threads of a probe: the probe compares it with its cgroup.
pub const PROBE_PIDS: u32 = 16;

/// A container that Bailey makes.
#[derive(Clone, Copy, Debug)]
pub enum Spec<'a> {
    /// One job of one plugin.
    Cell(Cell<'a>),
    /// A canary that looks at its own walls.
    Probe(Probe<'a>),
}

/// One attempt of one job of one plugin.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The stack it belongs to.
    pub stack: &'a StackId,
    /// Serial of the lock that `locked` is of.
    pub serial: Serial,
    /// Name of the plugin (or alias) in the lock.
    pub plugin: &'a PluginName,
    /// What is locked under that name.
    pub locked: &'a LockedPlugin,
    /// The job.
    pub job: JobId,
    /// Which attempt of it.
    pub attempt: AttemptNumber,
}

/// A canary: our own binary behind the walls of a cell. Its exit code says what it saw; nothing is ever sent to it.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// The stack it belongs to.
    pub stack: &'a StackId,
    /// The image that holds the binary `/socket-proxy`.
    pub image: &'a ImageId,
    /// Tells probes apart; made for this one.
    pub job: JobId,
}
