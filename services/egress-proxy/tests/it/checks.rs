//! In whose name a check is recorded.

use std::time::Duration;

use bailey_proto::egress::v1::RequestHead;
use bailey_proto::trust::v1::Signed;
use bailey_trust::{Asked, Origin, sign};
use bailey_types::{Clock, CommandName, OriginId, PluginName, Service, Sha256};
use serde_json::Value;
use tonic::Code;

use crate::exchange::{Outside, failed, head, header};
use crate::script::answer;

/// What the broker states when the token `ops` asks for a check of `upstream`.
pub fn origin(upstream: &str) -> Origin {
    Origin {
        id: OriginId::new(),
        principal: "token:ops".to_owned(),
        asked: Asked::Check {
            upstream: upstream.parse().unwrap(),
        },
        scopes: vec!["system:rw".to_owned()],
        issued_at: Clock::system().now(),
    }
}

pub fn signed(outside: &Outside, origin: &Origin, by: Service) -> Signed {
    sign(origin, &outside.world.stack.signing_key(by)).unwrap()
}

pub fn check(origin: Signed) -> RequestHead {
    RequestHead {
        origin: Some(origin),
        ..head("GET", "/models")
    }
}

async fn outside() -> Outside {
    Outside::keyed("check: /models", |_| answer("200 OK", b"")).await
}

#[tokio::test]
async fn a_check_is_recorded_with_whoever_asked_for_it() {
    let outside = outside().await;
    let asked = check(signed(&outside, &origin("api"), Service::Broker));
    assert_eq!(outside.ask(asked, &[]).await.unwrap().head.status, 200);
    let closed = outside.audited("upstream.closed").await;
    assert_eq!(closed["principal"], "token:ops", "{closed}");
    assert_eq!(closed["client"], "engine");
    // What the engine itself asks for, the same included, is nobody's but its own.
    let own = outside.get("/models").await.unwrap();
    assert_eq!(own.head.status, 200);
    let entries = outside.world.audited(2).await;
    assert_eq!(entries[1].1["principal"], Value::Null, "{entries:?}");
    // A check that is refused has its name too.
    *outside.vault.value.lock().unwrap() = Err(Code::FailedPrecondition);
    let asked = check(signed(&outside, &origin("api"), Service::Broker));
    let refused = outside.ask(asked, &[]).await;
    failed(refused, Code::FailedPrecondition, "does not release");
    let refused = outside.audited("upstream.refused").await;
    assert_eq!(refused["principal"], "token:ops", "{refused}");
    outside.world.stop().await;
}

#[tokio::test]
async fn nobodys_name_can_be_made_up() {
    let outside = outside().await;
    let minute = Duration::from_secs(61);
    let old = Origin {
        issued_at: Clock::system().now().minus(minute),
        ..origin("api")
    };
    let early = Origin {
        issued_at: Clock::system().now().plus(minute),
        ..origin("api")
    };
    let stranger = Origin {
        principal: "schedule:fetch:daily".to_owned(),
        ..origin("api")
    };
    let call = Origin {
        asked: Asked::Call {
            plugin: "fetch".parse::<PluginName>().unwrap(),
            command: "get".parse::<CommandName>().unwrap(),
            payload_sha256: Sha256::of(b"{}"),
        },
        ..origin("api")
    };
    let by_broker = |origin: &Origin| signed(&outside, origin, Service::Broker);
    for (origin, words) in [
        (Signed::default(), "not by the key"),
        (
            signed(&outside, &origin("api"), Service::Scheduler),
            "not by the key",
        ),
        (by_broker(&origin("other")), "for another upstream"),
        (by_broker(&call), "for no check"),
        (by_broker(&stranger), "does not name a token"),
        (by_broker(&old), "not of the last minute"),
        (by_broker(&early), "not of the last minute"),
    ] {
        let refused = outside.ask(check(origin), &[]).await;
        failed(refused, Code::PermissionDenied, words);
    }
    assert_eq!(outside.server.opened(), 0);
    let refused = outside.audited("upstream.refused").await;
    assert_eq!(refused["principal"], Value::Null, "{refused}");
    outside.world.stop().await;
}

#[tokio::test]
async fn a_name_is_good_for_one_check_and_for_nothing_else() {
    let outside = outside().await;
    let given = signed(&outside, &origin("api"), Service::Broker);
    let asked = || check(given.clone());
    let with_header = RequestHead {
        headers: vec![header("accept", "text/plain")],
        ..asked()
    };
    let elsewhere = RequestHead {
        path: "/chat".to_owned(),
        ..asked()
    };
    let posted = RequestHead {
        method: "POST".to_owned(),
        ..asked()
    };
    for other in [with_header, elsewhere, posted] {
        let refused = outside.ask(other, &[]).await;
        failed(refused, Code::PermissionDenied, "this is something else");
    }
    let refused = outside.ask_as(Service::Worker, asked(), &[]).await;
    failed(refused, Code::PermissionDenied, "only the engine");
    assert_eq!(outside.ask(asked(), &[]).await.unwrap().head.status, 200);
    // However often it is shown, it takes nothing from the checks of others.
    for _ in 0..31 {
        let again = outside.ask(asked(), &[]).await;
        failed(again, Code::PermissionDenied, "it was used before");
    }
    let another = check(signed(&outside, &origin("api"), Service::Broker));
    assert_eq!(outside.ask(another, &[]).await.unwrap().head.status, 200);
    assert_eq!(outside.server.heard.lock().unwrap().len(), 2);
    outside.world.stop().await;
}
