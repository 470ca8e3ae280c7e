//! How every service is, as it last said.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailey_proto::broker::v1::{BeatRequest, Presence, Readiness};
use bailey_types::{Serial, Service, Timestamp};
use tokio::sync::watch;

/// What a beat may not be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadBeat {
    /// Unset or unknown.
    #[error("a readiness must be said")]
    Readiness,
    /// Too long a text.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// Whoever was not heard for this long is not waited for: three beats.
const SILENT: Duration = Duration::from_secs(30);

/// Who follows the lock by himself, and says how far he is. The others look at it with each call, or, as the runner with its cells that stand
/// ready, soon after.
const FOLLOWERS: [Service; 4] = [
    Service::Policy,
    Service::Engine,
    Service::Scheduler,
    Service::EgressProxy,
];

/// How far those who follow the lock are with one. If nobody is named here, it is in force.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// They go by an earlier one.
    pub behind: Vec<Service>,
    /// They are not there, or have not said by which they go. Whoever starts later reads the one that is in place then.
    pub unheard: Vec<Service>,
}

/// What a service said last.
#[derive(Debug)]
struct Heard {
    presence: Presence,
    /// Serial of the lock that it goes by, if it says so.
    lock: Option<Serial>,
}

/// The roll of all services since this broker started.
#[derive(Debug, Default)]
pub struct Roll {
    heard: Mutex<BTreeMap<Service, Heard>>,
    /// How many beats there were.
    beats: watch::Sender<u64>,
}

impl Roll {
    const DETAIL_LIMIT_BYTES: usize = 512;
    const VERSION_LIMIT_BYTES: usize = 64;

    /// Writes down what a service said.
    pub fn beat(&self, service: Service, beat: BeatRequest, now: Timestamp) -> Result<(), BadBeat> {
        if matches!(beat.readiness(), Readiness::Unspecified) {
            return Err(BadBeat::Readiness);
        }
        if beat.detail.len() > Self::DETAIL_LIMIT_BYTES {
            return Err(BadBeat::TooLong("the detail"));
        }
        if beat.version.len() > Self::VERSION_LIMIT_BYTES {
            return Err(BadBeat::TooLong("the version"));
        }
        let presence = Presence {
            service: service.name().into(),
            readiness: beat.readiness,
            detail: beat.detail,
            version: beat.version,
            started_at_ms: beat.started_at_ms,
            rss_bytes: beat.rss_bytes,
            last_heard_ms: now.0,
        };
        let lock = beat.lock_serial.map(Serial);
        self.heard().insert(service, Heard { presence, lock });
        self.beats.send_modify(|beats| *beats += 1);
        Ok(())
    }

    /// How far those who follow the lock are with this one.
    pub fn taken(&self, serial: Serial, now: Timestamp) -> Taken {
        let heard = self.heard();
        let mut taken = Taken::default();
        for service in FOLLOWERS {
            let said = heard.get(&service).filter(|heard| {
                let presence = &heard.presence;
                let silent = now.since(Timestamp(presence.last_heard_ms)) > SILENT;
                !silent && presence.readiness() != Readiness::Stopping
            });
            match said.and_then(|heard| heard.lock) {
                None => taken.unheard.push(service),
                Some(lock) if lock < serial => taken.behind.push(service),
                Some(_) => {}
            }
        }
        taken
    }

    /// Changes with each beat.
    pub fn beats(&self) -> watch::Receiver<u64> {
        self.beats.subscribe()
    }

    /// Every service, those never heard of included.
    pub fn all(&self) -> Vec<Presence> {
        let heard = self.heard();
        let one = |service: &Service| {
            let never = || Presence {
                service: service.name().into(),
                ..Presence::default()
            };
            heard
                .get(service)
                .map_or_else(never, |heard| heard.presence.clone())
        };
        Service::ALL.iter().map(one).collect()
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<Service, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(readiness: Readiness) -> BeatRequest {
        BeatRequest {
            readiness: readiness.into(),
            ..BeatRequest::default()
        }
    }

    #[test]
    fn who_was_never_heard_is_on_the_roll_as_that() {
        let roll = Roll::default();
        roll.beat(Service::Engine, beat(Readiness::Ready), Timestamp(7))
            .unwrap();
        let all = roll.all();
        assert_eq!(all.len(), Service::ALL.len());
        let of = |name: &str| {
            all.iter()
                .find(|presence| presence.service == name)
                .unwrap()
        };
        assert_eq!(
            (of("engine").readiness(), of("engine").last_heard_ms),
            (Readiness::Ready, 7)
        );
        assert_eq!(
            (of("runner").readiness(), of("runner").last_heard_ms),
            (Readiness::Unspecified, 0)
        );
    }

    #[test]
    fn who_follows_the_lock_is_waited_for_while_it_is_there() {
        let roll = Roll::default();
        let says = |service, readiness, lock_serial, at| {
            let beat = BeatRequest {
                lock_serial,
                ..beat(readiness)
            };
            roll.beat(service, beat, Timestamp(at)).unwrap();
        };
        let taken = |serial, at| roll.taken(Serial(serial), Timestamp(at));
        // Given that all have said it but policy, and somebody who does not follow the lock says what he likes,
        let all = Taken::default();
        let others = FOLLOWERS.iter().filter(|of| **of != Service::Policy);
        for service in others {
            says(*service, Readiness::Ready, Some(7), 30_001);
        }
        says(Service::Runner, Readiness::Ready, Some(0), 30_001);
        let (behind, unheard) = (vec![Service::Policy], vec![Service::Policy]);
        let behind = || Taken {
            behind: behind.clone(),
            ..Taken::default()
        };
        let unheard = || Taken {
            unheard: unheard.clone(),
            ..Taken::default()
        };
        // then policy is waited for while it is there and goes by an earlier one; not heard of, nobody says that it has taken it.
        assert_eq!(taken(7, 30_001), unheard());
        says(Service::Policy, Readiness::Degraded, Some(6), 0);
        assert_eq!(taken(7, 30_000), behind());
        assert_eq!((taken(6, 0), taken(7, 30_001)), (all, unheard()));
        says(Service::Policy, Readiness::Stopping, Some(6), 0);
        assert_eq!(taken(7, 0), unheard());
        says(Service::Policy, Readiness::Starting, None, 0);
        assert_eq!(taken(7, 0), unheard());
        // One that has no lock yet is there too.
        says(Service::Policy, Readiness::Degraded, Some(0), 0);
        assert_eq!(taken(7, 0), behind());
        says(Service::Policy, Readiness::Ready, Some(7), 0);
        assert_eq!(taken(7, 0), Taken::default());
    }

    #[test]
    fn a_beat_must_say_something_and_be_short() {
        let roll = Roll::default();
        let said = roll.beat(Service::Engine, beat(Readiness::Unspecified), Timestamp(7));
        assert_eq!(said, Err(BadBeat::Readiness));
        let long = BeatRequest {
            detail: "x".repeat(513),
            ..beat(Readiness::Degraded)
        };
        let said = roll.beat(Service::Engine, long, Timestamp(7));
        assert_eq!(said, Err(BadBeat::TooLong("the detail")));
    }
}
