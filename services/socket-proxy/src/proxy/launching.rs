//! Attach, grant, launch, start: the way of a cell from made to fed.

use std::sync::Arc;

use bailey_cell::Identity;
use bailey_cell::launch::{self, Returned};
use bailey_proto::trust::v1::Signed;
use http::{Method, Response};
use hyper::upgrade::Upgraded;
use serde_json::json;

use super::Proxy;
use crate::engine::Body;
use crate::error::Error;
use crate::launch::{Delivery, Names, Refusal, Unfed};
use crate::lease;
use crate::registry::{ContainerId, Denied, Record};

/// Envelopes up to this size are opened where they came in.
const SMALL_BYTES: usize = 16 << 10;

impl Proxy {
    /// Starts what may start now. What a holder with a way out says first must not be lost, so its streams are taken before.
    pub(super) async fn start(&self, id: &ContainerId) -> Result<Response<Body>, Error> {
        let now = self.parts.clock.now();
        // What was granted or fed under a lock that is no more is not started under the next.
        self.same_lock(&self.known(id)?).map_err(Error::NotNow)?;
        let record = self.registry.begin_start(id, now).map_err(denied)?;
        let holder = matches!(record.identity, Identity::Holder { .. });
        if holder && record.egress {
            self.leases.prepare(self.engine(), id).await?;
        }
        let started = self.pass_on(id, Method::POST, "/start").await;
        match &started {
            Ok(_) if holder => self.registry.holds(id),
            Ok(_) => {}
            Err(_) => self.leases.forget(id),
        }
        started
    }

    /// Uses up the container's one attach. It stays used when the engine then fails: a cell is cheap, a second reader is not.
    pub async fn attach(&self, id: &ContainerId) -> Result<(Record, Upgraded), Error> {
        self.adopt().await?;
        let record = self.registry.begin_attach(id).map_err(denied)?;
        let upgraded = self.engine().attach(id.as_str()).await?;
        Ok((record, upgraded))
    }

    /// Checks policy's leave for a pooled cell and books it.
    pub fn grant(&self, id: &ContainerId, record: &Record, grant: &Signed) -> Result<(), Refusal> {
        let grant = self.keys.grant(record, grant, self.parts.clock.now())?;
        // The lock may have become another since the cell was made.
        let loaded = self.lock().map_err(Refusal)?;
        let locked = loaded.lock.plugins.get(&grant.plugin);
        let locked = locked.filter(|locked| {
            loaded.lock.serial == grant.lock_serial && locked.proposed.image == grant.image
        });
        let Some(locked) = locked else {
            return Err(Refusal("the grant is under another lock".into()));
        };
        let most = grant.cells.min(locked.proposed.walls.warm);
        let granted = self.registry.grant(id, most, grant.expires_at);
        granted.map_err(|e| Refusal(e.to_string()))?;
        tracing::debug!(container.id = %id, grant.id = %grant.id, "a cell may idle under {}", grant.id);
        Ok(())
    }

    /// Checks and opens an envelope; a large one beside the other work: it may be 24 MiB.
    pub async fn open(
        &self,
        record: &Record,
        envelope: launch::Envelope,
    ) -> Result<Delivery, Unfed> {
        let clock = self.parts.clock.clone();
        if envelope.sealed.len() <= SMALL_BYTES {
            // Less than the way to another thread and back.
            return self.keys.open(record, &envelope, clock.now());
        }
        let (keys, record) = (Arc::clone(&self.keys), record.clone());
        // The time is that of the look, which may come late.
        let opening =
            tokio::task::spawn_blocking(move || keys.open(&record, &envelope, clock.now()));
        opening
            .await
            .unwrap_or_else(|_| Err(Refusal("opening the envelope failed".into()).into()))
    }

    /// Hands the decision to the holder of a cell with a way out; for any other cell there is nothing to do.
    pub async fn lease(&self, record: &Record, decision: &Signed) -> Result<(), lease::Error> {
        let Some(holder) = record.holder().filter(|_| record.egress) else {
            return Ok(());
        };
        self.leases.hand_over(&holder, decision).await
    }

    /// Books that a cell gets its request, and writes it down.
    pub fn launched(
        &self,
        id: &ContainerId,
        record: &Record,
        delivery: &Delivery,
    ) -> Result<(), Refusal> {
        let fed = self.registry.fed(id);
        fed.map_err(|e| Refusal(e.to_string()))?;
        let names = &delivery.names;
        let fields = json!({
            "container": id.as_str(), "plugin": record.identity.plugin(), "job": names.job, "attempt": names.attempt,
            "image": record.image, "decision": names.decision, "ticket": names.ticket,
        });
        self.audit().record("launch.fed", fields, false);
        Ok(())
    }

    /// Writes down that a plugin has printed a secret that it was given.
    pub fn returned(&self, id: &ContainerId, record: &Record, names: &Names, returned: &Returned) {
        let Returned {
            secret,
            stream,
            count,
        } = returned;
        let (plugin, stream) = (record.identity.plugin(), stream.as_str());
        let fields = json!({
            "container": id.as_str(), "plugin": plugin, "job": names.job, "attempt": names.attempt, "decision": names.decision,
            "secret": secret, "stream": stream, "count": count,
        });
        self.audit().record("secret.returned", fields, false);
        tracing::warn!(container.id = %id, job.id = %names.job, secret.name = %secret, secret.count = count, "a plugin printed its secret {secret} to {stream}");
    }
}

fn denied(denied: Denied) -> Error {
    match denied {
        Denied::Unknown => Error::NoSuchContainer,
        // It may start when others are gone.
        Denied::TooManyRun(..) => Error::NotNow(denied.to_string()),
        Denied::AttachedBefore
        | Denied::NoCell
        | Denied::NoLeave
        | Denied::Expired
        | Denied::StartedBefore
        | Denied::NotPooled
        | Denied::TooMany(_)
        | Denied::NoHolder
        | Denied::OtherHolder
        | Denied::NotFree => Error::Refused(denied.to_string()),
    }
}
