//! Enrolment, renewal, presence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bailey_mesh::Mesh;
use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::{EpochRequest, Readiness, RenewRequest};
use bailey_service::{Misconfigured, Stopped};
use bailey_test::TestStack;
use bailey_types::Service;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{MiniBroker, adversary, knock};

const DAY: Duration = Duration::from_hours(24);

#[tokio::test]
async fn a_service_enrols_and_calls_and_says_how_it_is() {
    let stack = TestStack::new();
    let broker = MiniBroker::start(&stack, DAY);
    let mut beats = broker.beats();
    let ctx = stack.context(Service::Policy);
    let mesh = Mesh::join(&ctx).await.unwrap();
    ctx.ready();

    let mut client = EpochServiceClient::new(mesh.channel(Service::Broker));
    assert_eq!(
        client
            .epoch(EpochRequest {})
            .await
            .unwrap()
            .into_inner()
            .epoch,
        "e"
    );
    loop {
        let (service, beat) = beats.recv().await.unwrap();
        assert_eq!(service, Service::Policy);
        if beat.readiness() == Readiness::Ready {
            assert!(beat.rss_bytes > 1 << 20, "{beat:?}");
            break;
        }
    }
    ctx.degraded("docker: away");
    loop {
        let (_, beat) = beats.recv().await.unwrap();
        if beat.readiness() == Readiness::Degraded {
            assert_eq!(beat.detail, "docker: away");
            break;
        }
    }
    ctx.shutdown.cancel();
    ctx.stopped().await.unwrap();
}

#[tokio::test]
async fn a_service_that_starts_before_the_broker_waits_for_it() {
    let stack = TestStack::new();
    let ctx = stack.context(Service::Policy);
    let mut presence = ctx.presence();
    let mut joining = tokio::task::JoinSet::new();
    let joins = ctx.clone();
    joining.spawn(async move { Mesh::join(&joins).await });
    presence
        .wait_for(|presence| presence.detail.contains("no certificate yet"))
        .await
        .unwrap();
    let _broker = MiniBroker::start(&stack, DAY);
    joining.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(presence.borrow().detail, "");
}

#[tokio::test]
async fn a_service_that_is_stopped_while_it_waits_says_so() {
    let stack = TestStack::new();
    let ctx = stack.context(Service::Policy);
    ctx.shutdown.cancel();
    let error = Mesh::join(&ctx).await.err().unwrap();
    assert!(error.is::<Stopped>(), "{error}");
}

#[tokio::test]
async fn a_wrong_enrolment_secret_is_a_wrong_configuration() {
    let stack = TestStack::new();
    let path = stack.secrets_dir().join("enroll-policy");
    std::fs::remove_file(&path).unwrap();
    for text in [
        None,
        Some("short"),
        Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = Mesh::join(&stack.context(Service::Policy))
            .await
            .err()
            .unwrap();
        assert!(error.is::<Misconfigured>(), "{error}");
        assert!(error.to_string().contains("enroll-policy"), "{error}");
    }
}

#[tokio::test]
async fn enrolment_answers_that_one_method_only() {
    let stack = TestStack::new();
    let broker = MiniBroker::start(&stack, DAY);
    // A stranger reaches the listener...
    let strangers = Arc::new(adversary(None));
    knock(stack.enrolment_address(), &strangers).await.unwrap();
    // ...but a peer that goes there with another method is nobody too.
    let ctx = stack.context(Service::Policy);
    let mut settings = (*ctx.settings).clone();
    settings
        .peers
        .insert(Service::Broker, stack.enrolment_address().to_string());
    let ctx = bailey_service::Context {
        settings: Arc::new(settings),
        ..ctx
    };
    let mesh = stack.join(&ctx);
    let mut client = EpochServiceClient::new(mesh.channel(Service::Broker));
    assert_eq!(
        client.epoch(EpochRequest {}).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    drop(broker);
}

#[tokio::test]
async fn a_bad_request_for_renewal_is_the_callers_fault() {
    let stack = TestStack::new();
    let _broker = MiniBroker::start(&stack, DAY);
    let mesh = stack.mesh(Service::Policy);
    let channel = mesh.channel(Service::Broker);
    let mut client =
        bailey_proto::broker::v1::certificate_service_client::CertificateServiceClient::new(
            channel,
        );
    let status = client
        .renew(RenewRequest {
            csr: b"nonsense".to_vec().into(),
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// Two renewals at each end while four callers never pause: not one call may fail.
#[tokio::test]
async fn renewals_under_load_lose_no_call() {
    let stack = TestStack::new();
    let _broker = MiniBroker::start(&stack, Duration::from_secs(6));
    let ctx = stack.context(Service::Policy);
    let mesh = Mesh::join(&ctx).await.unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let first = mesh.identity().not_after();
    let until = Instant::now() + Duration::from_secs(8);

    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (calls, channel) = (Arc::clone(&calls), mesh.channel(Service::Broker));
        callers.spawn(async move {
            let mut client = EpochServiceClient::new(channel);
            while Instant::now() < until {
                client.epoch(EpochRequest {}).await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    // Eight seconds are longer than the first certificate lived.
    assert!(mesh.identity().not_after() >= first.plus(Duration::from_secs(4)));
    assert!(calls.load(Ordering::Relaxed) > 100);
}

/// Three rotations while four callers never pause. Each beat is prompted, so that nobody has to wait for the next.
#[tokio::test]
async fn rotations_of_the_intermediate_under_load_lose_no_call() {
    let stack = TestStack::new();
    let broker = MiniBroker::start(&stack, DAY);
    let mut beats = broker.beats();
    let ctx = stack.context(Service::Policy);
    let mesh = Mesh::join(&ctx).await.unwrap();
    ctx.ready();
    let (calls, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (calls, stop) = (Arc::clone(&calls), stop.clone());
        let mut client = EpochServiceClient::new(mesh.channel(Service::Broker));
        callers.spawn(async move {
            while !stop.is_cancelled() {
                client.epoch(EpochRequest {}).await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let authority = stack.authority();
    for round in 0..3 {
        let made = stack.another_intermediate(DAY * 365);
        let successor = authority
            .successor(&made.certificate, &made.key, ctx.clock.now())
            .unwrap();
        let wanted = successor.certificate().key;
        authority.replace(successor);
        ctx.trouble("round", Some(format!("{round}")));
        while mesh.identity().peer().issuer != Some(wanted) {
            let at_least = calls.load(Ordering::Relaxed) + 50;
            while calls.load(Ordering::Relaxed) < at_least {
                tokio::task::yield_now().await;
            }
        }
        // The broker's own certificate is of the new intermediate too.
        while broker.mesh.identity().peer().issuer != Some(wanted) {
            tokio::task::yield_now().await;
        }
        while beats.try_recv().is_ok() {}
        let at_least = calls.load(Ordering::Relaxed) + 1000;
        while calls.load(Ordering::Relaxed) < at_least {
            tokio::task::yield_now().await;
        }
    }
    stop.cancel();
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 3000);
}

/// The broker was away until the certificate had expired: the service enrols again.
#[tokio::test]
async fn an_expired_service_enrols_again() {
    let stack = TestStack::new();
    let broker = MiniBroker::start(&stack, Duration::from_secs(3));
    let ctx = stack.context(Service::Policy);
    let mesh = Mesh::join(&ctx).await.unwrap();
    let first = mesh.identity().not_after();
    broker.ctx.shutdown.cancel();
    broker.ctx.stopped().await.unwrap();
    drop(broker);

    let mut presence = ctx.presence();
    presence
        .wait_for(|presence| presence.detail.contains("not renewed"))
        .await
        .unwrap();
    tokio::time::sleep(first.since(ctx.clock.now()) + Duration::from_millis(100)).await;
    let _broker = MiniBroker::start(&stack, Duration::from_mins(1));
    presence
        .wait_for(|presence| presence.detail.is_empty())
        .await
        .unwrap();
    assert!(mesh.identity().not_after() > first);
}
