//! `AuditService`: translates, and asks the writer.

use std::sync::Arc;

use bailey_error::status;
use bailey_mesh::Caller;
use bailey_proto::audit::v1 as proto;
use bailey_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use bailey_trust::TrustFile;
use bailey_types::{Service, Sha256};
use tonic::{Request, Response, Status};

use crate::entry;
use crate::error::Error;
use crate::writer::Writer;

/// Most entries of one answer.
const MAX_READ: u32 = 1000;

/// Most kinds of which the latest entry is asked for.
const MAX_KINDS: usize = 8;

pub(crate) fn routes(writer: Writer, trust: Arc<TrustFile>) -> tonic::service::Routes {
    tonic::service::Routes::new(AuditServiceServer::new(Rpc { writer, trust }))
}

struct Rpc {
    writer: Writer,
    trust: Arc<TrustFile>,
}

fn proof<B: From<Vec<u8>>>(hashes: Vec<Sha256>) -> Vec<B> {
    hashes
        .into_iter()
        .map(|hash| hash.0.to_vec().into())
        .collect()
}

#[tonic::async_trait]
impl AuditService for Rpc {
    async fn append(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let caller = Caller::of(&request)?.service();
        let proto::AppendRequest {
            entries,
            known_size,
        } = request.into_inner();
        let entries = entry::check(entries).map_err(|e| status(&e))?;
        let done = self
            .writer
            .append(caller, entries, known_size)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(proto::AppendResponse {
            first_index: done.first_index,
            checkpoint: done.state.note.into(),
            consistency_proof: proof(done.state.proof),
        }))
    }

    async fn checkpoint(
        &self,
        request: Request<proto::CheckpointRequest>,
    ) -> Result<Response<proto::CheckpointResponse>, Status> {
        let known = request.into_inner().known_size;
        let state = self
            .writer
            .checkpoint(known)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(proto::CheckpointResponse {
            checkpoint: state.note.into(),
            consistency_proof: proof(state.proof),
        }))
    }

    async fn cosign(
        &self,
        request: Request<proto::CosignRequest>,
    ) -> Result<Response<proto::CosignResponse>, Status> {
        let caller = Caller::of(&request)?.service();
        let key = match caller {
            Service::Policy => self.trust.signing.policy,
            Service::Broker => self.trust.signing.broker,
            Service::Gateway
            | Service::Engine
            | Service::Runner
            | Service::Scheduler
            | Service::Audit
            | Service::Worker
            | Service::SocketProxy
            | Service::EgressProxy => return Err(status(&Error::NotACosigner)),
        };
        let note = request.into_inner().note.to_vec();
        self.writer
            .keep_cosigned(caller, key, note)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(proto::CosignResponse {}))
    }

    async fn entries(
        &self,
        request: Request<proto::EntriesRequest>,
    ) -> Result<Response<proto::EntriesResponse>, Status> {
        let proto::EntriesRequest { first_index, limit } = request.into_inner();
        if limit == 0 || limit > MAX_READ {
            return Err(status(&Error::Limit {
                found: limit,
                most: MAX_READ,
            }));
        }
        let read = self
            .writer
            .entries(first_index, limit)
            .await
            .map_err(|e| status(&e))?;
        let entries = read.entries.into_iter().map(Into::into).collect();
        Ok(Response::new(proto::EntriesResponse {
            entries,
            size: read.size,
        }))
    }

    async fn latest(
        &self,
        request: Request<proto::LatestRequest>,
    ) -> Result<Response<proto::LatestResponse>, Status> {
        let caller = Caller::of(&request)?.service();
        let proto::LatestRequest { kinds, before } = request.into_inner();
        if !(1..=MAX_KINDS).contains(&kinds.len()) {
            return Err(status(&Error::Kinds {
                found: kinds.len(),
                most: MAX_KINDS,
            }));
        }
        let before = if before == 0 { u64::MAX } else { before };
        let latest = self.writer.latest(caller, kinds.into(), before).await;
        let latest = latest.map_err(|e| status(&e))?;
        Ok(Response::new(proto::LatestResponse {
            entry: latest.entry.unwrap_or_default().into(),
            looked_from: latest.looked_from,
        }))
    }
}
