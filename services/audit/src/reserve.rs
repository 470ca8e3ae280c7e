//! The end of the volume, which is kept for allows: whoever can cause refusals must not be able to stop the work.

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
    /// Whether only allows are recorded.
    pub(crate) fn is_reserved(self) -> bool {
        self.free_bytes < (self.all_bytes / 10).min(MOST_KEPT_BYTES)
    }
}

/// Whether an entry may use the reserve. An allow is two records: the decision, and the ticket that the broker makes for it.
pub(crate) fn may_use_reserve(caller: Service, kind: &str) -> bool {
    matches!(
        (caller, kind),
        (Service::Policy, "decision.allowed") | (Service::Broker, "ticket.made")
    )
}

/// The volume that the log is on.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    dir: PathBuf,
    #[cfg(test)]
    fixed: Option<Room>,
}

impl Volume {
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            #[cfg(test)]
            fixed: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn fixed(room: Room) -> Self {
        Self {
            dir: PathBuf::new(),
            fixed: Some(room),
        }
    }

    /// The room now.
    pub(crate) fn room(&self) -> std::io::Result<Room> {
        #[cfg(test)]
        if let Some(room) = self.fixed {
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
    }

    #[test]
    fn the_room_of_a_real_folder_is_known() {
        let room = Volume::of(&std::env::temp_dir()).room().unwrap();
        assert!(room.all_bytes > 0 && room.free_bytes <= room.all_bytes);
    }
}
