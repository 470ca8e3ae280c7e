#![doc = include_str!("../README.md")]

mod body;
mod identity;
pub mod launch;
mod mounts;
pub mod probe;
pub mod seccomp;
#[cfg(test)]
mod tests;
pub mod usage;

pub use body::create_body;
pub use identity::{BadLabels, Identity, Kind, Seat, Target, label, labels, name};
pub use mounts::{egress_volume, state_volume, volume_label};

use std::path::Path;

use bailey_trust::{HostPath, LockedPlugin, Mode, StateKind, StateLimit};
use bailey_types::{ImageId, JobId, PluginName, Serial, StackId};

/// Where HOME and the working directory are.
pub const HOME: &str = "/home/plugin";

/// Where a plugin's state is that is no home.
pub const STATE: &str = "/state";

/// Where holders with egress see the socket of egress-proxy.
pub const EGRESS_DIR: &str = "/run/bailey/egress";

/// Where a holder with egress listens for HTTP, inside its namespace.
pub const HTTP_PROXY: &str = "http://127.0.0.1:3128";

/// Where a holder with egress listens for SOCKS5, inside its namespace.
pub const SOCKS_PROXY: &str = "socks5h://127.0.0.1:1080";

/// Largest create body that there is a reason for, bytes; the seccomp profile is most of it.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// Uid and gid of probes that look at nothing of a plugin's; no service and no plugin has it.
pub const PROBE_UID: u32 = 19_999;

/// Memory of a probe, bytes: the probe compares it with its cgroup.
pub const PROBE_MEMORY_BYTES: u64 = 32 << 20;

/// Memory of a probe that measures a state: it remembers the files that have several names.
pub const MEASURE_MEMORY_BYTES: u64 = 64 << 20;

/// Processes and threads of a probe: the probe compares it with its cgroup.
pub const PROBE_PIDS: u32 = 16;

/// A container that Bailey makes.
#[derive(Clone, Copy, Debug)]
pub enum Spec<'a> {
    /// Runs one job of one plugin.
    Cell(Cell<'a>),
    /// Holds a network namespace for cells.
    Holder(Holder<'a>),
    /// A canary that looks at its own walls, at host paths, or at how much a plugin keeps.
    Probe(Probe<'a>),
}

/// A container for one job of one plugin.
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
    /// Which job, or that none is known yet.
    pub seat: Seat,
    /// Whether it is walled as the account `untrusted`, since the plugin's folder is not what was sealed.
    pub untrusted: bool,
    /// Full id of the container whose network namespace it joins.
    pub holder: Option<&'a str>,
}

impl<'a> Cell<'a> {
    /// What it is to the host.
    pub fn mode(&self) -> Mode {
        if self.untrusted {
            return Mode::Confined;
        }
        self.locked.proposed.walls.mode
    }

    /// Uid and gid. Untrusted code never has the operator's.
    pub fn user(&self) -> (u32, u32) {
        match self.mode() {
            // As in a container that nobody said anything about: the image's root.
            Mode::Unconfined => (0, 0),
            Mode::Credentialed { uid, gid } => (uid, gid),
            Mode::Confined => (self.locked.uid, self.locked.uid),
        }
    }

    /// What it keeps between calls.
    pub fn state(&self) -> StateKind {
        if self.untrusted {
            StateKind::None
        } else {
            self.locked.proposed.state
        }
    }

    /// How much it may keep between calls; `None` where it keeps nothing, or the operator wants no walls.
    pub fn quota(&self) -> Option<StateLimit> {
        self.locked.quota().filter(|_| !self.untrusted)
    }

    /// What it sees of the host.
    pub fn host_paths(&self) -> &'a [HostPath] {
        match self.mode() {
            Mode::Credentialed { .. } => &self.locked.proposed.host_paths,
            Mode::Confined | Mode::Unconfined => &[],
        }
    }

    /// The host path that is HOME and working directory, if its account has one.
    pub fn home(&self) -> Option<&'a Path> {
        let home = self.locked.proposed.walls.home.as_deref()?;
        // Only what is mounted: a path of the image would be nobody's.
        let mounted = |path: &&HostPath| path.path == home && path.writable;
        self.host_paths().iter().find(mounted).map(|_| home)
    }

    /// Whether it may reach anything beyond its own network namespace; then its holder is one with egress.
    pub fn has_egress(&self) -> bool {
        !self.untrusted && !self.locked.proposed.egress.is_empty()
    }
}

/// A container that does nothing but keep a network namespace: a cell that joins it starts in half the time. With egress it is also the cell's
/// only way out.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The stack it belongs to.
    pub stack: &'a StackId,
    /// Serial of the lock that `locked` is of.
    pub serial: Serial,
    /// The plugin that its cells are of.
    pub plugin: &'a PluginName,
    /// What is locked under that name.
    pub locked: &'a LockedPlugin,
    /// The image that holds the binary `/holder`.
    pub image: &'a ImageId,
    /// Tells holders apart; made for this one.
    pub id: JobId,
}

impl Holder<'_> {
    /// Whether it forwards to egress-proxy.
    pub fn has_egress(&self) -> bool {
        !self.locked.proposed.egress.is_empty()
    }
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
    /// At what it looks.
    pub look: Look<'a>,
}

/// At what a probe looks.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// At its own walls.
    Walls,
    /// Whether the host paths of this plugin are those of the lock.
    Paths(Entry<'a>),
    /// How much this plugin keeps.
    State(Entry<'a>, Pace),
}

/// How long a probe looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pace {
    /// Once.
    Once,
    /// Again and again, until there is more than there may be.
    Watching,
}

impl Pace {
    /// As in labels and in the probe's arguments.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Watching => "watching",
        }
    }
}

impl std::str::FromStr for Pace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Once, Self::Watching]
            .into_iter()
            .find(|pace| pace.as_str() == text)
            .ok_or(())
    }
}

/// One plugin of a lock.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Serial of the lock that `locked` is of.
    pub serial: Serial,
    /// Name of the plugin (or alias) in the lock.
    pub plugin: &'a PluginName,
    /// What is locked under that name.
    pub locked: &'a LockedPlugin,
}
