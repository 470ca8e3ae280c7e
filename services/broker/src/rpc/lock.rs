//! `LockService`, on the management socket. Whoever gets here has passed the gate.

use std::sync::Arc;

use bailey_error::status;
use bailey_proto::management::v1::lock_service_server::LockService;
use bailey_proto::management::v1::{ProposeRequest, ProposeResponse, SignRequest, SignResponse};
use bailey_types::Sha256;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::lock::{self, Error};
use crate::state::State;

pub struct Lock {
    state: Arc<State>,
}

impl Lock {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
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
        Ok(ProposeResponse {
            code: proposed.code,
            lock: lock.into(),
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
        proposed.map(Response::new).map_err(|e| status(&e))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let code = request.into_inner().code;
        let now = self.state.clock.now();
        let signed = self.state.notary.sign(&self.state.vault, &code, now);
        let (lock, signed) = signed.map_err(|e| status(&e))?;
        let images = lock
            .plugins
            .iter()
            .map(|(name, locked)| (name, locked.proposed.image));
        let images: std::collections::BTreeMap<_, _> = images.collect();
        // The payload holds MACs under the vault's nonce, so its hash says nothing about the configuration in it.
        let payload = Sha256::of(&signed.payload);
        let fields = json!({ "serial": lock.serial, "plugins": images, "lock_sha256": payload });
        // Without a record the signature does not leave; its serial stays used up.
        self.state
            .records
            .before("lock.signed", &fields)
            .await
            .map_err(|e| status(&e))?;
        tracing::info!(
            lock.serial = lock.serial.0,
            "signed the lock {}",
            lock.serial
        );
        Ok(Response::new(SignResponse { lock: Some(signed) }))
    }
}
