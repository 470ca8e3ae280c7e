//! Who gets a connection.

use std::sync::Arc;
use std::time::Duration;

use bailey_mesh::{Mesh, Refusal};
use bailey_proto::broker::v1::EpochRequest;
use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_test::TestStack;
use bailey_types::Service;
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::service::Routes;

use crate::support::{Shown, adversary, issued, knock, now};

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Serves as the engine; what is refused comes out of the channel.
fn listening(stack: &TestStack) -> mpsc::Receiver<Refusal> {
    let ctx = stack.context(Service::Engine);
    let mesh = stack.join(&ctx);
    let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
    let (refused, refusals) = mpsc::channel(100);
    let serving = ctx.clone();
    ctx.spawn("rpc", async move {
        let hook = move |refusal| refused.try_send(refusal).unwrap();
        mesh.serve_with_hook(&serving, listener, Routes::default(), hook)
            .await
    });
    refusals
}

async fn refused(stack: &TestStack, shown: Option<Shown>) -> String {
    let mut refusals = listening(stack);
    let config = Arc::new(adversary(shown));
    assert!(
        knock(stack.address(Service::Engine), &config)
            .await
            .is_err()
    );
    match refusals.recv().await.unwrap() {
        Refusal::Connection { reason } => reason,
        other @ Refusal::Method { .. } => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_certificate_of_ours_gets_in() {
    let stack = TestStack::new();
    let _refusals = listening(&stack);
    let shown = issued(&stack, Service::Gateway, now(), HOUR);
    knock(
        stack.address(Service::Engine),
        &Arc::new(adversary(Some(shown))),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused() {
    let stack = TestStack::new();
    let shown = issued(&stack, Service::Gateway, now().minus(10 * MINUTE), MINUTE);
    let reason = refused(&stack, Some(shown)).await;
    assert!(reason.contains("Expired"), "{reason}");
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let stack = TestStack::new();
    let shown = issued(&stack, Service::Gateway, now().plus(2 * HOUR), HOUR);
    let reason = refused(&stack, Some(shown)).await;
    assert!(reason.contains("NotValidYet"), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (stack, other) = (TestStack::new(), TestStack::new());
    let shown = issued(&other, Service::Gateway, now(), HOUR);
    let reason = refused(&stack, Some(shown)).await;
    assert!(reason.contains("BadSignature"), "{reason}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let stack = TestStack::new();
    let reason = refused(&stack, None).await;
    assert!(reason.contains("no certificates"), "{reason}");
}

#[tokio::test]
async fn a_peer_that_is_no_service_is_refused() {
    for uris in [
        &[][..],
        &["spiffe://bailey/intruder"],
        &["spiffe://bailey/gateway", "spiffe://bailey/engine"],
        &["spiffe://elsewhere/gateway"],
    ] {
        let stack = TestStack::new();
        let shown = with_uris(&stack, uris);
        let mut refusals = listening(&stack);
        assert!(
            knock(
                stack.address(Service::Engine),
                &Arc::new(adversary(Some(shown)))
            )
            .await
            .is_err()
        );
        let reason = format!("{:?}", refusals.recv().await.unwrap());
        assert!(
            reason.contains("NoService") || reason.contains("exactly one service"),
            "{reason}"
        );
    }
}

/// A leaf under the stack's real intermediate, with these URIs as its names.
fn with_uris(stack: &TestStack, uris: &[&str]) -> Shown {
    let pem = std::fs::read_to_string(stack.secrets_dir().join("intermediate.pem")).unwrap();
    let sealed = std::fs::read(stack.secrets_dir().join("intermediate.key.age")).unwrap();
    let ca_key = stack.vault_key().open(&sealed, 10_000).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(std::str::from_utf8(&ca_key).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, ca_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let intermediate = issued(stack, Service::Gateway, now(), HOUR).chain.remove(1);
    Shown {
        chain: vec![CertificateDer::from(leaf.der().to_vec()), intermediate],
        key,
    }
}

#[tokio::test]
async fn another_service_in_the_servers_place_is_refused() {
    let stack = TestStack::new();
    // Policy answers where the broker should be.
    let ctx = stack.context(Service::Policy);
    let mesh = stack.join(&ctx);
    let listener = bailey_mesh::bind(stack.address(Service::Broker)).unwrap();
    let serving = ctx.clone();
    ctx.spawn("rpc", async move {
        mesh.serve(&serving, listener, Routes::default()).await
    });

    let mut client = EpochServiceClient::new(stack.mesh(Service::Policy).channel(Service::Broker));
    let status = client.epoch(EpochRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let message = status.message();
    assert!(
        message.contains("policy's; broker's was expected") || message.contains("Another"),
        "{message}"
    );
}

#[tokio::test]
async fn an_expired_server_certificate_is_refused() {
    let stack = TestStack::new();
    let ctx = stack.context(Service::Broker);
    let expired = stack
        .authority()
        .identity(Service::Broker, MINUTE, now().minus(10 * MINUTE))
        .unwrap();
    let mesh = Mesh::with_identity(&ctx, expired);
    let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
    let serving = ctx.clone();
    ctx.spawn("rpc", async move {
        mesh.serve(&serving, listener, Routes::default()).await
    });

    let mut client = EpochServiceClient::new(stack.mesh(Service::Policy).channel(Service::Broker));
    let message = client
        .epoch(EpochRequest {})
        .await
        .unwrap_err()
        .message()
        .to_owned();
    assert!(
        message.contains("Expired") || message.contains("expired"),
        "{message}"
    );
}

#[tokio::test]
async fn no_session_is_resumed() {
    let stack = TestStack::new();
    let _refusals = listening(&stack);
    let shown = issued(&stack, Service::Gateway, now(), HOUR);
    // This client would resume: its session store is on, and both connections share it.
    let config = Arc::new(adversary(Some(shown)));
    for _ in 0..2 {
        let stream = knock(stack.address(Service::Engine), &config)
            .await
            .unwrap();
        let connection = stream.get_ref().1;
        assert_eq!(
            connection.handshake_kind(),
            Some(rustls::HandshakeKind::Full)
        );
        assert_eq!(connection.tls13_tickets_received(), 0);
        assert_eq!(
            connection.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
    }
}

#[tokio::test]
async fn no_connection_outlives_the_clients_certificate() {
    let stack = TestStack::new();
    let _refusals = listening(&stack);
    let shown = issued(&stack, Service::Gateway, now(), Duration::from_secs(3));
    let not_after = now().plus(Duration::from_secs(3));
    let mut stream = knock(
        stack.address(Service::Engine),
        &Arc::new(adversary(Some(shown))),
    )
    .await
    .unwrap();

    let ended = stream.read_to_end(&mut Vec::new()).await;
    assert!(now() <= not_after.plus(Duration::from_secs(2)), "{ended:?}");
    assert!(
        now() >= not_after.minus(Duration::from_secs(2)),
        "{ended:?}"
    );
}
