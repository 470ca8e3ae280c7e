//! `PresenceService` and `EpochService`.

use std::sync::Arc;

use bailey_mesh::Caller;
use bailey_proto::broker::v1::epoch_service_server::EpochService;
use bailey_proto::broker::v1::presence_service_server::PresenceService;
use bailey_proto::broker::v1::{
    BeatRequest, BeatResponse, EpochRequest, EpochResponse, RollRequest, RollResponse,
};
use tonic::{Request, Response, Status};

use crate::posture::Posture;
use crate::state::State;

#[derive(Clone)]
pub struct Presence {
    state: Arc<State>,
}

impl Presence {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl PresenceService for Presence {
    async fn beat(&self, request: Request<BeatRequest>) -> Result<Response<BeatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let service = caller.service();
        let beat = self
            .state
            .roll
            .beat(service, request.into_inner(), self.state.clock.now());
        beat.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let issuer = self.state.issuer.get();
        Ok(Response::new(BeatResponse {
            renew: issuer.is_some_and(|issuer| issuer.seen(caller.peer())),
        }))
    }

    async fn roll(&self, _: Request<RollRequest>) -> Result<Response<RollResponse>, Status> {
        Ok(Response::new(RollResponse {
            services: self.state.roll.all(),
            posture: Posture::of(&self.state.vault.state()).to_string(),
            missing: self.state.missing(),
        }))
    }
}

#[tonic::async_trait]
impl EpochService for Presence {
    async fn epoch(&self, _: Request<EpochRequest>) -> Result<Response<EpochResponse>, Status> {
        let hold = Posture::of(&self.state.vault.state()).holds();
        Ok(Response::new(EpochResponse {
            epoch: self.state.office.epoch.clone(),
            hold: hold.unwrap_or_default().into(),
        }))
    }
}
