//! How many connections each caller has open. Without a bound, a captured service takes all the memory and descriptors of its peers, and with them
//! what the others call them for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailey_types::Service;

/// Connections of one caller at a time. An honest one has one, beside it for a while the one of its last certificate, on which long calls end, and
/// after a cut what its peer does not know to be gone yet.
pub(crate) const MAX_CONNECTIONS: u32 = 8;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// By its certificate.
    Service(Service),
    /// Somebody without one, by where it comes from: the enrolment listener's.
    Stranger(IpAddr),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => f.write_str(service.name()),
            Self::Stranger(address) => write!(f, "{address}"),
        }
    }
}

/// The callers of one listener.
#[derive(Default)]
pub(crate) struct Crowd(Mutex<HashMap<Who, u32>>);

/// A connection among those of its caller, until this is dropped.
pub(crate) struct Inside {
    crowd: Arc<Crowd>,
    who: Who,
}

impl Crowd {
    /// A place for one more connection of `who`, if it may have one.
    pub(crate) fn enter(self: &Arc<Self>, who: Who) -> Option<Inside> {
        let mut open = self.open();
        let count = open.entry(who).or_default();
        if *count >= MAX_CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Inside {
            crowd: Arc::clone(self),
            who,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Who, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.crowd.open().entry(self.who) {
            *count.get_mut() -= 1;
            // Strangers come from anywhere.
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_places_and_leaves_nothing_behind() {
        let crowd = Arc::new(Crowd::default());
        let stranger = |last| Who::Stranger(IpAddr::from([172, 18, 0, last]));
        for who in [Who::Service(Service::Engine), stranger(2)] {
            let mut inside: Vec<_> = (0..MAX_CONNECTIONS)
                .map(|_| crowd.enter(who).unwrap())
                .collect();
            assert!(crowd.enter(who).is_none());
            assert!(crowd.enter(Who::Service(Service::Worker)).is_some());
            assert!(crowd.enter(stranger(3)).is_some());
            inside.pop();
            inside.push(crowd.enter(who).unwrap());
            assert!(crowd.enter(who).is_none());
        }
        assert!(crowd.open().is_empty());
    }
}
