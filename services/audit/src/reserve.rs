//! The last tenth of the volume, which is kept for allows: whoever can cause refusals must not be able to stop the work.

use std::path::{Path, PathBuf};

use bailey_types::Service;

/// The room on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free_blocks: u64,
    pub(crate) all_blocks: u64,
}

impl Room {
    /// Whether only allows are recorded.
    pub(crate) fn is_reserved(self) -> bool {
        self.free_blocks.saturating_mul(10) < self.all_blocks
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
            free_blocks: stat.f_bavail,
            all_blocks: stat.f_blocks,
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
                free_blocks: 10,
                all_blocks: 100
            }
            .is_reserved()
        );
        assert!(
            Room {
                free_blocks: 9,
                all_blocks: 100
            }
            .is_reserved()
        );
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
        assert!(room.all_blocks > 0 && room.free_blocks <= room.all_blocks);
    }
}
