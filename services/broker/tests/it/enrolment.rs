//! Enrolment and renewal over real TLS.

use std::sync::Arc;
use std::time::Duration;

use bailey_mesh::{KeyRequest, Mesh, Root};
use bailey_proto::broker::v1::certificate_service_client::CertificateServiceClient;
use bailey_proto::broker::v1::enrolment_service_client::EnrolmentServiceClient;
use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::{EnrolRequest, EpochRequest, RenewRequest, RollRequest};
use bailey_types::{Clock, Service};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::harness::Broker;

/// A connection to the enrolment listener without a certificate.
async fn stranger(broker: &Broker) -> Channel {
    let (connector, address) = (
        TlsConnector::from(Arc::new(bailey_test::stranger::tls(None))),
        broker.stack.enrolment_address(),
    );
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from("broker").unwrap();
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://broker")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

fn secret(broker: &Broker, service: Service) -> Vec<u8> {
    let path = broker.stack.secrets_dir().join(format!("enroll-{service}"));
    STANDARD
        .decode(std::fs::read_to_string(path).unwrap().trim())
        .unwrap()
}

fn request(service: &str, secret: Vec<u8>, csr: &[u8]) -> EnrolRequest {
    EnrolRequest {
        service: service.into(),
        secret: secret.into(),
        csr: csr.to_vec().into(),
    }
}

#[tokio::test]
async fn a_service_joins_with_its_secret_and_is_who_it_is() {
    let broker = Broker::start().await;
    let mesh = Mesh::join(&broker.stack.context(Service::Policy))
        .await
        .unwrap();
    let mut epochs = EpochServiceClient::new(mesh.channel(Service::Broker));
    assert!(epochs.epoch(EpochRequest {}).await.is_ok());
    let mut roll = PresenceServiceClient::new(mesh.channel(Service::Broker));
    let refused = roll.roll(RollRequest {}).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::PermissionDenied,
        "the roll is for gateway"
    );
    assert_eq!(
        broker.audit.entry("enrol.granted").await["service"],
        "policy"
    );
}

#[tokio::test]
async fn a_wrong_secret_gets_nothing_and_is_recorded() {
    let broker = Broker::start().await;
    let mut client = EnrolmentServiceClient::new(stranger(&broker).await);
    let key = KeyRequest::new().unwrap();
    let right = secret(&broker, Service::Engine);
    let mut flipped = right.clone();
    flipped[0] ^= 1;
    for (service, secret) in [
        ("engine", flipped),
        ("engine", Vec::new()),
        ("engine", secret(&broker, Service::Gateway)),
        ("broker", right.clone()),
        ("intruder", right.clone()),
    ] {
        let refused = client
            .enrol(request(service, secret, key.csr()))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(
            refused.message(),
            "the service or its enrolment secret is wrong"
        );
    }
    assert_eq!(
        broker.audit.entry("enrol.refused").await["claimed"],
        "engine"
    );
    let bad = client
        .enrol(request("engine", right.clone(), b"no csr"))
        .await
        .unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    let chain = client
        .enrol(request("engine", right, key.csr()))
        .await
        .unwrap()
        .into_inner()
        .chain;
    let chain = chain.into_iter().map(Into::into).collect();
    let root = Root::from_pem(&broker.stack.trust().root_ca_pem).unwrap();
    let now = Clock::system().now();
    assert!(key.certified(chain, Service::Engine, &root, now).is_ok());
}

#[tokio::test]
async fn guessing_does_not_keep_a_service_out() {
    let broker = Broker::start().await;
    let mut client = EnrolmentServiceClient::new(stranger(&broker).await);
    let key = KeyRequest::new().unwrap();
    let mut codes = Vec::new();
    for _ in 0..25 {
        let guess = request("engine", vec![7; 32], key.csr());
        codes.push(client.enrol(guess).await.unwrap_err().code());
    }
    assert_eq!(codes[..20], [Code::PermissionDenied; 20]);
    assert_eq!(codes[24], Code::ResourceExhausted);
    let right = request("engine", secret(&broker, Service::Engine), key.csr());
    assert!(client.enrol(right).await.is_ok());
}

#[tokio::test]
async fn the_enrolment_listener_has_that_one_method() {
    let broker = Broker::start().await;
    let channel = stranger(&broker).await;
    let key = KeyRequest::new().unwrap();
    let csr = key.csr().to_vec().into();
    let mut renewal = CertificateServiceClient::new(channel.clone());
    let refused = renewal.renew(RenewRequest { csr }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let large = request("engine", vec![7; 32 << 10], key.csr());
    let refused = EnrolmentServiceClient::new(channel)
        .enrol(large)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

#[tokio::test]
async fn certificates_are_renewed_in_time_the_brokers_own_too() {
    let broker = Broker::start_with(|broker| broker.lifetime(Duration::from_secs(4))).await;
    let mesh = Mesh::join(&broker.stack.context(Service::Policy))
        .await
        .unwrap();
    let first = mesh.identity().not_after();
    assert_eq!(
        broker.audit.entry("certificate.renewed").await["service"],
        "policy"
    );
    // Only a renewed certificate is good after the end of the first, on either side.
    let mut epochs = EpochServiceClient::new(mesh.channel(Service::Broker));
    while Clock::system().now() <= first {
        epochs.epoch(EpochRequest {}).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(epochs.epoch(EpochRequest {}).await.is_ok());
    assert!(mesh.identity().not_after() > first);
}
