//! Who asked for a check. The engine only carries what the broker has signed: it can leave it out, but neither make it up, nor use it twice, nor
//! for anything else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailey_config::Upstream;
use bailey_proto::egress::v1::RequestHead;
use bailey_proto::trust::v1::Signed;
use bailey_service::Context;
use bailey_trust::{Asked, Origin, VerifyingKey, verify};
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
    /// What is older is refused: whether it was used before is not known any more.
    started: Timestamp,
    used: Mutex<HashMap<OriginId, Timestamp>>,
}

/// Who asked for a check.
pub(crate) struct Principal {
    origin: OriginId,
    issued_at: Timestamp,
    pub(crate) name: String,
}

impl Origins {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self {
            broker: ctx.trust.signing.broker,
            clock: ctx.clock.clone(),
            started: ctx.clock.now(),
            used: Mutex::default(),
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
        let from = now.minus(GOOD_FOR).max(self.started);
        if origin.issued_at < from || origin.issued_at > now.plus(GRACE) {
            return Err("it is not of the last minute, or older than this process".into());
        }
        Ok(origin)
    }

    /// Uses up the origin that `principal` is from.
    pub(crate) fn take(&self, principal: &Principal) -> Result<(), Why> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let still = self.clock.now().minus(GOOD_FOR + GRACE);
        used.retain(|_, issued_at| *issued_at >= still);
        if used.insert(principal.origin, principal.issued_at).is_some() {
            return Err(Why::Origin("it was used before".to_owned()));
        }
        Ok(())
    }
}

/// Whether `head` asks for what a check of `upstream` is, and nothing else.
pub(crate) fn is_check(head: &RequestHead, upstream: &Upstream) -> bool {
    head.method == "GET" && head.path == upstream.check && head.headers.is_empty()
}
