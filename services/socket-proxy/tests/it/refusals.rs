//! Everything that the runner must not get.

use std::time::Duration;

use bailey_cell::launch::Control;
use bailey_proto::management::v1::InspectImageRequest;
use bailey_types::{ImageId, JobId, Serial, Service, Sha256, Timestamp};
use bollard::errors::Error;
use serde_json::{Value, json};

use crate::stand::{Launch, Stand, args};

fn status(result: Result<impl Sized, Error>) -> (u16, String) {
    let Some(Error::DockerResponseServerError {
        status_code,
        message,
    }) = result.err()
    else {
        panic!("the proxy did not refuse")
    };
    (status_code, message)
}

#[tokio::test]
async fn a_body_that_differs_by_one_field_is_refused_and_audited() {
    let stand = Stand::start().await;
    let job = JobId::new();
    let (name, body) = stand.derived(job);
    let body = serde_json::to_value(body).unwrap();
    for (pointer, value) in [
        ("/HostConfig/Privileged", json!(true)),
        ("/HostConfig/Binds", json!(["/:/host"])),
        ("/HostConfig/NetworkMode", json!("host")),
        ("/HostConfig/PidMode", json!("host")),
        ("/HostConfig/CapDrop", json!([])),
        ("/HostConfig/Memory", json!(1_u64 << 40)),
        ("/HostConfig/SecurityOpt/1", json!("seccomp=unconfined")),
        ("/User", json!("0:0")),
        ("/Entrypoint", json!(["/bin/sh"])),
        ("/Image", json!(format!("sha256:{}", "1".repeat(64)))),
        ("/Env/0", json!("LD_PRELOAD=/tmp/x")),
        ("/Labels/bailey.attempt", json!("2")),
    ] {
        let mut changed = body.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let answer = post_create(&stand, &name, &changed.to_string()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{pointer}: {answer}");
    }
    let mut more = body.clone();
    more["hostconfig"] = json!({ "Privileged": true });
    let answer = post_create(&stand, &name, &more.to_string()).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("hostconfig"),
        "{answer}"
    );
    assert!(
        stand.recorded.last("create.refused").unwrap()["reason"]
            .as_str()
            .unwrap()
            .contains("hostconfig")
    );
    // And the unchanged body passes.
    assert!(
        post_create(&stand, &name, &body.to_string())
            .await
            .starts_with("HTTP/1.1 201")
    );
}

async fn post_create(stand: &Stand, name: &str, body: &str) -> String {
    let length = body.len();
    stand.raw(&format!(
        "POST /containers/create?name={name} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )).await
}

#[tokio::test]
async fn a_body_that_parsers_read_differently_is_refused() {
    let stand = Stand::start().await;
    let (name, body) = stand.derived(JobId::new());
    let body = serde_json::to_string(&body).unwrap();
    let twice = body.replacen('{', r#"{"User":"0:0","#, 1);
    assert!(
        post_create(&stand, &name, &twice)
            .await
            .contains("appears twice")
    );
    let trailing = format!("{body}{{}}");
    assert!(
        post_create(&stand, &name, &trailing)
            .await
            .starts_with("HTTP/1.1 403")
    );
    let large = format!("{body}{}", " ".repeat(256 << 10));
    assert!(
        post_create(&stand, &name, &large)
            .await
            .starts_with("HTTP/1.1 403")
    );
    assert!(
        post_create(&stand, "bailey-other", &body)
            .await
            .contains("name must be")
    );
}

#[tokio::test]
async fn a_plugin_that_is_not_locked_and_another_lock_get_no_cell() {
    let mut stand = Stand::start().await;
    let (name, body) = stand.derived(JobId::new());
    let body = serde_json::to_value(body).unwrap();
    let mut unknown = body.clone();
    unknown["Labels"]["bailey.plugin"] = "stranger".into();
    assert!(
        post_create(&stand, &name, &unknown.to_string())
            .await
            .contains("not locked")
    );
    let mut foreign = body.clone();
    foreign["Labels"]["bailey.stack"] = "other".into();
    assert!(
        post_create(&stand, &name, &foreign.to_string())
            .await
            .starts_with("HTTP/1.1 403")
    );

    // Under a newer lock the runner may read it again and come back.
    let image = stand
        .lock
        .as_ref()
        .unwrap()
        .plugins
        .values()
        .next()
        .unwrap()
        .proposed
        .image;
    stand.lock_plugin(&image.to_string(), 2);
    let answer = post_create(&stand, &name, &body.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");

    // The older one is not taken back.
    stand.lock_plugin(&image.to_string(), 1);
    let answer = post_create(&stand, &name, &body.to_string()).await;
    assert!(
        answer.starts_with("HTTP/1.1 409") && answer.contains("older"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_image_that_is_gone_is_named_and_audited() {
    let stand = Stand::start().await;
    let image = stand.image();
    let path = format!("/images/{image}?force=1");
    crate::stand::engine()
        .call(http::Method::DELETE, &path, None)
        .await
        .unwrap();
    let (name, body) = stand.derived(JobId::new());
    let (status, message) = status(stand.create(&name, body).await);
    assert_eq!(status, 403);
    assert!(message.contains(&image.to_string()), "{message}");
    let audited = stand.recorded.last("create.refused").unwrap();
    assert_eq!(audited["reason"], message);
}

#[tokio::test]
async fn what_is_not_a_call_is_refused_before_the_engine_hears_of_it() {
    let stand = Stand::start().await;
    let cell = stand.cell().await;
    let id = &cell.id;
    for head in [
        format!("POST /containers/{id}/exec HTTP/1.1"),
        format!("GET /containers/{id}/logs?stdout=1 HTTP/1.1"),
        format!("GET /containers/{id}/archive?path=/ HTTP/1.1"),
        format!("POST /commit?container={id} HTTP/1.1"),
        format!("POST /containers/%2e%2e/{id}/kill HTTP/1.1"),
        format!("POST //containers/{id}/start HTTP/1.1"),
        format!("POST /v1.41/containers/{id}/start HTTP/1.1"),
        format!("POST /containers/{id}/start?x=1 HTTP/1.1"),
        format!("POST /containers/{}/start HTTP/1.1", &id[..12]),
        "GET http://docker/_ping HTTP/1.1".into(),
        "GET /_ping HTTP/1.0".into(),
        "GET /info HTTP/1.1".into(),
        "GET /images/json HTTP/1.1".into(),
    ] {
        let answer = stand
            .raw(&format!(
                "{head}\r\nHost: docker\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
        assert!(
            answer.contains(" 403 ") && answer.contains("message"),
            "{head}: {answer}"
        );
    }
    let both = "POST /containers/create?name=bailey-x HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(stand.raw(both).await.starts_with("HTTP/1.1 403"));
    let h2c = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert!(!stand.raw(h2c).await.contains(" 200"));
    assert!(stand.recorded.last("docker.refused").is_some());
}

#[tokio::test]
async fn only_ids_that_were_made_here_exist() {
    let stand = Stand::start().await;
    let (name, body) = stand.derived(JobId::new());
    let id = stand.create(&name, body).await.unwrap();
    assert_eq!(status(stand.remove(&name).await).0, 403, "a name is no id");
    assert_eq!(status(stand.remove(&"0".repeat(64)).await).0, 404);
    // A container of somebody else on the same engine.
    let base = stand.import_base("other", &[]).await;
    let body = json!({ "Image": base, "Entrypoint": ["/x"] }).to_string();
    let path = format!("/containers/create?name=bailey-{}-bystander", stand.id);
    let made: Value = crate::stand::engine()
        .json(http::Method::POST, &path, Some(body.into()))
        .await
        .unwrap();
    assert_eq!(
        status(stand.remove(made["Id"].as_str().unwrap()).await).0,
        404
    );
    stand.remove(&id).await.unwrap();
}

#[tokio::test]
async fn a_cell_is_attached_to_once() {
    let stand = Stand::start().await;
    let cell = stand.cell().await;
    let (status, message) = status(stand.attach(&cell.id).await);
    assert_eq!(status, 403, "{message}");
}

/// Whatever is wrong with a launch, the cell gets nothing.
async fn refused(stand: &Stand, spoil: impl FnOnce(&mut Launch)) -> String {
    let mut cell = stand.cell().await;
    let mut launch = stand.launch(&cell, r#"{"command":"echo"}"#);
    spoil(&mut launch);
    let output = cell.run(&stand.envelope(&launch)).await;
    assert!(output.out.is_empty() && output.err.is_empty(), "{output:?}");
    let Some(Control::Refused(reason)) = output.control else {
        panic!("{output:?}")
    };
    assert_eq!(
        stand.recorded.last("launch.refused").unwrap()["reason"],
        reason
    );
    stand.remove(&cell.id).await.unwrap();
    reason
}

#[tokio::test]
async fn a_launch_with_anything_wrong_is_refused_and_audited() {
    let stand = Stand::start().await;
    let other_image = ImageId(Sha256([8; 32]));
    let reasons = [
        refused(&stand, |l| l.ticket.image = other_image).await,
        refused(&stand, |l| l.ticket.plugin = "other".parse().unwrap()).await,
        refused(&stand, |l| l.decision.plugin = "other".parse().unwrap()).await,
        refused(&stand, |l| l.decision.image = other_image).await,
        refused(&stand, |l| l.decision.job = JobId::new()).await,
        refused(&stand, |l| l.decision.lock_serial = Serial(9)).await,
        refused(&stand, |l| {
            l.ticket.decision = bailey_types::DecisionId::new();
        })
        .await,
        refused(&stand, |l| l.sealed_bytes.extend(b" ")).await,
        refused(&stand, |l| l.broker = Service::Policy).await,
        refused(&stand, |l| l.policy = Service::Broker).await,
        refused(&stand, |l| l.ticket.issued_at = later(l)).await,
        refused(&stand, |l| l.decision.issued_at = later(l)).await,
        refused(&stand, |l| l.ticket.expires_at = Timestamp(1 << 52)).await,
    ];
    for (reason, word) in reasons.iter().zip([
        "another image",
        "another plugin",
        "another plugin",
        "another image",
        "another job",
        "another lock",
        "another decision",
        "not those of the ticket",
        "signature of the ticket",
        "signature of the decision",
        "valid from",
        "valid from",
        "valid from",
    ]) {
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
}

/// Before the end, and more than a slewed clock away.
fn later(launch: &Launch) -> Timestamp {
    let end = launch.ticket.expires_at.min(launch.decision.expires_at);
    end.minus(Duration::from_secs(1))
}

#[tokio::test]
async fn what_comes_too_late_is_no_offence() {
    type Spoil = fn(&mut Launch, Timestamp);
    let stand = Stand::start().await;
    let ago = |launch: &Launch| launch.ticket.issued_at.minus(Duration::from_millis(1));
    let spoils: [(&str, Spoil); 2] = [
        ("the ticket was", |l, end| l.ticket.expires_at = end),
        ("the decision was", |l, end| l.decision.expires_at = end),
    ];
    for (words, spoil) in spoils {
        let mut cell = stand.cell().await;
        let mut launch = stand.launch(&cell, r#"{"command":"echo"}"#);
        let end = ago(&launch);
        spoil(&mut launch, end);
        let why = cell.put_off(&stand.envelope(&launch)).await;
        assert!(why.starts_with(words), "{why}");
        stand.remove(&cell.id).await.unwrap();
    }
    assert_eq!(stand.recorded.last("launch.refused"), None);
}

#[tokio::test]
async fn an_envelope_works_for_its_own_cell_only_and_rubbish_for_none() {
    let stand = Stand::start().await;
    let (mut first, mut second) = (stand.cell().await, stand.cell().await);
    let envelope = stand.envelope(&stand.launch(&first, r#"{"command":"echo"}"#));
    assert_eq!(
        first.run(&envelope).await.control,
        Some(Control::Launched(true))
    );
    assert!(matches!(
        second.run(&envelope).await.control,
        Some(Control::Refused(_))
    ));

    let mut third = stand.cell().await;
    let output = third.run(&[0xff, 0xff, 0xff, 0xff]).await;
    assert!(
        matches!(output.control, Some(Control::Refused(reason)) if reason.contains("too large"))
    );
    let mut fourth = stand.cell().await;
    let output = fourth.run(b"\0\0\0\x02{}").await;
    assert!(
        matches!(output.control, Some(Control::Refused(reason)) if reason.contains("malformed"))
    );
}

#[tokio::test]
async fn another_uid_gets_no_word() {
    let uid = rustix::process::geteuid().as_raw();
    let strange = socket_proxy::Args {
        runner_uid: uid + 1,
        cli_uid: uid + 1,
        ..args()
    };
    let stand = Stand::bare(strange).await;
    assert!(stand.docker.ping().await.is_err());
    let refused = stand.recorded.last("peer.refused").unwrap();
    assert_eq!(
        (&refused["uid"], &refused["socket"]),
        (&uid.into(), &"docker.sock".into())
    );
    // The other socket closes too, at the latest when something is asked.
    let asked = match stand.seals_or_error().await {
        Ok(mut seals) => seals
            .inspect_image(InspectImageRequest::default())
            .await
            .is_ok(),
        Err(_) => false,
    };
    assert!(!asked);
    assert_eq!(
        stand.recorded.last("peer.refused").unwrap()["socket"],
        "manage.sock"
    );
}
