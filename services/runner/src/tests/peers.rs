//! The engine and the policy of a test.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bailey_proto::engine::v1::lease_service_server::LeaseService;
use bailey_proto::engine::v1::{
    AmendRequest, AmendResponse, Heartbeat, Hello, LeaseRequest, LeaseResponse, ReportRequest,
    ReportResponse, TakeLineRequest, TakeLineResponse, lease_request, lease_response,
};
use bailey_proto::policy::v1::pool_service_server::PoolService;
use bailey_proto::policy::v1::{Denied, GrantPoolRequest, GrantPoolResponse, grant_pool_response};
use bailey_trust::{PoolGrant, SigningKey, sign};
use bailey_types::{Clock, GrantId, ImageId, Serial};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::world::PATIENCE;

/// One lease stream, from the engine's side.
pub(super) struct Session {
    pub(super) hello: Hello,
    incoming: Streaming<LeaseRequest>,
    outgoing: mpsc::Sender<Result<LeaseResponse, Status>>,
}

impl Session {
    pub(super) async fn heartbeat(&mut self) -> Heartbeat {
        let message = tokio::time::timeout(PATIENCE, self.incoming.message()).await;
        match message.unwrap().unwrap().unwrap().message {
            Some(lease_request::Message::Heartbeat(heartbeat)) => heartbeat,
            other => panic!("no heartbeat: {other:?}"),
        }
    }

    pub(super) async fn heartbeat_where(
        &mut self,
        wanted: impl Fn(&Heartbeat) -> bool,
    ) -> Heartbeat {
        loop {
            let heartbeat = self.heartbeat().await;
            if wanted(&heartbeat) {
                return heartbeat;
            }
        }
    }

    pub(super) async fn say(&self, message: lease_response::Message) {
        self.outgoing
            .send(Ok(LeaseResponse {
                message: Some(message),
            }))
            .await
            .unwrap();
    }
}

pub(super) async fn serve(tasks: &TaskTracker, routes: tonic::service::Routes) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let server = tonic::transport::Server::builder().add_routes(routes);
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    address
}

/// Takes every lease stream and every report.
pub(super) struct FakeEngine {
    pub(super) sessions: mpsc::Sender<Session>,
    pub(super) reports: mpsc::Sender<ReportRequest>,
    pub(super) amendments: mpsc::Sender<AmendRequest>,
    pub(super) lines: mpsc::Sender<TakeLineRequest>,
    pub(super) hears: Arc<Mutex<Option<Status>>>,
    /// No report is taken while somebody has it.
    pub(super) busy: Arc<tokio::sync::Mutex<()>>,
}

#[tonic::async_trait]
impl LeaseService for FakeEngine {
    type LeaseStream = Pin<Box<dyn futures::Stream<Item = Result<LeaseResponse, Status>> + Send>>;

    async fn lease(
        &self,
        request: Request<Streaming<LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(LeaseRequest {
            message: Some(lease_request::Message::Hello(hello)),
        }) = incoming.message().await?
        else {
            panic!("the first message is no hello");
        };
        let (outgoing, receive) = mpsc::channel(8);
        // A test that is over listens no more.
        self.sessions
            .send(Session {
                hello,
                incoming,
                outgoing,
            })
            .await
            .ok();
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        drop(self.busy.lock().await);
        self.reports.send(request.into_inner()).await.ok();
        Ok(Response::new(ReportResponse {}))
    }

    async fn amend(
        &self,
        request: Request<AmendRequest>,
    ) -> Result<Response<AmendResponse>, Status> {
        self.amendments.send(request.into_inner()).await.ok();
        Ok(Response::new(AmendResponse {}))
    }

    async fn take_line(
        &self,
        request: Request<TakeLineRequest>,
    ) -> Result<Response<TakeLineResponse>, Status> {
        if let Some(status) = self.hears.lock().unwrap().clone() {
            return Err(status);
        }
        self.lines.send(request.into_inner()).await.ok();
        Ok(Response::new(TakeLineResponse {}))
    }
}

/// What the policy of a test does with who asks for a pool.
#[derive(Default)]
pub(super) struct PoolRules {
    pub(super) denies: AtomicBool,
    pub(super) asked: AtomicUsize,
}

/// Grants pools of the one plugin there is.
pub(super) struct FakePolicy {
    pub(super) rules: Arc<PoolRules>,
    pub(super) key: SigningKey,
    pub(super) image: ImageId,
    pub(super) serial: Arc<Mutex<Serial>>,
}

#[tonic::async_trait]
impl PoolService for FakePolicy {
    async fn grant_pool(
        &self,
        request: Request<GrantPoolRequest>,
    ) -> Result<Response<GrantPoolResponse>, Status> {
        self.rules.asked.fetch_add(1, Ordering::SeqCst);
        let outcome = if self.rules.denies.load(Ordering::SeqCst) {
            grant_pool_response::Outcome::Denied(Denied {
                reason: "pool".into(),
                detail: "no pool for it".into(),
            })
        } else {
            let now = Clock::system().now();
            let grant = PoolGrant {
                id: GrantId::new(),
                plugin: request.into_inner().plugin.parse().unwrap(),
                image: self.image,
                lock_serial: *self.serial.lock().unwrap(),
                cells: 4,
                issued_at: now,
                expires_at: now.plus(PoolGrant::MAX_VALIDITY),
            };
            grant_pool_response::Outcome::Grant(sign(&grant, &self.key).unwrap())
        };
        Ok(Response::new(GrantPoolResponse {
            outcome: Some(outcome),
        }))
    }
}
