//! What the intermediate issues, and what it does not.

use std::time::Duration;

use bailey_error::{Classify as _, Kind};
use bailey_mesh::KeyRequest;
use bailey_test::TestStack;
use bailey_types::Service;
use rcgen::{CertificateParams, KeyPair};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::now;

const DAY: Duration = Duration::from_hours(24);

#[test]
fn names_in_a_request_are_ignored() {
    let stack = runtime().block_on(async { TestStack::new() });
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap();
    let chain = stack
        .authority()
        .issue(Service::Worker, csr.der(), DAY, now())
        .unwrap();

    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = &leaf
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    assert_eq!(names.len(), 1);
    assert!(
        format!("{names:?}").contains("spiffe://bailey/worker"),
        "{names:?}"
    );
    assert!(!leaf.is_ca());
}

#[test]
fn only_the_gateway_has_names_that_browsers_know() {
    let stack = runtime().block_on(async { TestStack::new() });
    for service in Service::ALL {
        let request = KeyRequest::new().unwrap();
        let chain = stack
            .authority()
            .issue(*service, request.csr(), DAY, now())
            .unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let names = &leaf
            .subject_alternative_name()
            .unwrap()
            .unwrap()
            .value
            .general_names;
        assert_eq!(
            names.len(),
            if *service == Service::Gateway { 4 } else { 1 },
            "{service}"
        );
    }
}

#[test]
fn a_request_that_proves_nothing_is_refused() {
    let stack = runtime().block_on(async { TestStack::new() });
    let good = KeyRequest::new().unwrap().csr().to_vec();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed25519 = CertificateParams::default()
        .serialize_request(&ed25519)
        .unwrap()
        .der()
        .to_vec();
    for csr in [
        Vec::new(),
        b"nonsense".to_vec(),
        forged,
        ed25519,
        vec![0x30; 5000],
    ] {
        let error = stack
            .authority()
            .issue(Service::Worker, &csr, DAY, now())
            .unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
}

#[test]
fn an_identity_is_only_taken_from_a_chain_that_peers_accept() {
    let (stack, other) = runtime().block_on(async { (TestStack::new(), TestStack::new()) });
    let root = bailey_mesh::Root::from_pem(&stack.trust().root_ca_pem).unwrap();
    let certified = |authority: &TestStack, service| {
        let request = KeyRequest::new().unwrap();
        let chain = authority
            .authority()
            .issue(service, request.csr(), DAY, now())
            .unwrap();
        request.certified(chain, Service::Worker, &root, now())
    };
    assert!(certified(&stack, Service::Worker).is_ok());
    assert!(
        certified(&stack, Service::Broker)
            .unwrap_err()
            .to_string()
            .contains("it is for broker")
    );
    assert!(certified(&other, Service::Worker).is_err());
    // Somebody else's key under the right name.
    let chain = stack
        .authority()
        .issue(
            Service::Worker,
            KeyRequest::new().unwrap().csr(),
            DAY,
            now(),
        )
        .unwrap();
    assert!(
        KeyRequest::new()
            .unwrap()
            .certified(chain, Service::Worker, &root, now())
            .is_err()
    );
}

#[test]
fn certificates_of_both_intermediates_are_accepted_after_a_rotation() {
    let stack = runtime().block_on(async { TestStack::new() });
    let (authority, root) = (
        stack.authority(),
        bailey_mesh::Root::from_pem(&stack.trust().root_ca_pem).unwrap(),
    );
    let issued = || {
        let request = KeyRequest::new().unwrap();
        let chain = authority
            .issue(Service::Worker, request.csr(), DAY, now())
            .unwrap();
        request.certified(chain, Service::Worker, &root, now())
    };
    let before = authority.intermediate();
    let first = issued().unwrap();
    let made = stack.another_intermediate(DAY * 365);
    let successor = authority
        .successor(&made.certificate, &made.key, now())
        .unwrap();
    let after = successor.certificate();
    authority.replace(successor);
    let second = issued().unwrap();
    assert_ne!(before.serial, after.serial);
    assert_eq!(authority.intermediate(), after);
    assert_eq!(first.peer().issuer, Some(before.key));
    assert_eq!(second.peer().issuer, Some(after.key));
    assert_ne!(first.peer().serial, second.peer().serial);
}

#[test]
fn an_intermediate_of_another_root_or_key_is_no_successor() {
    let (stack, other) = runtime().block_on(async { (TestStack::new(), TestStack::new()) });
    let (ours, theirs) = (
        stack.another_intermediate(DAY),
        other.another_intermediate(DAY),
    );
    let authority = stack.authority();
    let before = authority.intermediate();
    let refused = |certificate: &str, key: &str| {
        let successor = authority.successor(certificate, key, now());
        successor.err().unwrap().to_string()
    };
    refused(&theirs.certificate, &theirs.key);
    refused(&ours.certificate, &theirs.key);
    assert_eq!(authority.intermediate(), before);
    assert!(
        authority
            .successor(&ours.certificate, &ours.key, now())
            .is_ok()
    );
}

#[test]
fn no_certificate_outlives_its_intermediate() {
    let stack = runtime().block_on(async { TestStack::new() });
    let authority = stack.authority();
    let made = stack.another_intermediate(Duration::from_hours(3));
    let successor = authority
        .successor(&made.certificate, &made.key, now())
        .unwrap();
    authority.replace(successor);
    let until = authority.identity(Service::Worker, DAY, now()).unwrap();
    assert_eq!(until.not_after(), authority.intermediate().not_after);
    let hour = Duration::from_hours(1);
    let shorter = authority.identity(Service::Worker, hour, now()).unwrap();
    assert!(shorter.not_after() < authority.intermediate().not_after);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
