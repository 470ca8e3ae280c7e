//! Upstreams over HTTP: who may look, who may have one asked, and what is told.

use http::StatusCode;
use serde_json::json;

use super::calls::World;

#[tokio::test]
async fn upstreams_are_listed_without_what_they_do_not_have() {
    let world = World::new();
    let (status, listed) = world.ask("GET", "/upstreams", Some("watcher")).await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({ "upstreams": [{
        "name": "model",
        "url": "https://api.example.com/v1",
        "secret": "model-key",
        "own_ca": false,
        "clients": ["engine"],
        "timeout_ms": 120_000,
        "max_concurrent": 0,
        "rate": "60/min",
    }] });
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_failure_of_the_upstream_is_an_answer_of_the_gateway() {
    let world = World::new();
    let check = |name: &str| {
        let path = format!("/upstream/{name}/check");
        let world = &world;
        async move { world.ask("POST", &path, Some("operator")).await }
    };
    let (status, checked) = check("model").await;
    let expected = json!({"upstream": "model", "status": 200, "duration_ms": 7, "key_sent": true, "received_bytes": 0});
    assert_eq!((status, checked), (StatusCode::OK, expected));
    let (status, checked) = check("away").await;
    let expected = json!({"upstream": "away", "failure": "the name has no address", "duration_ms": 7, "key_sent": false, "received_bytes": 0});
    assert_eq!((status, checked), (StatusCode::OK, expected));
    let (status, problem) = check("other").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["detail"], "no upstream other is locked");
}

#[tokio::test]
async fn who_checks_too_often_is_told_when_to_try_again() {
    let world = World::new();
    let path = "/upstream/busy/check";
    let (status, problem) = world.ask("POST", path, Some("operator")).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(problem["type"], "/problems/too-much");
    assert_eq!(problem["detail"], "the upstream busy: try again in 7 s");
    let after = world.headers("POST", path, Some("operator")).await;
    assert_eq!(after["retry-after"], "7");
    // Where nobody knows, nobody says.
    let path = "/upstream/model/check";
    let after = world.headers("POST", path, Some("operator")).await;
    assert_eq!(after.get("retry-after"), None);
}

#[tokio::test]
async fn who_may_only_look_has_nothing_asked() {
    let world = World::new();
    for (method, path, token, expected) in [
        ("GET", "/upstreams", Some("operator"), StatusCode::OK),
        ("GET", "/upstreams", Some("writer"), StatusCode::FORBIDDEN),
        ("GET", "/upstreams", None, StatusCode::UNAUTHORIZED),
        (
            "POST",
            "/upstream/model/check",
            Some("operator"),
            StatusCode::OK,
        ),
        (
            "POST",
            "/upstream/model/check",
            Some("watcher"),
            StatusCode::FORBIDDEN,
        ),
        (
            "POST",
            "/upstream/model/check",
            None,
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let (status, answer) = world.ask(method, path, token).await;
        assert_eq!(status, expected, "{method} {path} with {token:?}: {answer}");
    }
}
