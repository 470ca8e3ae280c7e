//! ScheduleService and RetentionService.

use bailey_proto::engine::v1::retention_service_server::RetentionService;
use bailey_proto::engine::v1::schedule_service_server::ScheduleService;
use bailey_proto::engine::v1::{
    OutstandingJobsRequest, OutstandingJobsResponse, PruneRequest, PruneResponse,
};
use bailey_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{Api, parse};
use crate::work::Work;
use crate::{db, query};

#[tonic::async_trait]
impl ScheduleService for Api {
    async fn outstanding_jobs(
        &self,
        request: Request<OutstandingJobsRequest>,
    ) -> Result<Response<OutstandingJobsResponse>, Status> {
        let request = request.into_inner();
        let plugin = parse(&request.plugin).map_err(|e| *e)?;
        let command = parse(&request.command).map_err(|e| *e)?;
        let count = async {
            let mut read = self.state.db.read().await?;
            db::job::find::outstanding(&mut read, &plugin, &command).await
        };
        let count = count
            .await
            .map_err(|e| bailey_error::status(&query::Error::Db(e)))?;
        Ok(Response::new(OutstandingJobsResponse { count }))
    }
}

#[tonic::async_trait]
impl RetentionService for Api {
    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<PruneResponse>, Status> {
        let request = request.into_inner();
        if !(1..=10_000).contains(&request.limit) {
            return Err(Status::invalid_argument("limit must be 1 to 10000"));
        }
        let pruned = async {
            let mut work = Work::begin(&self.state).await?;
            let (jobs, events, facts) = (
                Timestamp(request.jobs_before_ms),
                Timestamp(request.events_before_ms),
                Timestamp(request.facts_before_ms),
            );
            let jobs = db::job::prune(work.db(), jobs, request.limit).await?;
            let events = db::event::prune(work.db(), events, request.limit).await?;
            let facts = db::plugin::prune_facts(work.db(), facts, request.limit).await?;
            work.commit(&self.state).await?;
            Ok(PruneResponse {
                jobs,
                events,
                facts,
            })
        };
        let pruned = pruned
            .await
            .map_err(|e| bailey_error::status(&query::Error::Db(e)))?;
        Ok(Response::new(pruned))
    }
}
