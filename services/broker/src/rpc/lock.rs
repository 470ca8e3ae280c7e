//! `LockService`, on the management socket. Whoever gets here has passed the gate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bailey_error::status;
use bailey_proto::management::v1::lock_service_server::LockService;
use bailey_proto::management::v1::{
    AwaitLockRequest, AwaitLockResponse, ProposeRequest, ProposeResponse, SignRequest, SignResponse,
};
use bailey_proto::trust::v1::Signed;
use bailey_types::{Serial, Service, Sha256};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::change;
use crate::lock::{self, Error};
use crate::presence::Taken;
use crate::record::Record;
use crate::state::State;
use crate::view::View;

/// How many plugins one entry has room for: 64 bytes of name, 71 of image id, and what is between them.
const PLUGINS: usize = 96;

/// Longest that somebody is kept until a lock is in force; the socket gives an answer 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// After so long a broker has heard of everybody who is there: a service beats every 10 s.
const FIRST_BEATS: Duration = Duration::from_secs(12);

pub struct Lock {
    state: Arc<State>,
    /// When this broker's life began, or a little later.
    began: Instant,
}

impl Lock {
    pub fn new(state: Arc<State>) -> Self {
        Self {
            state,
            began: Instant::now(),
        }
    }

    fn proposed(&self, text: &[u8]) -> Result<ProposeResponse, Error> {
        let proposal = lock::parse(text)?;
        let vault = self.state.vault.document()?;
        // A lock that is missing or refused has nothing to go on from; the vault has its serial.
        let present = self.state.lock.current().ok();
        let present = present.as_ref().map(|loaded| &loaded.lock);
        let now = self.state.clock.now();
        let proposed = self.state.notary.propose(&vault, present, proposal, now)?;
        let lock = serde_json::to_vec(&proposed.lock).map_err(Error::Encode)?;
        let view = View::of(&proposed.lock).map_err(Error::Config)?;
        Ok(ProposeResponse {
            code: proposed.code,
            lock: lock.into(),
            known_serial: vault.lock.serial.0,
            missing: view.missing(&vault),
        })
    }
}

#[tonic::async_trait]
impl LockService for Lock {
    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let proposed = self.proposed(&request.into_inner().proposal);
        proposed
            .map(Response::new)
            .map_err(|e| self.refused("propose", &e))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let signed = self.signed(&request.into_inner().code).await;
        let lock = signed.map_err(|e| self.refused("sign", &e))?;
        Ok(Response::new(SignResponse { lock: Some(lock) }))
    }

    async fn await_lock(
        &self,
        request: Request<AwaitLockRequest>,
    ) -> Result<Response<AwaitLockResponse>, Status> {
        let AwaitLockRequest { serial, wait_ms } = request.into_inner();
        let wait = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
        let Taken { behind, unheard } = self.taken(Serial(serial), wait).await;
        let names = |of: &[Service]| of.iter().map(ToString::to_string).collect();
        Ok(Response::new(AwaitLockResponse {
            behind: names(&behind),
            unheard: names(&unheard),
        }))
    }
}

impl Lock {
    /// How far the lock is taken after `wait`, or as soon as nobody is behind. Of a broker that has just started, nothing was heard of anybody yet.
    async fn taken(&self, serial: Serial, wait: Duration) -> Taken {
        let state = &self.state;
        // The broker's own part of the status is about the lock too.
        state.shown.notify_one();
        let taken = || state.roll.taken(serial, state.clock.now());
        // Before the first look, so that no beat is missed.
        let mut beats = state.roll.beats();
        let heard = async { while taken() != Taken::default() && beats.changed().await.is_ok() {} };
        let all_beat = wait.min(FIRST_BEATS.saturating_sub(self.began.elapsed()));
        // Over or not: what counts is how it is then.
        let _heard = tokio::time::timeout(all_beat, heard).await;
        let waited = async { while !taken().behind.is_empty() && beats.changed().await.is_ok() {} };
        let _waited = tokio::time::timeout(wait.saturating_sub(all_beat), waited).await;
        taken()
    }

    /// Signs what `code` names. Neither does the vault remember it nor does the signature leave before it is recorded.
    async fn signed(&self, code: &str) -> Result<Signed, Error> {
        let state = &self.state;
        let signing = state.notary.sign(code, state.clock.now())?;
        let remembered = change::recorded(
            state,
            |document| signing.remember(document),
            |()| told(&signing.lock, &signing.signed),
        );
        state.signing();
        remembered.await?;
        // The record may have taken its time.
        state.signing();
        state.notary.signed(code);
        let serial = signing.lock.serial;
        tracing::info!(lock.serial = serial.0, "signed the lock {serial}");
        Ok(signing.signed)
    }

    fn refused(&self, operation: &'static str, error: &Error) -> Status {
        if let Some(reason) = error.token() {
            let fields = json!({ "operation": operation, "reason": reason });
            self.state.records.refusal("lock.refused", &fields);
        }
        status(error)
    }
}

/// What the audit log is told of a signature: several entries, where one has no room for all plugins.
fn told(lock: &bailey_trust::Lock, signed: &Signed) -> Vec<Record> {
    // The payload holds MACs under the vault's nonce, so its hash says nothing about the configuration in it.
    let payload = Sha256::of(&signed.payload);
    let record = |plugins: BTreeMap<_, _>| {
        let fields = json!({ "serial": lock.serial, "plugins": plugins, "lock_sha256": payload });
        Record::new("lock.signed", fields)
    };
    let images = lock.plugins.iter();
    let images: Vec<_> = images
        .map(|(name, locked)| (name, locked.proposed.image))
        .collect();
    if images.is_empty() {
        return vec![record(BTreeMap::new())];
    }
    let parts = images.chunks(PLUGINS);
    parts
        .map(|part| record(part.iter().copied().collect()))
        .collect()
}
