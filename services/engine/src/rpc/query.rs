//! QueryService.

use bailey_plugin::Catalogue;
use bailey_proto::engine::v1::query_service_server::QueryService;
use bailey_proto::engine::v1::{
    CatalogueRequest, CatalogueResponse, JobStatus, ListJobsRequest, ListJobsResponse,
    ReadJobRequest, ReadJobResponse, ReadTreeRequest, ReadTreeResponse, StatusRequest,
    StatusResponse, SubscribeRequest, SubscribeResponse, WaitForJobRequest, WaitForJobResponse,
};
use bailey_trust::rating::{Facts, Secrets};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{Api, message, optional, parse};
use crate::db::job::list::Filter;
use crate::feed::{self, Cursor};
use crate::job;
use crate::pattern::Patterns;
use crate::view::Locked;
use crate::{db, query, service};

/// What is locked, each plugin with its rating. Grants and folders are not the engine's to see, so they do not count in it.
fn catalogue(locked: &Locked) -> Catalogue {
    let plugins = locked.lock.plugins.iter();
    let mut catalogue =
        Catalogue::of(plugins.map(|(name, plugin)| (name, &plugin.proposed.manifest)));
    for entry in &mut catalogue.plugins {
        let config = locked.view.config.plugins.get(&entry.name);
        let facts = Facts {
            secrets: if config.is_some_and(|config| config.requires_vault) {
                Secrets::Required
            } else {
                Secrets::Unknown
            },
            drifted: false,
        };
        let plugin = locked.lock.plugins.get(&entry.name);
        entry.rating = plugin.map(|plugin| bailey_trust::rating(plugin, &facts));
    }
    catalogue
}

#[tonic::async_trait]
impl QueryService for Api {
    type SubscribeStream = BoxStream<'static, Result<SubscribeResponse, Status>>;

    async fn read_job(
        &self,
        request: Request<ReadJobRequest>,
    ) -> Result<Response<ReadJobResponse>, Status> {
        let id = parse(&request.into_inner().job_id).map_err(|e| *e)?;
        let job = query::job(&self.state, id)
            .await
            .map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(ReadJobResponse {
            job: Some(message::full(job)),
        }))
    }

    async fn list_jobs(
        &self,
        request: Request<ListJobsRequest>,
    ) -> Result<Response<ListJobsResponse>, Status> {
        let request = request.into_inner();
        let status = JobStatus::try_from(request.status);
        let filter = Filter {
            plugin: optional(&request.plugin).map_err(|e| *e)?,
            command: optional(&request.command).map_err(|e| *e)?,
            status: message::wanted(
                status.map_err(|_| Status::invalid_argument("an unknown status"))?,
            ),
        };
        let limit = match request.limit {
            0 => 50,
            limit @ 1..=200 => limit,
            _ => return Err(Status::invalid_argument("limit must be 1 to 200")),
        };
        let found = query::jobs(&self.state, &filter, limit).await;
        let (jobs, total) = found.map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(ListJobsResponse {
            jobs: jobs.into_iter().map(message::listed).collect(),
            total,
        }))
    }

    async fn read_tree(
        &self,
        request: Request<ReadTreeRequest>,
    ) -> Result<Response<ReadTreeResponse>, Status> {
        let tree = query::tree(&self.state, &request.into_inner().root_id).await;
        let tree = tree.map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(ReadTreeResponse {
            jobs: tree.into_iter().map(message::full).collect(),
        }))
    }

    async fn wait_for_job(
        &self,
        request: Request<WaitForJobRequest>,
    ) -> Result<Response<WaitForJobResponse>, Status> {
        let request = request.into_inner();
        let id = parse(&request.job_id).map_err(|e| *e)?;
        let longest = super::longest_wait(request.timeout_ms).map_err(|e| *e)?;
        let job = query::wait(&self.state, id, longest)
            .await
            .map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(WaitForJobResponse {
            job: Some(message::full(job)),
        }))
    }

    async fn catalogue(
        &self,
        _: Request<CatalogueRequest>,
    ) -> Result<Response<CatalogueResponse>, Status> {
        let locked = self
            .state
            .locked()
            .map_err(|e| Status::failed_precondition(e.to_string()))?;
        let mut catalogue = catalogue(&locked);
        let services = service::show(&self.state, &locked).await;
        let mut services = services.map_err(|e| bailey_error::status(&query::Error::Db(e)))?;
        for entry in &mut catalogue.plugins {
            entry.service = services.remove(&entry.name);
        }
        let json =
            serde_json::to_string(&catalogue).map_err(|_| Status::internal("internal error"))?;
        Ok(Response::new(CatalogueResponse {
            catalogue_json: json,
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (jobs, events) = totals(self)
            .await
            .map_err(|e| bailey_error::status(&query::Error::Db(e)))?;
        let count = |status: job::Status| jobs.get(&status).copied().unwrap_or_default();
        let locked = self.state.locked();
        let (services, services_running) = match &locked {
            Ok(locked) => service::count(&self.state, locked)
                .await
                .map_err(|e| bailey_error::status(&query::Error::Db(e)))?,
            Err(_) => (0, 0),
        };
        let (lock_serial, lock_trouble) = match locked {
            Ok(locked) => (locked.lock.serial.0, String::new()),
            Err(error) => (0, error.to_string()),
        };
        let runners = self.state.fleet.overview();
        Ok(Response::new(StatusResponse {
            queued: count(job::Status::Queued),
            running: count(job::Status::Running),
            dead: count(job::Status::Dead),
            succeeded_total: count(job::Status::Succeeded),
            failed_total: count(job::Status::Failed)
                + count(job::Status::TimedOut)
                + count(job::Status::Dead),
            events_total: events,
            runners_connected: runners.connected,
            runner_trouble: runners.trouble,
            lock_serial,
            lock_trouble,
            posture: runners.posture,
            services,
            services_running,
        }))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let patterns = Patterns::parse(&request.patterns);
        let patterns = patterns.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let cursor = match request.cursor {
            -1 => Cursor::New,
            seq @ 0.. => Cursor::After(seq),
            _ => return Err(Status::invalid_argument("cursor must be -1 or more")),
        };
        let ctx = self.ctx.clone();
        let events = feed::subscribe(&self.state, patterns, cursor, |task| {
            ctx.spawn("subscription", task);
        });
        let events = events
            .await
            .map_err(|e| bailey_error::status(&query::Error::Db(e)))?;
        let answer = |event| {
            Ok(SubscribeResponse {
                event: Some(message::event(event)),
            })
        };
        Ok(Response::new(events.map(answer).boxed()))
    }
}

async fn totals(
    api: &Api,
) -> Result<(std::collections::HashMap<job::Status, u64>, u64), sqlx::Error> {
    let mut read = api.state.db.read().await?;
    Ok((
        db::job::list::totals(&mut read).await?,
        db::event::total(&mut read).await?,
    ))
}
