//! What a request costs, and what it is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bailey_test::{Served, TestStack};
use bailey_trust::Lock;
use bailey_types::{Clock, Serial, Service};
use http::StatusCode;
use serde_json::Value;
use tower::ServiceExt as _;

use super::peers::{Broker, Engine};
use super::*;
use crate::limits::Limits;
use crate::view::View;

/// A gateway between a broker and an engine.
pub(super) struct World {
    stack: TestStack,
    broker: Broker,
    engine: Engine,
    router: Router,
    _peers: [Served; 2],
}

impl World {
    pub(super) fn new() -> Self {
        let stack = TestStack::new();
        let (broker, engine) = (Broker::default(), Engine::default());
        let peers = [
            stack.serve(Service::Broker, broker.routes()),
            stack.serve(Service::Engine, engine.routes()),
        ];
        let ctx = stack.context(Service::Gateway);
        let state = State::new(
            stack.join(&ctx),
            ctx.lock(Serial(0), View::of),
            Limits::default(),
            ctx.clock.clone(),
            ctx.shutdown.clone(),
        );
        let router = router(&state, Ingress::Local);
        Self {
            stack,
            broker,
            engine,
            router,
            _peers: peers,
        }
    }

    fn lock(&self, config: &str) {
        self.stack.write_lock(&Lock {
            version: 1,
            stack: "test".parse().unwrap(),
            serial: Serial(1),
            signed_at: Clock::system().now(),
            config_files: BTreeMap::from([("config.yaml".into(), config.into())]),
            plugins: BTreeMap::new(),
            next_uid: 20_000,
        });
    }

    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> (StatusCode, Value) {
        let answer = self.answer(method, path, token).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(super) async fn headers(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> http::HeaderMap {
        let answer = self.answer(method, path, token).await;
        answer.headers().clone()
    }

    /// The page for people.
    async fn page(&self) -> String {
        let request = Request::builder().uri("/").header("accept", "text/html");
        let answer = self.sent(request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let page = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(page.to_vec()).unwrap()
    }

    async fn answer(&self, method: &str, path: &str, token: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.sent(request).await
    }

    async fn sent(&self, request: http::request::Builder) -> Response {
        let request = request.header("host", "localhost").body(Body::empty());
        self.router.clone().oneshot(request.unwrap()).await.unwrap()
    }
}

#[tokio::test]
async fn a_call_verifies_its_token_once_and_for_what_it_calls() {
    let world = World::new();
    for (command, token, expected) in [
        ("look", "reader", StatusCode::ACCEPTED),
        ("look", "writer", StatusCode::ACCEPTED),
        ("greet", "writer", StatusCode::ACCEPTED),
        ("greet", "reader", StatusCode::FORBIDDEN),
        ("look", "wrong", StatusCode::UNAUTHORIZED),
    ] {
        let path = format!("/plugin/greet/{command}");
        let (status, _) = world.ask("POST", &path, Some(token)).await;
        assert_eq!(status, expected, "{command} with {token}");
        assert_eq!(world.broker.verified(), 1, "{command} with {token}");
    }
}

#[tokio::test]
async fn calls_under_one_lock_ask_the_engine_for_its_names_once() {
    let world = World::new();
    let call = || world.ask("POST", "/plugin/greet/look", Some("reader"));
    for _ in 0..3 {
        assert_eq!(call().await.0, StatusCode::ACCEPTED);
    }
    assert_eq!(world.engine.listed(), 1);
    world.lock("accounts:\n  default: {}\n");
    assert_eq!(call().await.0, StatusCode::ACCEPTED);
    assert_eq!(world.engine.listed(), 2);
}

#[tokio::test]
async fn names_are_told_to_whoever_has_a_token_only() {
    let world = World::new();
    for path in [
        "/plugin/greet/look",
        "/plugin/greet/other",
        "/plugin/other/look",
    ] {
        for token in [None, Some("wrong")] {
            let (status, answer) = world.ask("POST", path, token).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert!(!answer.to_string().contains("greet"), "{answer}");
        }
    }
    let (status, answer) = world
        .ask("POST", "/plugin/greet/other", Some("reader"))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.to_string().contains("look, greet"), "{answer}");
}

#[tokio::test]
async fn warnings_are_counted_for_everybody_and_told_with_a_token() {
    let world = World::new();
    let (_, health) = world.ask("GET", "/healthz", Some("reader")).await;
    assert_eq!(health["warning_count"], 1);
    world.lock("accounts:\n  default: {}\n");
    for token in [None, Some("wrong")] {
        let (_, health) = world.ask("GET", "/healthz", token).await;
        assert_eq!(health["warning_count"], 2);
        assert_eq!(health.get("warnings"), None);
    }
    let (_, health) = world.ask("GET", "/healthz", Some("reader")).await;
    let told = health["warnings"].as_array().unwrap();
    assert_eq!(told.len(), 2);
    assert!(told[0].as_str().unwrap().contains("untrusted"), "{told:?}");
    // What the vault would not give is the broker's to say.
    assert_eq!(told[1], "the upstream model has no key");
}

#[tokio::test]
async fn without_a_token_nothing_but_health_is_served_and_the_first_one_opens_at_once() {
    let world = World::new();
    world.broker.has_tokens(false);
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/plugins"),
        ("GET", "/openapi.json"),
        ("GET", "/assets/status.css"),
        ("GET", "/nowhere"),
        ("POST", "/plugin/greet/look"),
    ] {
        let (status, problem) = world.ask(method, path, Some("reader")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(problem["type"], "/problems/management-only", "{path}");
        assert_eq!(world.broker.verified(), 0, "{path}");
    }
    let (status, health) = world.ask("GET", "/healthz", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health["api_posture"], "management-only");
    assert!(
        health["troubles"]
            .to_string()
            .contains("bailey token create")
    );
    world.broker.has_tokens(true);
    let (status, _) = world
        .ask("POST", "/plugin/greet/look", Some("reader"))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (_, health) = world.ask("GET", "/healthz", None).await;
    assert_eq!(health["api_posture"], "gateway");
}

/// One question may take a second and a half: what asks two of them one after the other takes longer than this.
const LESS_THAN_TWICE: Duration = Duration::from_millis(2900);

#[tokio::test]
async fn the_page_for_people_does_not_wait_for_an_engine_that_says_nothing() {
    let world = World::new();
    assert!(world.page().await.contains("2e3f4a5b"), "no job is shown");
    world.engine.hangs();
    let begun = Instant::now();
    let page = world.page().await;
    let took = begun.elapsed();
    assert!(took < LESS_THAN_TWICE, "{took:?}");
    assert!(page.contains("the engine does not answer"), "{page}");
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_named_soon_and_the_rest_is_shown() {
    // Given a broker that takes what it is asked and says nothing
    let world = World::new();
    world.broker.hangs();
    // when somebody with a token asks how the stack is
    let begun = Instant::now();
    let (status, health) = world.ask("GET", "/healthz", Some("operator")).await;
    // then the answer does not take twice as long as one question may, names the broker alone, and has what the engine says.
    let took = begun.elapsed();
    assert!(took < LESS_THAN_TWICE, "{took:?}");
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let troubles = health["troubles"].as_array().unwrap();
    let of_broker = "the broker does not answer, and only it knows how the others are";
    assert_eq!(troubles[0], of_broker);
    let others = troubles.iter().map(|it| it.as_str().unwrap());
    assert!(
        !others.clone().any(|it| it.ends_with("is unknown")),
        "{health}"
    );
    assert_eq!(
        (&health["status"], &health["plugins_loaded"]),
        (&"degraded".into(), &1.into())
    );
    assert_eq!(health["api_posture"], "unknown");
    assert!(health.get("warnings").is_none(), "{health}");
}
