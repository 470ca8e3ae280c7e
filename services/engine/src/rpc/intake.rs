//! IntakeService.

use std::time::Duration;

use bailey_mesh::Caller;
use bailey_proto::engine::v1::intake_service_server::IntakeService;
use bailey_proto::engine::v1::{
    EmitEventRequest, EmitEventResponse, SubmitJobRequest, SubmitJobResponse,
};
use bailey_proto::trust::v1::Signed;
use tonic::{Request, Response, Status};

use super::{Api, message, parse};
use crate::intake::{self, Call, Emit, Sender};
use crate::query;

#[tonic::async_trait]
impl IntakeService for Api {
    #[tracing::instrument(name = "job.submit", skip_all)]
    async fn submit_job(
        &self,
        request: Request<SubmitJobRequest>,
    ) -> Result<Response<SubmitJobResponse>, Status> {
        let sender = sender(&request)?;
        let request = request.into_inner();
        let ttl = u64::try_from(request.dedupe_ttl_ms).map(Duration::from_millis);
        let ttl =
            ttl.map_err(|_| Status::invalid_argument("dedupe_ttl_ms must not be negative"))?;
        let wait = super::longest_wait(request.wait_ms).map_err(|e| *e)?;
        let call = Call {
            origin: origin(request.origin)?,
            plugin: parse(&request.plugin).map_err(|e| *e)?,
            command: parse(&request.command).map_err(|e| *e)?,
            payload: request.payload.into(),
            dedupe_key: request.dedupe_key,
            submitted_by: request.submitted_by,
            dedupe_ttl: (!ttl.is_zero()).then_some(ttl),
        };
        let submitted = intake::submit(&self.state, sender, call)
            .await
            .map_err(|e| bailey_error::status(&e))?;
        let ended = if wait.is_zero() {
            None
        } else {
            let ended = query::wait(&self.state, submitted.job, wait).await;
            Some(ended.map_err(|e| bailey_error::status(&e))?)
        };
        Ok(Response::new(SubmitJobResponse {
            job_id: submitted.job.to_string(),
            deduplicated: submitted.deduplicated,
            job: ended.map(message::full),
        }))
    }

    #[tracing::instrument(name = "event.emit", skip_all)]
    async fn emit_event(
        &self,
        request: Request<EmitEventRequest>,
    ) -> Result<Response<EmitEventResponse>, Status> {
        let sender = sender(&request)?;
        let request = request.into_inner();
        let emit = Emit {
            origin: origin(request.origin)?,
            event_type: parse(&request.r#type).map_err(|e| *e)?,
            payload: request.payload.into(),
            dedupe_key: request.dedupe_key,
            source: request.source,
        };
        let emitted = intake::emit(&self.state, sender, emit)
            .await
            .map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(EmitEventResponse {
            event_id: emitted.event.to_string(),
            job_ids: emitted.jobs.iter().map(ToString::to_string).collect(),
            deduplicated: emitted.deduplicated,
        }))
    }
}

fn sender<T>(request: &Request<T>) -> Result<Sender, Status> {
    let service = Caller::of(request)?.service();
    Sender::of(service)
        .ok_or_else(|| Status::permission_denied(format!("{service} speaks for nobody")))
}

fn origin(origin: Option<Signed>) -> Result<Signed, Status> {
    origin.ok_or_else(|| Status::invalid_argument("an origin is needed"))
}
