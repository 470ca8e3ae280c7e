//! Exchanges with upstreams, by way of an egress-proxy that answers as the test says.

use std::iter;
use std::sync::{Arc, Mutex};

use bailey_proto::egress::v1 as egress;
use bailey_proto::egress::v1::upstream_service_server::{
    UpstreamService as Exchanges, UpstreamServiceServer,
};
use bailey_proto::egress::v1::{RequestHead, exchange_request, exchange_response};
use bailey_proto::engine::v1::{CheckUpstreamRequest, CheckUpstreamResponse, ListUpstreamsRequest};
use bailey_proto::trust::v1::Signed;
use bailey_test::Served;
use bailey_types::Service;
use engine::upstream::{Client, Error, Sent};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, Method};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::stack::TestEngine;

/// What was asked for: the head, and the sizes of the pieces of its body.
type Asked = (RequestHead, Vec<usize>);

/// Answers by the path: `/models` is well, `/cut` breaks off, `/silent` does not end, and `/echo` sends the body back.
#[derive(Clone, Default)]
struct EgressProxy(Arc<Mutex<Vec<Asked>>>);

impl EgressProxy {
    fn serve(&self, engine: &TestEngine) -> Served {
        let routes = tonic::service::Routes::new(UpstreamServiceServer::new(self.clone()));
        engine.stack.serve(Service::EgressProxy, routes)
    }

    fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }
}

type Answered = Result<egress::ExchangeResponse, Status>;

fn head(status: u32) -> egress::ExchangeResponse {
    let header = |name: &str, value: &str| egress::Header {
        name: name.to_owned(),
        value: value.to_owned().into(),
    };
    let head = egress::ResponseHead {
        status,
        headers: vec![header("x-seen", "one"), header("x-seen", "two")],
        key_sent: true,
    };
    egress::ExchangeResponse {
        part: Some(exchange_response::Part::Head(head)),
    }
}

fn piece(bytes: impl Into<bytes::Bytes>) -> egress::ExchangeResponse {
    egress::ExchangeResponse {
        part: Some(exchange_response::Part::Body(bytes.into())),
    }
}

#[tonic::async_trait]
impl Exchanges for EgressProxy {
    type ExchangeStream = BoxStream<'static, Answered>;

    async fn exchange(
        &self,
        request: Request<Streaming<egress::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap().part.unwrap();
        let exchange_request::Part::Head(asked) = first else {
            panic!("no head")
        };
        let mut pieces = Vec::new();
        while let Some(message) = messages.message().await? {
            let Some(exchange_request::Part::Body(piece)) = message.part else {
                panic!("no body")
            };
            pieces.push(piece);
        }
        let sizes = pieces.iter().map(bytes::Bytes::len).collect();
        self.0.lock().unwrap().push((asked.clone(), sizes));
        let answer = match asked.path.as_str() {
            "/models" | "/cut" => vec![head(200), piece("four"), piece("five!")],
            "/headless" => vec![piece("body")],
            "/silent" => vec![head(200)],
            "/echo" => iter::once(head(201))
                .chain(pieces.into_iter().map(piece))
                .collect(),
            "/busy" => {
                let mut busy = Status::resource_exhausted("the upstream busy: try again in 7 s");
                busy.metadata_mut().insert("retry-after", 7.into());
                busy.metadata_mut().insert("more", 7.into());
                return Err(busy);
            }
            path => {
                let why = format!("the upstream bell: no key for {path:?}");
                return Err(Status::failed_precondition(why));
            }
        };
        let mut answer: Vec<Answered> = answer.into_iter().map(Ok).collect();
        if asked.path == "/cut" {
            answer.pop();
            answer.push(Err(Status::unavailable("api.example.com broke off")));
        }
        let answer = stream::iter(answer);
        if asked.path == "/silent" {
            return Ok(Response::new(answer.chain(stream::pending()).boxed()));
        }
        Ok(Response::new(answer.boxed()))
    }
}

/// Who asks. The engine does not look at it.
fn origin() -> Signed {
    Signed {
        payload: "who asked".into(),
        signature: "the broker's".into(),
    }
}

async fn check(engine: &TestEngine, name: &str) -> Result<CheckUpstreamResponse, Status> {
    let request = CheckUpstreamRequest {
        name: name.to_owned(),
        origin: Some(origin()),
    };
    let checked = engine.upstreams().check_upstream(request).await;
    checked.map(Response::into_inner)
}

#[tokio::test]
async fn a_check_asks_for_what_is_locked_and_tells_how_it_went() {
    let engine = TestEngine::start().await;
    let proxy = EgressProxy::default();
    let _served = proxy.serve(&engine);

    let checked = check(&engine, "model").await.unwrap();
    assert_eq!(
        (checked.status, checked.received_bytes, checked.key_sent),
        (200, 9, true)
    );
    assert_eq!(
        (checked.failure.as_str(), checked.secret.as_str()),
        ("", "model-key")
    );
    let (asked, pieces) = proxy.asked().remove(0);
    let expected = RequestHead {
        upstream: "model".to_owned(),
        method: "GET".to_owned(),
        path: "/models".to_owned(),
        headers: Vec::new(),
        body_bytes: Some(0),
        origin: Some(origin()),
    };
    assert_eq!((asked, pieces), (expected, Vec::new()));

    // What egress-proxy says is passed on as it is, before the head and behind it.
    let refused = check(&engine, "bell").await.unwrap();
    assert_eq!((refused.status, refused.key_sent), (0, false));
    assert_eq!(refused.failure, "no key for \"\"");
    let cut = check(&engine, "cut").await.unwrap();
    assert_eq!((cut.status, cut.received_bytes), (200, 4));
    assert_eq!(cut.failure, "api.example.com broke off");
    let headless = check(&engine, "headless").await.unwrap();
    assert_eq!(
        headless.failure,
        "egress-proxy's answer cannot be understood"
    );
}

#[tokio::test]
async fn a_check_without_egress_proxy_says_that_it_is_away() {
    let engine = TestEngine::start().await;
    let checked = check(&engine, "model").await.unwrap();
    assert_eq!(checked.status, 0);
    let said = &checked.failure;
    assert!(said.starts_with("egress-proxy cannot be reached"), "{said}");
}

#[tokio::test]
async fn a_check_that_is_one_too_many_is_refused_and_told_when_to_try_again() {
    let engine = TestEngine::start().await;
    let proxy = EgressProxy::default();
    let _served = proxy.serve(&engine);
    let refused = check(&engine, "busy").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "the upstream busy: try again in 7 s");
    let metadata = refused.metadata();
    assert_eq!(metadata.get("retry-after").unwrap(), "7");
    assert_eq!(metadata.get("more"), None);
    // Its neighbour is asked.
    assert_eq!(check(&engine, "model").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_check_does_not_wait_for_ever() {
    let engine = TestEngine::impatient().await;
    let proxy = EgressProxy::default();
    let _served = proxy.serve(&engine);
    let checked = check(&engine, "silent").await.unwrap();
    let said = "there was no whole answer within 0.3 s";
    assert_eq!((checked.status, checked.failure.as_str()), (200, said));
}

#[tokio::test]
async fn what_is_not_locked_is_not_asked() {
    let engine = TestEngine::start().await;
    let proxy = EgressProxy::default();
    let _served = proxy.serve(&engine);
    let absent = check(&engine, "other").await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    assert!(absent.message().contains("no upstream other is locked"));
    let unlocked = TestEngine::unlocked().await;
    let none = check(&unlocked, "model").await.unwrap_err();
    assert_eq!(none.code(), Code::FailedPrecondition);
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn nothing_is_checked_for_nobody() {
    let engine = TestEngine::start().await;
    let proxy = EgressProxy::default();
    let _served = proxy.serve(&engine);
    let request = CheckUpstreamRequest {
        name: "model".to_owned(),
        origin: None,
    };
    let refused = engine.upstreams().check_upstream(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn upstreams_are_listed_as_they_are_locked() {
    let engine = TestEngine::start().await;
    let listed = engine
        .upstreams()
        .list_upstreams(ListUpstreamsRequest {})
        .await;
    let listed = listed.unwrap().into_inner().upstreams;
    let names: Vec<_> = listed
        .iter()
        .map(|upstream| upstream.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["bell", "busy", "cut", "headless", "model", "silent"]
    );
    let (bell, model) = (&listed[0], &listed[4]);
    assert_eq!(model.url, "https://api.example.com/v1");
    assert_eq!(
        (model.secret.as_str(), model.principal.as_str()),
        ("model-key", "model")
    );
    assert_eq!(
        (model.header.as_str(), model.check.as_str()),
        ("authorization", "/models")
    );
    assert_eq!(model.clients, ["engine", "worker"]);
    assert_eq!(model.rate, "60/min");
    assert_eq!((bell.secret.as_str(), bell.header.as_str()), ("", ""));
    assert_eq!(
        (bell.address.as_str(), bell.clients.len()),
        ("192.168.1.20", 1)
    );
}

#[tokio::test]
async fn a_body_goes_in_pieces_and_the_answer_comes_in_pieces() {
    let engine = TestEngine::start().await;
    let proxy = EgressProxy::default();
    let _served = proxy.serve(&engine);
    let client = Client::new(
        engine
            .stack
            .mesh(Service::Engine)
            .channel(Service::EgressProxy),
    );
    let upstream = "model".parse().unwrap();
    let body = bytes::Bytes::from(vec![7; (64 << 10) + 1]);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let sent = |path, body| Sent {
        upstream: &upstream,
        method: Method::POST,
        path,
        headers: headers.clone(),
        body,
        origin: None,
    };

    let mut answer = client.exchange(sent("/echo", body.clone())).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.key_sent), (201, true));
    let seen: Vec<_> = answer.headers.get_all("x-seen").iter().collect();
    assert_eq!(seen, ["one", "two"]);
    let mut whole = Vec::new();
    while let Some(piece) = answer.piece().await.unwrap() {
        whole.extend_from_slice(&piece);
    }
    assert_eq!(whole, body);
    let (asked, pieces) = proxy.asked().remove(0);
    assert_eq!(
        (asked.method.as_str(), asked.body_bytes),
        ("POST", Some(65_537))
    );
    assert_eq!(asked.headers[0].name, "content-type");
    assert_eq!(asked.origin, None);
    assert_eq!(pieces, [64 << 10, 1]);

    // More than a request may have is not sent at all.
    let large = bytes::Bytes::from(vec![0; (16 << 20) + 1]);
    let refused = client.exchange(sent("/echo", large)).await.unwrap_err();
    assert!(matches!(refused, Error::RequestTooLarge(_)), "{refused}");
    assert_eq!(proxy.asked().len(), 1);
}
