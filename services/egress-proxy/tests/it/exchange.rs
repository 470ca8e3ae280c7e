//! The other ends: a broker that releases keys, and a client on the mesh.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bailey_mesh::Mesh;
use bailey_proto::broker::v1::upstream_key_service_server::{
    UpstreamKeyService, UpstreamKeyServiceServer,
};
use bailey_proto::broker::v1::{ReleaseKeyRequest, ReleaseKeyResponse};
use bailey_proto::egress::v1::upstream_service_client::UpstreamServiceClient;
use bailey_proto::egress::v1::{
    ExchangeRequest, ExchangeResponse, Header, RequestHead, ResponseHead, exchange_request,
    exchange_response,
};
use bailey_test::Served;
use bailey_types::Service;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::script::{Heard, Scripted, Step};
use crate::server::Authority;
use crate::world::World;

/// The key of every upstream that has one. What is percent-encoded, escaped and in base64 of it differs from it.
pub const KEY: &str = "sk-live+0123/4567\"89=AbCd";
/// The secret that holds it.
pub const SECRET: &str = "the-key";
/// The host of [`Outside::keyed`].
pub const HOST: &str = "api.example.com";

/// What a broker has, and what it was asked.
#[derive(Clone)]
pub struct Vault {
    pub value: Arc<Mutex<Result<String, Code>>>,
    /// The name that it says with it.
    pub secret: Arc<Mutex<String>>,
    pub asked: Arc<Mutex<Vec<(String, String)>>>,
    /// The serials of the locks that it was asked under.
    pub serials: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl UpstreamKeyService for Vault {
    async fn release_key(
        &self,
        request: Request<ReleaseKeyRequest>,
    ) -> Result<Response<ReleaseKeyResponse>, Status> {
        let asked = request.into_inner();
        self.serials.lock().unwrap().push(asked.lock_serial);
        self.asked
            .lock()
            .unwrap()
            .push((asked.upstream, asked.client));
        let value = self.value.lock().unwrap().clone();
        let value = value.map_err(|code| Status::new(code, "the broker's own words"))?;
        Ok(Response::new(ReleaseKeyResponse {
            secret: self.secret.lock().unwrap().clone(),
            value: value.into(),
        }))
    }
}

/// A service with an upstream `api` beyond it, and everything that both need.
pub struct Outside {
    pub world: World,
    pub vault: Vault,
    pub server: Scripted,
    pub authority: Authority,
    /// Of the clients: each has one connection, as the services have.
    meshes: Mutex<BTreeMap<Service, Mesh>>,
    _broker: Served,
}

impl Outside {
    /// An upstream over TLS with a key; `more` are lines of its configuration.
    pub async fn keyed(
        more: &str,
        script: impl Fn(&Heard) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let server = Scripted::start(Some(authority.acceptor(&[HOST])), script).await;
        let upstreams = keyed(&authority, more);
        Self::with(&upstreams, authority, server, 443).await
    }

    /// One over plain HTTP, without a key.
    pub async fn plain(
        more: &str,
        script: impl Fn(&Heard) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let server = Scripted::start(None, script).await;
        Self::with(&plain(more), Authority::new(), server, 80).await
    }

    async fn with(upstreams: &str, authority: Authority, server: Scripted, port: u16) -> Self {
        let world = World::with_upstreams(upstreams).await;
        world.beyond.serve(HOST, port, server.address);
        let vault = Vault {
            value: Arc::new(Mutex::new(Ok(KEY.to_owned()))),
            secret: Arc::new(Mutex::new(SECRET.to_owned())),
            asked: Arc::default(),
            serials: Arc::default(),
        };
        let broker = UpstreamKeyServiceServer::new(vault.clone());
        let broker = world.stack.serve(Service::Broker, Routes::new(broker));
        Self {
            world,
            vault,
            server,
            authority,
            meshes: Mutex::default(),
            _broker: broker,
        }
    }

    /// What the engine gets for a request without a body.
    pub async fn get(&self, path: &str) -> Result<Answer, Status> {
        self.ask(head("GET", path), &[]).await
    }

    /// What the engine gets.
    pub async fn ask(&self, head: RequestHead, parts: &[&[u8]]) -> Result<Answer, Status> {
        self.ask_as(Service::Engine, head, parts).await
    }

    /// What `client` gets, to the end.
    pub async fn ask_as(
        &self,
        client: Service,
        head: RequestHead,
        parts: &[&[u8]],
    ) -> Result<Answer, Status> {
        let mut messages = vec![of_head(head)];
        messages.extend(parts.iter().map(|part| of_body(part)));
        self.say(client, messages).await?.whole().await
    }

    /// Says exactly these messages, and no more.
    pub async fn say(
        &self,
        client: Service,
        messages: Vec<ExchangeRequest>,
    ) -> Result<Open, Status> {
        let (say, said) = mpsc::channel(messages.len() + 1);
        for message in messages {
            say.send(message).await.unwrap();
        }
        drop(say);
        self.open(client, said).await
    }

    /// Begins an exchange that the test goes on with.
    pub async fn open(
        &self,
        client: Service,
        said: mpsc::Receiver<ExchangeRequest>,
    ) -> Result<Open, Status> {
        let mesh = self.mesh(client);
        let mut client = UpstreamServiceClient::new(mesh.channel(Service::EgressProxy));
        let answer = client.exchange(ReceiverStream::new(said)).await?;
        let mut parts = answer.into_inner();
        let first = parts.message().await?.unwrap().part.unwrap();
        let head = match first {
            exchange_response::Part::Head(head) => head,
            exchange_response::Part::Body(_) => return Err(Status::internal("no head")),
        };
        Ok(Open { head, parts })
    }

    fn mesh(&self, client: Service) -> Mesh {
        let mut meshes = self.meshes.lock().unwrap();
        let mesh = meshes.entry(client);
        mesh.or_insert_with(|| self.world.stack.mesh(client))
            .clone()
    }

    /// The configuration of the moment of [`Self::keyed`] with other lines.
    pub fn reconfigured(&self, more: &str) -> String {
        keyed(&self.authority, more)
    }

    /// The one entry of this kind, which there must be by now or soon.
    pub async fn audited(&self, kind: &str) -> serde_json::Value {
        let mut count = 1;
        loop {
            let entries = self.world.audited(count).await;
            if let Some((_, fields)) = entries.iter().find(|(found, _)| found == kind) {
                return fields.clone();
            }
            count = entries.len() + 1;
        }
    }
}

/// An answer that has begun.
pub struct Open {
    pub head: ResponseHead,
    pub parts: Streaming<ExchangeResponse>,
}

/// An answer that has ended.
#[derive(Debug)]
pub struct Answer {
    pub head: ResponseHead,
    pub body: Vec<u8>,
    /// How it ended.
    pub end: Result<(), Status>,
}

impl Open {
    /// The next part of the body.
    pub async fn part(&mut self) -> Result<Option<Vec<u8>>, Status> {
        let Some(message) = self.parts.message().await? else {
            return Ok(None);
        };
        match message.part.unwrap() {
            exchange_response::Part::Body(bytes) => {
                assert!((1..=64 << 10).contains(&bytes.len()), "{}", bytes.len());
                Ok(Some(bytes.to_vec()))
            }
            exchange_response::Part::Head(_) => Err(Status::internal("a second head")),
        }
    }

    /// The rest of it.
    pub async fn whole(mut self) -> Result<Answer, Status> {
        let mut body = Vec::new();
        let end = loop {
            match self.part().await {
                Ok(Some(bytes)) => body.extend(bytes),
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        Ok(Answer {
            head: self.head,
            body,
            end,
        })
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.head.headers.iter();
        let mut values = headers.filter(|header| header.name == name);
        let value = values.next()?.value.to_vec();
        assert!(values.next().is_none(), "{name} is there twice");
        Some(String::from_utf8(value).unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn keyed(authority: &Authority, more: &str) -> String {
    let ca: Vec<String> = authority
        .issuer
        .pem()
        .lines()
        .map(|l| format!("      {l}"))
        .collect();
    let ca = ca.join("\n");
    let more: String = more
        .lines()
        .map(|l| format!("    {l}\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "upstreams:\n  api:\n    url: https://{HOST}/v1\n    secret_ref: {SECRET}\n    ca: |\n{ca}\n{more}"
    )
}

fn plain(more: &str) -> String {
    let more = more
        .lines()
        .map(|l| format!("    {l}\n"))
        .collect::<Vec<_>>();
    format!(
        "upstreams:\n  api:\n    url: http://{HOST}\n{}",
        more.concat()
    )
}

pub fn head(method: &str, path: &str) -> RequestHead {
    RequestHead {
        upstream: "api".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        headers: Vec::new(),
        body_bytes: None,
        origin: None,
    }
}

pub fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: value.to_owned().into(),
    }
}

pub fn of_head(head: RequestHead) -> ExchangeRequest {
    ExchangeRequest {
        part: Some(exchange_request::Part::Head(head)),
    }
}

pub fn of_body(part: &[u8]) -> ExchangeRequest {
    ExchangeRequest {
        part: Some(exchange_request::Part::Body(part.to_vec().into())),
    }
}

/// That a call failed with this code and these words.
#[track_caller]
pub fn failed<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(words), "{words:?} in {status}");
    assert!(!status.message().contains(KEY), "{status}");
}
