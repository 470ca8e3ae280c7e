mod calls;
mod discovery;
mod peers;
mod upstreams;

use std::time::Duration;

use bailey_test::TestStack;
use bailey_types::{Serial, Service};
use tower::ServiceExt as _;

use super::*;
use crate::limits::Limits;
use crate::view::View;

#[test]
fn a_client_makes_no_new_names_for_figures() {
    assert_eq!(method_name(&Method::POST), "POST");
    assert_eq!(method_name(&Method::from_bytes(b"X1234").unwrap()), "other");
    assert_eq!(method_name(&Method::from_bytes(b"get").unwrap()), "other");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test awaits its own tasks")]
async fn bodies_of_strangers_do_not_fill_the_memory() {
    // Given a gateway with room for two of the largest bodies, and two strangers who never end theirs
    let stack = TestStack::new();
    let ctx = stack.context(Service::Gateway);
    let limits = Limits {
        all_bodies_bytes: 2 << 20,
        body_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let (clock, shutdown) = (ctx.clock.clone(), ctx.shutdown.clone());
    let lock = ctx.lock(Serial(0), View::of);
    let state = State::new(stack.join(&ctx), lock, limits, clock, shutdown);
    let router = router(&state, Ingress::Local);
    let ask = |method: &str, body: Body| {
        let request = Request::builder().method(method).uri("/events");
        let request = request.header("host", "localhost").body(body).unwrap();
        tokio::spawn(router.clone().oneshot(request))
    };
    let endless = || {
        let begun = futures::stream::once(async { Ok::<_, std::io::Error>("{") });
        Body::from_stream(futures::StreamExt::chain(begun, futures::stream::pending()))
    };
    let strangers = [ask("POST", endless()), ask("POST", endless())];
    tokio::time::sleep(Duration::from_millis(300)).await;

    // When a third one sends another: it waits, and what is small or has no body does not
    let third = ask("POST", Body::from(format!("{{}}{}", " ".repeat(50_000))));
    let small = ask("POST", Body::from("{}")).await.unwrap().unwrap();
    assert_eq!(small.status(), StatusCode::BAD_REQUEST);
    let reader = ask("GET", Body::empty()).await.unwrap().unwrap();
    assert_eq!(reader.status(), StatusCode::UNAUTHORIZED);
    assert!(!third.is_finished());

    // Then it has its turn when they are gone
    for stranger in strangers {
        let answer = stranger.await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    }
    let status = third.await.unwrap().unwrap().status();
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
