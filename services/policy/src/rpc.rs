//! `DecisionService` and `PoolService`: translates.

use std::sync::Arc;

use bailey_error::status;
use bailey_proto::policy::v1 as proto;
use bailey_proto::policy::v1::decide_request::AskedBy as ProtoAskedBy;
use bailey_proto::policy::v1::decide_response::Outcome;
use bailey_proto::policy::v1::decision_service_server::{DecisionService, DecisionServiceServer};
use bailey_proto::policy::v1::grant_pool_response;
use bailey_proto::policy::v1::pool_service_server::{PoolService, PoolServiceServer};
use bailey_types::AttemptNumber;
use tonic::{Request, Response, Status};

use crate::decision::{self, State};
use crate::error::Error;
use crate::grounds::{AskedBy, Call, Place};
use crate::pool;
use crate::request::LIMIT_BYTES;

/// Longest instance id and event type.
const MAX_TEXT_BYTES: usize = 256;

/// The request, its signatures and what protobuf adds.
const MAX_MESSAGE_BYTES: usize = LIMIT_BYTES + (2 << 20);

pub(crate) fn routes(state: State) -> tonic::service::Routes {
    let state = Arc::new(state);
    let decisions = DecisionServiceServer::new(Rpc(Arc::clone(&state)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    tonic::service::Routes::new(decisions).add_service(PoolServiceServer::new(Rpc(state)))
}

struct Rpc(Arc<State>);

#[tonic::async_trait]
impl PoolService for Rpc {
    async fn grant_pool(
        &self,
        request: Request<proto::GrantPoolRequest>,
    ) -> Result<Response<proto::GrantPoolResponse>, Status> {
        let plugin = parse(&request.into_inner().plugin).map_err(|e| status(&e))?;
        let granted = pool::grant(&self.0, &plugin).await;
        let outcome = match granted.map_err(|e| status(&e))? {
            Ok(signed) => grant_pool_response::Outcome::Grant(signed),
            Err(denial) => grant_pool_response::Outcome::Denied(denial.into()),
        };
        Ok(Response::new(proto::GrantPoolResponse {
            outcome: Some(outcome),
        }))
    }
}

#[tonic::async_trait]
impl DecisionService for Rpc {
    async fn decide(
        &self,
        request: Request<proto::DecideRequest>,
    ) -> Result<Response<proto::DecideResponse>, Status> {
        let call = call(request.into_inner()).map_err(|e| status(&e))?;
        let outcome = match decision::decide(&self.0, &call)
            .await
            .map_err(|e| status(&e))?
        {
            Ok(allowed) => Outcome::Allowed(proto::Allowed {
                decision: Some(allowed.decision),
                request: allowed.request.into(),
            }),
            Err(denial) => Outcome::Denied(denial.into()),
        };
        Ok(Response::new(proto::DecideResponse {
            outcome: Some(outcome),
        }))
    }
}

fn call(request: proto::DecideRequest) -> Result<Call, Error> {
    if request.attempt == 0 {
        return Err(Error::Malformed("the first attempt is 1".into()));
    }
    let step = request.pipeline_step.map(|step| {
        if step.instance_id.len() > MAX_TEXT_BYTES || step.event_type.len() > MAX_TEXT_BYTES {
            return Err(Error::Malformed(format!(
                "instance id and event type have at most {MAX_TEXT_BYTES} bytes"
            )));
        }
        Ok(Place {
            pipeline: parse(&step.pipeline)?,
            step: parse(&step.step)?,
            instance: step.instance_id,
            event_type: step.event_type,
            event_index: step.event_index,
        })
    });
    Ok(Call {
        job: parse(&request.job_id)?,
        attempt: AttemptNumber(request.attempt),
        plugin: parse(&request.plugin)?,
        command: parse(&request.command)?,
        request: request.request.to_vec(),
        asked_by: match request.asked_by {
            Some(ProtoAskedBy::Origin(signed)) => AskedBy::Origin(signed),
            Some(ProtoAskedBy::ParentDecision(signed)) => AskedBy::Parent(signed),
            None => {
                return Err(Error::Malformed(
                    "neither an origin nor a parent's decision".into(),
                ));
            }
        },
        step: step.transpose()?,
    })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|e| Error::Malformed(format!("{e}")))
}
