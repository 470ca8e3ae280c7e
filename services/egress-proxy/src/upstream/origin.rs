//! Who asked for a check. The engine only carries what the broker has signed: it can leave it out, but neither make it up, nor use it twice, nor
//! for anything else.

use std::time::Duration;

use bailey_config::Upstream;
use bailey_proto::egress::v1::RequestHead;
use bailey_proto::trust::v1::Signed;
use bailey_service::Context;
use bailey_trust::{Asked, Consumed, Origin, VerifyingKey, verify};
use bailey_types::{Clock, OriginId, Service, Timestamp};

use super::failure::Why;

/// How long an origin is good: somebody waits for the check.
const GOOD_FOR: Duration = Duration::from_mins(1);
/// What clocks may differ by.
const GRACE: Duration = Duration::from_secs(2);

/// Whom the broker speaks for.
const TOKEN: &str = "token:";

/// What it takes to believe an origin.
pub(crate) struct Origins {
    broker: VerifyingKey,
    clock: Clock,
    used: Consumed<OriginId>,
}

/// Who asked for a check.
pub(crate) struct Principal {
    origin: OriginId,
    issued_at: Timestamp,
    pub(crate) name: String,
}

impl Origins {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self::by(ctx.trust.signing.broker, ctx.clock.clone())
    }

    fn by(broker: VerifyingKey, clock: Clock) -> Self {
        let used = Consumed::new(clock.clone());
        Self {
            broker,
            clock,
            used,
        }
    }

    /// Who asked for what `client` brings in `head`; nobody but the client where nothing says so.
    pub(crate) fn principal(
        &self,
        client: Service,
        head: &RequestHead,
    ) -> Result<Option<Principal>, Why> {
        let Some(signed) = &head.origin else {
            return Ok(None);
        };
        if client != Service::Engine {
            return Err(Why::Origin("only the engine brings checks".to_owned()));
        }
        let origin = self.read(signed, &head.upstream).map_err(Why::Origin)?;
        Ok(Some(Principal {
            origin: origin.id,
            issued_at: origin.issued_at,
            name: origin.principal,
        }))
    }

    fn read(&self, signed: &Signed, upstream: &str) -> Result<Origin, String> {
        let origin = verify::<Origin>(signed, &self.broker).map_err(|e| e.to_string())?;
        let origin = origin.statement;
        let name = match &origin.asked {
            Asked::Check { upstream } => upstream.as_str(),
            Asked::Call { .. } | Asked::Event { .. } => return Err("it is for no check".into()),
        };
        if name != upstream {
            return Err("it is for another upstream".into());
        }
        if !origin.principal.starts_with(TOKEN) {
            return Err("it does not name a token".into());
        }
        let now = self.clock.now();
        if origin.issued_at < now.minus(GOOD_FOR) || origin.issued_at > now.plus(GRACE) {
            return Err("it is not of the last minute".into());
        }
        Ok(origin)
    }

    /// Uses up the origin that `principal` is from.
    pub(crate) fn take(&self, principal: &Principal) -> Result<(), Why> {
        let issued_at = principal.issued_at;
        let expires_at = issued_at.plus(GOOD_FOR);
        let used = self.used.consume(principal.origin, issued_at, expires_at);
        used.map_err(|why| Why::Origin(why.to_string()))
    }
}

/// Whether `head` asks for what a check of `upstream` is, and nothing else.
pub(crate) fn is_check(head: &RequestHead, upstream: &Upstream) -> bool {
    head.method == "GET" && head.path == upstream.check && head.headers.is_empty()
}

#[cfg(test)]
mod tests {
    use bailey_trust::{SigningKey, sign};

    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    struct World {
        broker: SigningKey,
        clock: Clock,
        origins: Origins,
    }

    impl World {
        /// A process that has run for an hour.
        fn new() -> Self {
            let (broker, clock) = (SigningKey::generate(), Clock::fixed(START));
            let origins = Origins::by(broker.verifying_key(), clock.clone());
            clock.pass(HOUR);
            Self {
                broker,
                clock,
                origins,
            }
        }

        /// The head of a check that the broker lets somebody ask for now.
        fn head(&self) -> RequestHead {
            let origin = Origin {
                id: OriginId::new(),
                principal: "token:ops".to_owned(),
                asked: Asked::Check {
                    upstream: "api".parse().unwrap(),
                },
                scopes: Vec::new(),
                issued_at: self.clock.now(),
            };
            RequestHead {
                upstream: "api".to_owned(),
                origin: Some(sign(&origin, &self.broker).unwrap()),
                ..RequestHead::default()
            }
        }

        fn uses(&self, head: &RequestHead) -> Result<(), Why> {
            let principal = self.origins.principal(Service::Engine, head)?;
            self.origins.take(&principal.unwrap())
        }
    }

    #[test]
    fn an_origin_is_good_once_whatever_the_clock_is_set_to() {
        let world = World::new();
        let made = world.clock.now();
        let head = world.head();
        assert!(world.uses(&head).is_ok());
        for set in [made.plus(HOUR), made.minus(4 * HOUR), made] {
            world.clock.set(set);
            assert!(world.uses(&head).is_err(), "{set}");
            // And what is asked for then is good at once.
            assert!(world.uses(&world.head()).is_ok(), "{set}");
        }
    }

    #[test]
    fn an_origin_of_an_earlier_process_is_refused() {
        let world = World::new();
        let head = world.head();
        world.clock.pass(Duration::from_secs(1));
        let later = Origins::by(world.broker.verifying_key(), world.clock.clone());
        let principal = later.principal(Service::Engine, &head).unwrap().unwrap();
        let refused = later.take(&principal).unwrap_err().to_string();
        assert!(
            refused.contains("before this process was started"),
            "{refused}"
        );
        let principal = later.principal(Service::Engine, &world.head()).unwrap();
        assert!(later.take(&principal.unwrap()).is_ok());
    }
}
