//! A broker with two tokens, and an engine with one plugin.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use bailey_proto::broker::v1::presence_service_server::{PresenceService, PresenceServiceServer};
use bailey_proto::broker::v1::token_service_server::{TokenService, TokenServiceServer};
use bailey_proto::broker::v1::verify_token_request::Asked;
use bailey_proto::broker::v1::{self as broker};
use bailey_proto::engine::v1::intake_service_server::{IntakeService, IntakeServiceServer};
use bailey_proto::engine::v1::plugin_service_server::{PluginService, PluginServiceServer};
use bailey_proto::engine::v1::query_service_server::{QueryService, QueryServiceServer};
use bailey_proto::engine::v1::upstream_service_server::{UpstreamService, UpstreamServiceServer};
use bailey_proto::engine::v1::{self as engine};
use bailey_proto::trust::v1::Signed;
use serde_json::json;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Tokens, and how often one was verified; and whether there are any; and whether it answers.
#[derive(Clone, Default)]
pub(super) struct Broker(Arc<AtomicUsize>, Arc<AtomicBool>, Arc<AtomicBool>);

impl Broker {
    pub(super) fn routes(&self) -> Routes {
        Routes::new(TokenServiceServer::new(self.clone()))
            .add_service(PresenceServiceServer::new(self.clone()))
    }

    pub(super) fn has_tokens(&self, has: bool) {
        self.1.store(!has, Ordering::SeqCst);
    }

    /// From now on it takes what it is asked, and says nothing.
    pub(super) fn hangs(&self) {
        self.2.store(true, Ordering::SeqCst);
    }

    async fn hang(&self) {
        if self.2.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn verified(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

#[tonic::async_trait]
impl TokenService for Broker {
    async fn verify_token(
        &self,
        request: Request<broker::VerifyTokenRequest>,
    ) -> Result<Response<broker::VerifyTokenResponse>, Status> {
        self.hang().await;
        self.0.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let scopes: &[&str] = match request.token.as_str() {
            "reader" => &["plugin:invoke:ro"],
            "writer" => &["plugin:rw", "plugin:invoke:ro"],
            "watcher" => &["system:ro"],
            "operator" => &["system:rw", "system:ro"],
            _ => return Err(Status::unauthenticated("no such token")),
        };
        let wanted = &request.any_of_scopes;
        if !wanted.is_empty() && !wanted.iter().any(|scope| scopes.contains(&scope.as_str())) {
            return Err(Status::permission_denied("not with this token"));
        }
        let origin = Signed {
            payload: stated(&request).into(),
            ..Signed::default()
        };
        Ok(Response::new(broker::VerifyTokenResponse {
            token_name: request.token,
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            origin: Some(origin),
        }))
    }
}

/// What this broker states of a request, without a signature.
fn stated(request: &broker::VerifyTokenRequest) -> String {
    match &request.asked {
        Some(Asked::Check(check)) => format!("{} checks {}", request.token, check.upstream),
        _ => String::new(),
    }
}

#[tonic::async_trait]
impl PresenceService for Broker {
    async fn beat(
        &self,
        _: Request<broker::BeatRequest>,
    ) -> Result<Response<broker::BeatResponse>, Status> {
        Ok(Response::new(broker::BeatResponse::default()))
    }

    async fn roll(
        &self,
        _: Request<broker::RollRequest>,
    ) -> Result<Response<broker::RollResponse>, Status> {
        self.hang().await;
        let none = self.1.load(Ordering::SeqCst);
        let posture = if none { "management-only" } else { "gateway" };
        Ok(Response::new(broker::RollResponse {
            posture: posture.into(),
            missing: vec!["the upstream model has no key".into()],
            ..broker::RollResponse::default()
        }))
    }
}

/// `greet`, which reads with `look` and writes with `greet`; how often it was asked for its catalogue, and whether it answers who looks at it.
#[derive(Clone, Default)]
pub(super) struct Engine(Arc<AtomicU32>, Arc<AtomicBool>);

impl Engine {
    pub(super) fn routes(&self) -> Routes {
        Routes::new(QueryServiceServer::new(self.clone()))
            .add_service(IntakeServiceServer::new(self.clone()))
            .add_service(PluginServiceServer::new(self.clone()))
            .add_service(UpstreamServiceServer::new(self.clone()))
    }

    /// How often it was asked for its catalogue.
    pub(super) fn listed(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// From now on it takes questions about itself, and says nothing.
    pub(super) fn hangs(&self) {
        self.1.store(true, Ordering::SeqCst);
    }

    async fn hang(&self) {
        if self.1.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

fn nobody_asks<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test asks"))
}

#[tonic::async_trait]
impl IntakeService for Engine {
    async fn submit_job(
        &self,
        _: Request<engine::SubmitJobRequest>,
    ) -> Result<Response<engine::SubmitJobResponse>, Status> {
        Ok(Response::new(engine::SubmitJobResponse {
            job_id: "job".into(),
            deduplicated: false,
            job: None,
        }))
    }

    async fn emit_event(
        &self,
        _: Request<engine::EmitEventRequest>,
    ) -> Result<Response<engine::EmitEventResponse>, Status> {
        nobody_asks()
    }
}

#[tonic::async_trait]
impl PluginService for Engine {
    async fn clear_plugin(
        &self,
        _: Request<engine::ClearPluginRequest>,
    ) -> Result<Response<engine::ClearPluginResponse>, Status> {
        nobody_asks()
    }

    async fn restart_plugin(
        &self,
        request: Request<engine::RestartPluginRequest>,
    ) -> Result<Response<engine::RestartPluginResponse>, Status> {
        let engine::RestartPluginRequest { plugin, principal } = request.into_inner();
        if plugin != "greet" {
            return Err(Status::not_found(format!("{plugin} is not a service")));
        }
        // So that the test sees for whom it was asked.
        Ok(Response::new(engine::RestartPluginResponse {
            job_id: principal,
        }))
    }
}

#[tonic::async_trait]
impl UpstreamService for Engine {
    async fn list_upstreams(
        &self,
        _: Request<engine::ListUpstreamsRequest>,
    ) -> Result<Response<engine::ListUpstreamsResponse>, Status> {
        let upstream = engine::Upstream {
            name: "model".into(),
            url: "https://api.example.com/v1".into(),
            secret: "model-key".into(),
            clients: vec!["engine".into()],
            timeout_ms: 120_000,
            rate: "60/min".into(),
            ..engine::Upstream::default()
        };
        Ok(Response::new(engine::ListUpstreamsResponse {
            upstreams: vec![upstream],
        }))
    }

    async fn check_upstream(
        &self,
        request: Request<engine::CheckUpstreamRequest>,
    ) -> Result<Response<engine::CheckUpstreamResponse>, Status> {
        let engine::CheckUpstreamRequest { name, origin } = request.into_inner();
        let origin = origin.unwrap_or_default().payload;
        if origin != format!("operator checks {name}") {
            return Err(Status::permission_denied("nobody asks for it"));
        }
        let (status, failure) = match name.as_str() {
            "model" => (200, String::new()),
            "away" => (0, "the name has no address".to_owned()),
            "busy" => {
                let mut busy = Status::resource_exhausted("the upstream busy: try again in 7 s");
                busy.metadata_mut().insert("retry-after", 7.into());
                return Err(busy);
            }
            name => return Err(Status::not_found(format!("no upstream {name} is locked"))),
        };
        Ok(Response::new(engine::CheckUpstreamResponse {
            status,
            failure,
            key_sent: status != 0,
            duration_ms: 7,
            ..engine::CheckUpstreamResponse::default()
        }))
    }
}

type Subscribed = Result<engine::SubscribeResponse, Status>;

#[tonic::async_trait]
impl QueryService for Engine {
    type SubscribeStream = Pin<Box<dyn futures::Stream<Item = Subscribed> + Send>>;

    async fn catalogue(
        &self,
        _: Request<engine::CatalogueRequest>,
    ) -> Result<Response<engine::CatalogueResponse>, Status> {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.hang().await;
        let command =
            |name: &str, access: &str| json!({ "name": name, "type": access, "description": "" });
        let catalogue = json!({ "plugins": [{
            "name": "greet",
            "version": "1",
            "description": "",
            "commands": [command("look", "read"), command("greet", "write")],
            "service": {"state": "waiting", "restarts": 2, "detail": "said the plugin"},
        }] });
        Ok(Response::new(engine::CatalogueResponse {
            catalogue_json: catalogue.to_string(),
        }))
    }

    async fn status(
        &self,
        _: Request<engine::StatusRequest>,
    ) -> Result<Response<engine::StatusResponse>, Status> {
        self.hang().await;
        Ok(Response::new(engine::StatusResponse::default()))
    }

    async fn read_job(
        &self,
        _: Request<engine::ReadJobRequest>,
    ) -> Result<Response<engine::ReadJobResponse>, Status> {
        nobody_asks()
    }

    async fn list_jobs(
        &self,
        _: Request<engine::ListJobsRequest>,
    ) -> Result<Response<engine::ListJobsResponse>, Status> {
        self.hang().await;
        let job = engine::Job {
            job_id: "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".into(),
            plugin: "greet".into(),
            ..engine::Job::default()
        };
        Ok(Response::new(engine::ListJobsResponse {
            jobs: vec![job],
            total: 1,
        }))
    }

    async fn read_tree(
        &self,
        _: Request<engine::ReadTreeRequest>,
    ) -> Result<Response<engine::ReadTreeResponse>, Status> {
        nobody_asks()
    }

    async fn wait_for_job(
        &self,
        _: Request<engine::WaitForJobRequest>,
    ) -> Result<Response<engine::WaitForJobResponse>, Status> {
        nobody_asks()
    }

    async fn subscribe(
        &self,
        _: Request<engine::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        nobody_asks()
    }
}
