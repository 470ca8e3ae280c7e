//! The end of the volume, which is kept for allows, so that whoever can cause refusals cannot stop the work; and for what takes something away
//! from somebody, so that he cannot keep that from being told.

use std::path::{Path, PathBuf};

use bailey_types::Service;

/// A tenth of the volume is kept, but not more than this: without a volume of its own the log is on the host's disk, and a tenth of that
/// is more than allows ever fill.
const MOST_KEPT_BYTES: u64 = 1 << 30;

/// The room on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free_bytes: u64,
    pub(crate) all_bytes: u64,
}

impl Room {
    /// Whether only what [`may_use_reserve`] is recorded.
    pub(crate) fn is_reserved(self) -> bool {
        self.free_bytes < (self.all_bytes / 10).min(MOST_KEPT_BYTES)
    }
}

/// Whether an entry may use the reserve. An allow is two records: the decision, and the ticket that the broker makes for it. What the broker did
/// before the log had it (what only takes away, and what the operator does at its keys) is done already; each needs the admin token or the host. What
/// was taken away would be good again in an earlier vault that is put back: that such a change is durable is recorded, too, in the same call.
pub(crate) fn may_use_reserve(caller: Service, kind: &str) -> bool {
    let by_policy = caller == Service::Policy && kind == "decision.allowed";
    by_policy || (caller == Service::Broker && BROKERS.contains(&kind))
}

const BROKERS: [&str; 13] = [
    "ticket.made",
    "secret.revoked",
    "principal.revoked",
    "principal.purged",
    "token.revoked",
    "vault.recipient_removed",
    "vault.made",
    "vault.unsealed",
    "vault.key_rotated",
    "vault.admin_token_rotated",
    "vault.restored",
    "vault.adopted",
    "vault.kept",
];

/// The volume that the log is on.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    dir: PathBuf,
    #[cfg(test)]
    fixed: Option<Room>,
    /// Held by a test for as long as the disk is to hang.
    #[cfg(test)]
    pub(crate) hangs: std::sync::Arc<std::sync::Mutex<()>>,
}

impl Volume {
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            #[cfg(test)]
            fixed: None,
            #[cfg(test)]
            hangs: std::sync::Arc::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn fixed(room: Room) -> Self {
        Self {
            dir: PathBuf::new(),
            fixed: Some(room),
            hangs: std::sync::Arc::default(),
        }
    }

    /// The room now.
    pub(crate) fn room(&self) -> std::io::Result<Room> {
        #[cfg(test)]
        if let Some(room) = self.fixed {
            drop(self.hangs.lock());
            return Ok(room);
        }
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(Room {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            all_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_a_tenth_only_allows_pass() {
        assert!(
            !Room {
                free_bytes: 10,
                all_bytes: 100
            }
            .is_reserved()
        );
        assert!(
            Room {
                free_bytes: 9,
                all_bytes: 100
            }
            .is_reserved()
        );
        // Of a large disk no tenth is kept.
        let large = |free_bytes| Room {
            free_bytes,
            all_bytes: 4 << 40,
        };
        assert!(!large(1 << 30).is_reserved());
        assert!(large((1 << 30) - 1).is_reserved());
        assert!(may_use_reserve(Service::Policy, "decision.allowed"));
        assert!(may_use_reserve(Service::Broker, "ticket.made"));
        assert!(!may_use_reserve(Service::Policy, "decision.denied"));
        assert!(
            !may_use_reserve(Service::Engine, "decision.allowed"),
            "only policy allows"
        );
        // What takes away, and not what gives.
        assert!(may_use_reserve(Service::Broker, "token.revoked"));
        assert!(may_use_reserve(Service::Broker, "vault.recipient_removed"));
        assert!(may_use_reserve(Service::Broker, "vault.restored"));
        assert!(may_use_reserve(Service::Broker, "vault.kept"));
        assert!(!may_use_reserve(Service::Broker, "token.created"));
        assert!(!may_use_reserve(Service::Broker, "secret.set"));
        assert!(
            !may_use_reserve(Service::Engine, "token.revoked"),
            "only the broker revokes"
        );
    }

    #[test]
    fn the_room_of_a_real_folder_is_known() {
        let room = Volume::of(&std::env::temp_dir()).room().unwrap();
        assert!(room.all_bytes > 0 && room.free_bytes <= room.all_bytes);
    }
}
