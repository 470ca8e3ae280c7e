//! The caller table against the protocol itself, over the wire.

use std::collections::BTreeSet;

use bailey_mesh::MeshChannel;
use bailey_mesh::callers::{self, Callers};
use bailey_test::TestStack;
use bailey_types::Service;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic::{Code, Request};

/// `/package.Service/Method` of every method that is served on the mesh or on the enrolment listener.
fn methods() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(bailey_proto::DESCRIPTORS).unwrap();
    let mut methods = BTreeSet::new();
    for file in &set.file {
        // Management is served on Unix sockets that only the `cli` container has.
        for service in file
            .service
            .iter()
            .filter(|_| file.package() != "bailey.management.v1")
        {
            let name = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| name(method.name())));
        }
    }
    methods
}

/// What `channel` answers to an empty request for `path`: the gate decides before anything is decoded.
async fn asked(channel: MeshChannel, path: &str) -> Code {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client
        .unary(Request::new(()), path.parse().unwrap(), codec)
        .await
        .unwrap_err()
        .code()
}

#[test]
fn every_method_has_an_entry_and_every_entry_a_method() {
    let table: BTreeSet<String> = callers::TABLE
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    assert_eq!(table, methods());
    assert_eq!(table.len(), callers::TABLE.len(), "an entry stands twice");
}

#[test]
fn enrolment_is_the_only_method_without_a_certificate() {
    let open: Vec<_> = callers::TABLE
        .iter()
        .filter(|(_, callers)| callers.admit(None))
        .map(|(path, _)| *path)
        .collect();
    assert_eq!(open, ["/bailey.broker.v1.EnrolmentService/Enrol"]);
}

#[tokio::test]
async fn every_identity_that_a_method_does_not_name_is_denied() {
    let stack = TestStack::new();
    // Nothing stands behind the gate, so that who passes it gets UNIMPLEMENTED.
    let server = stack.serve(Service::Engine, Routes::default());
    for service in Service::ALL {
        let mesh = stack.mesh(*service);
        for path in methods() {
            let expected = match callers::of(&path) {
                Callers::Only(services) if services.contains(service) => Code::Unimplemented,
                Callers::Only(_) | Callers::Enrolling => Code::PermissionDenied,
            };
            assert_eq!(
                asked(mesh.channel(Service::Engine), &path).await,
                expected,
                "{service} {path}"
            );
        }
    }
    drop(server);
}

#[tokio::test]
async fn a_method_that_nobody_listed_is_denied_to_everybody() {
    let stack = TestStack::new();
    let server = stack.serve(Service::Engine, Routes::default());
    let gateway = stack.mesh(Service::Gateway);
    for path in [
        "/",
        "/bailey.engine.v1.IntakeService/DropAll",
        "/bailey.management.v1.VaultService/Init",
        "/grpc.health.v1.Health/Check",
    ] {
        assert_eq!(
            asked(gateway.channel(Service::Engine), path).await,
            Code::PermissionDenied,
            "{path}"
        );
    }
    drop(server);
}
