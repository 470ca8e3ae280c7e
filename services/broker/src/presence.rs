//! How every service is, as it last said.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bailey_proto::broker::v1::{BeatRequest, Presence, Readiness};
use bailey_types::{Service, Timestamp};

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

/// The roll of all services since this broker started.
#[derive(Debug, Default)]
pub struct Roll(Mutex<BTreeMap<Service, Presence>>);

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
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(service, presence);
        Ok(())
    }

    /// Every service, those never heard of included.
    pub fn all(&self) -> Vec<Presence> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |service: &Service| {
            let never = || Presence {
                service: service.name().into(),
                ..Presence::default()
            };
            heard.get(service).cloned().unwrap_or_else(never)
        };
        Service::ALL.iter().map(one).collect()
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
