//! The containers that somebody in this process answers for: whatever else the engine holds of this stack is a leftover.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bailey_cell::{Identity, Seat};
use bailey_types::JobId;

/// Who a container is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occupant {
    /// A cell.
    Cell(Seat),
    /// A holder.
    Holder(JobId),
    /// A probe.
    Probe(JobId),
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<HashSet<Occupant>>>);

impl Roster {
    fn set(&self) -> std::sync::MutexGuard<'_, HashSet<Occupant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that is about to be made. It is answered for until the berth is dropped: it is removed then, or left to the next clean-up.
    pub fn begin(&self, occupant: Occupant) -> Berth {
        self.set().insert(occupant);
        Berth {
            roster: self.clone(),
            occupant,
        }
    }

    /// Whether somebody answers for it.
    pub fn holds(&self, identity: &Identity) -> bool {
        let occupant = match identity {
            Identity::Cell { seat, .. } => Occupant::Cell(*seat),
            Identity::Holder { id, .. } => Occupant::Holder(*id),
            Identity::Probe { job, .. } => Occupant::Probe(*job),
        };
        self.set().contains(&occupant)
    }
}

/// Somebody's answering for one container.
#[derive(Debug)]
pub struct Berth {
    roster: Roster,
    occupant: Occupant,
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.roster.set().remove(&self.occupant);
    }
}

#[cfg(test)]
mod tests {
    use bailey_types::{AttemptNumber, Serial};

    use super::*;

    #[test]
    fn a_container_is_answered_for_until_its_berth_is_dropped() {
        let roster = Roster::default();
        let attempt = AttemptNumber(1);
        let seat = Seat::Job {
            job: JobId::new(),
            attempt,
        };
        let cell = Identity::Cell {
            plugin: "greet".parse().unwrap(),
            seat,
            serial: Serial(1),
            untrusted: false,
            holder: None,
        };
        assert!(!roster.holds(&cell));
        let berth = roster.begin(Occupant::Cell(seat));
        let other = roster.begin(Occupant::Holder(JobId::new()));
        assert!(roster.holds(&cell));
        drop(other);
        assert!(roster.holds(&cell));
        drop(berth);
        assert!(!roster.holds(&cell));
    }
}
