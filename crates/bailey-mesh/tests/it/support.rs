//! A broker in miniature, and a client that keeps to no rules.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bailey_mesh::{Authority, Caller, Mesh};
use bailey_proto::broker::v1::certificate_service_server::{
    CertificateService, CertificateServiceServer,
};
use bailey_proto::broker::v1::enrolment_service_server::{
    EnrolmentService, EnrolmentServiceServer,
};
use bailey_proto::broker::v1::epoch_service_server::{EpochService, EpochServiceServer};
use bailey_proto::broker::v1::presence_service_server::{PresenceService, PresenceServiceServer};
use bailey_proto::broker::v1::{
    BeatRequest, BeatResponse, EnrolRequest, EnrolResponse, EpochRequest, EpochResponse,
    RenewRequest, RenewResponse, RollRequest, RollResponse,
};
use bailey_service::Context;
use bailey_test::{TestStack, stranger};
use bailey_types::{Clock, Service, Timestamp};
use rcgen::KeyPair;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

type Beats = mpsc::Receiver<(Service, BeatRequest)>;

/// Issues, renews, counts beats: what the mesh needs of a broker, with real certificates of the given lifetime.
#[derive(Clone)]
pub struct MiniBroker {
    authority: Arc<Authority>,
    validity: Duration,
    beats: mpsc::Sender<(Service, BeatRequest)>,
    pub ctx: Context,
    pub mesh: Mesh,
    received: Arc<Mutex<Option<Beats>>>,
}

impl MiniBroker {
    pub fn start(stack: &TestStack, validity: Duration) -> Self {
        let ctx = stack.context(Service::Broker);
        let mesh = Mesh::with_authority(&ctx, stack.authority(), validity).unwrap();
        let (beats, received) = mpsc::channel(1000);
        let received = Arc::new(Mutex::new(Some(received)));
        let broker = Self {
            authority: stack.authority(),
            validity,
            beats,
            ctx,
            mesh,
            received,
        };

        let strangers = Routes::new(EnrolmentServiceServer::new(broker.clone()));
        let listener = bailey_mesh::bind(stack.enrolment_address()).unwrap();
        let (mesh, ctx) = (broker.mesh.clone(), broker.ctx.clone());
        broker.ctx.spawn("enrolment", async move {
            mesh.serve_enrolment(&ctx, listener, strangers).await
        });

        let routes = Routes::new(CertificateServiceServer::new(broker.clone()))
            .add_service(EpochServiceServer::new(broker.clone()))
            .add_service(PresenceServiceServer::new(broker.clone()));
        let listener = bailey_mesh::bind(broker.ctx.settings.listen).unwrap();
        let (mesh, ctx) = (broker.mesh.clone(), broker.ctx.clone());
        broker.ctx.spawn(
            "rpc",
            async move { mesh.serve(&ctx, listener, routes).await },
        );
        broker
    }

    pub fn beats(&self) -> Beats {
        self.received.lock().unwrap().take().unwrap()
    }

    fn issue(&self, service: Service, csr: &[u8]) -> Result<Vec<prost::bytes::Bytes>, Status> {
        let chain = self
            .authority
            .issue(service, csr, self.validity, self.ctx.clock.now());
        let chain = chain.map_err(|e| bailey_error::status(&e))?;
        Ok(chain.into_iter().map(Into::into).collect())
    }
}

#[tonic::async_trait]
impl EnrolmentService for MiniBroker {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        let service: Service = request
            .service
            .parse()
            .map_err(|_| Status::unauthenticated("no"))?;
        if !self
            .ctx
            .trust
            .enrolment_secret_matches(service, &request.secret)
        {
            return Err(Status::unauthenticated("no"));
        }
        Ok(Response::new(EnrolResponse {
            chain: self.issue(service, &request.csr)?,
        }))
    }
}

#[tonic::async_trait]
impl CertificateService for MiniBroker {
    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(RenewResponse {
            chain: self.issue(caller.service(), &request.into_inner().csr)?,
        }))
    }
}

#[tonic::async_trait]
impl EpochService for MiniBroker {
    async fn epoch(&self, _: Request<EpochRequest>) -> Result<Response<EpochResponse>, Status> {
        Ok(Response::new(EpochResponse {
            epoch: "e".into(),
            ..EpochResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl PresenceService for MiniBroker {
    async fn beat(&self, request: Request<BeatRequest>) -> Result<Response<BeatResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.beats
            .send((caller.service(), request.into_inner()))
            .await
            .unwrap();
        let renew = caller.peer().issuer != Some(self.authority.intermediate().key);
        Ok(Response::new(BeatResponse { renew }))
    }

    async fn roll(&self, _: Request<RollRequest>) -> Result<Response<RollResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A certificate that an adversary shows, with its key.
pub struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

/// A real certificate of `service`, valid for `validity` from `from` on.
pub fn issued(stack: &TestStack, service: Service, from: Timestamp, validity: Duration) -> Shown {
    let key = KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let chain = stack
        .authority()
        .issue(service, csr.der(), validity, from)
        .unwrap();
    Shown {
        chain: chain.into_iter().map(CertificateDer::from).collect(),
        key,
    }
}

pub fn now() -> Timestamp {
    Clock::system().now()
}

/// A TLS client that believes every server and shows whatever it was given.
pub fn adversary(shown: Option<Shown>) -> ClientConfig {
    stranger::tls(shown.map(|shown| {
        let key = PrivatePkcs8KeyDer::from(shown.key.serialize_der());
        (shown.chain, PrivateKeyDer::from(key))
    }))
}

/// Connects, then reads until the server has said its first word (its h2 settings) or refused.
pub async fn knock(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("mesh").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await?;
    // In TLS 1.3 the client is done before the server has looked at its certificate.
    stream.read_exact(&mut [0; 9]).await?;
    Ok(stream)
}
