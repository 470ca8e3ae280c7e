//! Operations with secrets over the mesh.

use bailey_proto::broker::v1::operation_service_client::OperationServiceClient;
use bailey_proto::broker::v1::{SignHmacRequest, VerifyHmacRequest};
use bailey_proto::management::v1::{RegisterPrincipalRequest, SetSecretRequest};
use bailey_types::Service;
use tonic::Code;

use crate::harness::{Broker, logged};

#[tokio::test]
async fn what_is_signed_for_a_consumer_is_verified_and_neither_caller_sees_the_secret() {
    // Given a secret of a consumer's
    const VALUE: &str = "canary-7b1e55-never-to-leave";
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let mut vault = broker.vault(&admin).await;
    let (name, kind) = ("shop".into(), "consumer".into());
    let registered = RegisterPrincipalRequest { name, kind };
    vault.register_principal(registered).await.unwrap();
    let set = SetSecretRequest {
        name: "shop_key".into(),
        value: VALUE.as_bytes().to_vec().into(),
        grant_to: vec!["shop".into()],
        ..SetSecretRequest::default()
    };
    vault.set_secret(set).await.unwrap();
    let client =
        |service| OperationServiceClient::new(broker.mesh(service).channel(Service::Broker));
    let sign = |principal: &str| SignHmacRequest {
        secret: "shop_key".into(),
        principal: principal.into(),
        message: "a delivery".into(),
    };

    // When the worker has something signed
    let signed = client(Service::Worker).sign_hmac(sign("shop")).await;
    let code = signed.unwrap().into_inner().code;

    // Then the gateway can have it verified, and nothing else
    let mut gateway = client(Service::Gateway);
    for (message, valid) in [("a delivery", true), ("another", false)] {
        let verify = VerifyHmacRequest {
            secret: "shop_key".into(),
            principal: "shop".into(),
            message: message.into(),
            code: code.clone(),
        };
        let verified = gateway.verify_hmac(verify).await.unwrap().into_inner();
        assert_eq!(verified.valid, valid, "{message}");
    }
    let short = VerifyHmacRequest::default();
    let short = gateway.verify_hmac(short).await.unwrap_err();
    assert_eq!(short.code(), Code::InvalidArgument);
    let signed = broker.audit.entry("hmac.signed").await;
    assert_eq!(
        (&signed["caller"], &signed["secret"], &signed["principal"]),
        (&"worker".into(), &"shop_key".into(), &"shop".into())
    );

    // And who may only verify does not sign, nor anybody for whom it was not granted: why is only in the audit log
    for service in Service::ALL
        .iter()
        .filter(|service| !matches!(service, Service::Worker | Service::Broker))
    {
        let signed = client(*service).sign_hmac(sign("shop")).await;
        let code = signed.unwrap_err().code();
        assert_eq!(code, Code::PermissionDenied, "{service}");
    }
    let other = client(Service::Worker).sign_hmac(sign("core")).await;
    let other = other.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    assert!(!other.message().contains("principal"), "{other}");
    let refused = broker.audit.entry("hmac.refused").await;
    assert!(
        ["wrong_code", "wrong_principal"].contains(&refused["reason"].as_str().unwrap()),
        "{refused}"
    );
    assert!(!logged().contains(VALUE));
}
