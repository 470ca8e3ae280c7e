//! The intermediate: replaced on demand and in time, kept, and a new root under it all.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bailey_mesh::Mesh;
use bailey_proto::broker::v1::certificate_service_client::CertificateServiceClient;
use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::{BeatRequest, EpochRequest, Readiness, RenewRequest, RollRequest};
use bailey_proto::management::v1::{
    ListRequest, PkiStatusRequest, PkiStatusResponse, RotateIntermediateRequest,
    RotateIntermediateResponse,
};
use bailey_service::Context;
use bailey_test::TestStack;
use bailey_types::Service;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::harness::Broker;

const DAY: Duration = Duration::from_hours(24);

async fn status(broker: &Broker) -> PkiStatusResponse {
    let mut pki = broker.pki("").await;
    pki.pki_status(PkiStatusRequest {})
        .await
        .unwrap()
        .into_inner()
}

async fn rotate(broker: &Broker, admin: &str) -> Result<RotateIntermediateResponse, Status> {
    let mut pki = broker.pki(admin).await;
    let rotated = pki.rotate_intermediate(RotateIntermediateRequest {}).await;
    rotated.map(tonic::Response::into_inner)
}

/// Makes the vault and an API token, without which the broker does nothing but what management needs.
async fn ready(broker: &Broker) -> String {
    let admin = broker.init().await;
    broker.create_token(&admin, "ops", &["*"]).await;
    admin
}

fn serial(status: &PkiStatusResponse) -> String {
    status.intermediates.first().unwrap().serial.clone()
}

/// Three services as they are: they enrol, beat, renew, and call without a pause.
struct Load {
    services: BTreeMap<Service, (Context, Mesh)>,
    calls: watch::Sender<u64>,
    stop: CancellationToken,
    callers: JoinSet<()>,
}

impl Load {
    async fn start(broker: &Broker) -> Self {
        let mut load = Self {
            services: BTreeMap::new(),
            calls: watch::Sender::new(0),
            stop: CancellationToken::new(),
            callers: JoinSet::new(),
        };
        for service in [Service::Policy, Service::Gateway, Service::Runner] {
            let ctx = broker.stack.context(service);
            let mesh = Mesh::join(&ctx).await.unwrap();
            ctx.ready();
            for _ in 0..2 {
                load.call(service, &mesh);
            }
            load.services.insert(service, (ctx, mesh));
        }
        load
    }

    fn call(&mut self, service: Service, mesh: &Mesh) {
        let (calls, stop) = (self.calls.clone(), self.stop.clone());
        let channel = mesh.channel(Service::Broker);
        self.callers.spawn(async move {
            let mut epochs = EpochServiceClient::new(channel.clone());
            let mut presence = PresenceServiceClient::new(channel);
            while !stop.is_cancelled() {
                if service == Service::Policy {
                    epochs.epoch(EpochRequest {}).await.unwrap();
                } else if service == Service::Gateway {
                    presence.roll(RollRequest {}).await.unwrap();
                } else {
                    let beat = BeatRequest {
                        readiness: Readiness::Ready.into(),
                        ..BeatRequest::default()
                    };
                    presence.beat(beat).await.unwrap();
                }
                calls.send_modify(|calls| *calls += 1);
            }
        });
    }

    async fn calls(&self, more: u64) {
        let wanted = *self.calls.borrow() + more;
        let mut calls = self.calls.subscribe();
        calls.wait_for(|calls| *calls >= wanted).await.unwrap();
    }

    /// A change of presence is told at once: nobody has to wait for the next beat.
    fn prompt(&self, what: &str) {
        for (ctx, _) in self.services.values() {
            ctx.trouble("prompted", Some(what.to_owned()));
        }
    }

    async fn end(mut self) -> u64 {
        self.stop.cancel();
        while let Some(done) = self.callers.join_next().await {
            done.unwrap();
        }
        *self.calls.borrow()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_fail_no_call() {
    let broker = Broker::start().await;
    let admin = ready(&broker).await;
    let load = Load::start(&broker).await;
    for round in 0..3 {
        let before = serial(&status(&broker).await);
        load.calls(500).await;
        let rotated = rotate(&broker, &admin).await.unwrap();
        assert_eq!(rotated.replaced, before);
        load.prompt(&rotated.serial);
        // Within a few beats everybody shows a certificate of the new intermediate, the broker too.
        let wanted: Vec<_> = load.services.keys().map(|service| service.name()).collect();
        loop {
            let told = status(&broker).await;
            assert_eq!(serial(&told), rotated.serial);
            assert_eq!(told.intermediates.len(), round + 2);
            let all = told.services.iter().filter(|service| {
                wanted.contains(&service.service.as_str()) || service.service == "broker"
            });
            if all.clone().count() == 4
                && all
                    .clone()
                    .all(|of| of.current && of.intermediate == rotated.serial)
            {
                break;
            }
            load.calls(10).await;
        }
        load.calls(500).await;
    }
    let calls = load.end().await;
    assert!(calls > 3000, "{calls} calls");
    let recorded = broker.audit.entry("pki.rotated").await;
    assert_eq!(recorded["reason"], "asked");
}

#[tokio::test]
async fn certificates_of_the_old_intermediate_are_good_until_they_end() {
    let broker = Broker::start().await;
    let admin = ready(&broker).await;
    // Connected before the rotation, and of the old intermediate.
    let old = broker.mesh(Service::Policy);
    let mut epochs = EpochServiceClient::new(old.channel(Service::Broker));
    epochs.epoch(EpochRequest {}).await.unwrap();
    rotate(&broker, &admin).await.unwrap();
    epochs.epoch(EpochRequest {}).await.unwrap();
    // A connection of its own, made after it.
    let later = broker.mesh(Service::Policy);
    let mut epochs = EpochServiceClient::new(later.channel(Service::Broker));
    epochs.epoch(EpochRequest {}).await.unwrap();
    // What is issued now is of the new one.
    let key = bailey_mesh::KeyRequest::new().unwrap();
    let csr = key.csr().to_vec().into();
    let mut renewal = CertificateServiceClient::new(later.channel(Service::Broker));
    let chain = renewal.renew(RenewRequest { csr }).await.unwrap();
    let chain = chain
        .into_inner()
        .chain
        .into_iter()
        .map(Into::into)
        .collect();
    let root = bailey_mesh::Root::from_pem(&broker.stack.trust().root_ca_pem).unwrap();
    let now = bailey_types::Clock::system().now();
    let identity = key.certified(chain, Service::Policy, &root, now).unwrap();
    assert_ne!(identity.peer().issuer, later.identity().peer().issuer);
}

#[tokio::test]
async fn a_service_of_a_retired_intermediate_is_told_to_renew_and_no_other() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let mesh = broker.mesh(Service::Runner);
    let mut presence = PresenceServiceClient::new(mesh.channel(Service::Broker));
    let beat = BeatRequest {
        readiness: Readiness::Ready.into(),
        ..BeatRequest::default()
    };
    let answer = presence.beat(beat.clone()).await.unwrap().into_inner();
    assert!(!answer.renew);
    rotate(&broker, &admin).await.unwrap();
    let answer = presence.beat(beat).await.unwrap().into_inner();
    assert!(answer.renew);
}

#[tokio::test]
async fn a_restart_keeps_the_intermediate_and_what_is_on_disk_is_sealed() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    let first = serial(&status(&broker).await);
    let rotated = rotate(&broker, &admin).await.unwrap();
    broker.restart().await;
    let told = status(&broker).await;
    assert_eq!(serial(&told), rotated.serial);
    assert_eq!(told.intermediates[1].serial, first);
    assert_eq!(
        told.intermediates[1].last_certificate_ms,
        rotated.last_certificate_ms
    );
    let path = broker.stack.dir().join("data/broker/intermediate.age");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let sealed = std::fs::read(path).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1"));
    let plain = broker.stack.vault_key().open(&sealed, 1 << 20).unwrap();
    assert!(String::from_utf8_lossy(&plain).contains("PRIVATE KEY"));
}

#[tokio::test]
async fn only_the_admin_rotates_and_everybody_at_the_socket_may_look() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let before = status(&broker).await;
    assert_eq!(before.root.as_ref().unwrap().sha256.len(), 64);
    assert!(before.warnings.is_empty(), "{:?}", before.warnings);
    for token in ["", "bly_wrong"] {
        let refused = rotate(&broker, token).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    assert_eq!(status(&broker).await.intermediates, before.intermediates);
    rotate(&broker, &admin).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_recorded_or_opened_changes_nothing() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    let before = status(&broker).await;
    let key = broker.stack.secrets_dir().join("root-ca.key.age");
    let aside = key.with_extension("aside");
    std::fs::rename(&key, &aside).unwrap();
    let refused = rotate(&broker, &admin).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("root-ca.key.age"), "{refused}");
    std::fs::rename(&aside, &key).unwrap();

    broker.served.take().unwrap().stop().await;
    let refused = rotate(&broker, &admin).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert_eq!(status(&broker).await.intermediates, before.intermediates);
    assert!(
        !broker
            .stack
            .dir()
            .join("data/broker/intermediate.age")
            .exists()
    );

    broker.served = Some(broker.audit.serve(&broker.stack));
    rotate(&broker, &admin).await.unwrap();
}

#[tokio::test]
async fn an_intermediate_that_ends_soon_is_replaced_without_being_asked() {
    let broker = Broker::start_with(|broker| {
        let stack = &broker.stack;
        let made = stack.another_intermediate(DAY * 80);
        let secrets = stack.secrets_dir();
        let sealed = stack
            .vault_key()
            .recipient()
            .seal(made.key.as_bytes())
            .unwrap();
        for (name, bytes) in [
            ("intermediate.pem", made.certificate.as_bytes()),
            ("intermediate.key.age", sealed.as_slice()),
        ] {
            std::fs::remove_file(secrets.join(name)).unwrap();
            std::fs::write(secrets.join(name), bytes).unwrap();
        }
    })
    .await;
    let recorded = broker.audit.entry("pki.rotated").await;
    assert_eq!(recorded["reason"], "ends_soon");
    loop {
        let told = status(&broker).await;
        if told.intermediates.len() == 2 {
            assert_eq!(recorded["serial"], serial(&told));
            let (new, old) = (&told.intermediates[0], &told.intermediates[1]);
            assert!(new.not_after_ms > old.not_after_ms);
            assert!(told.warnings.is_empty(), "{:?}", told.warnings);
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_new_root_keeps_vault_and_tokens_and_shuts_out_the_old_one() {
    let mut broker = Broker::start().await;
    let admin = ready(&broker).await;
    rotate(&broker, &admin).await.unwrap();
    let before = status(&broker).await.root.unwrap();
    let old = broker.mesh(Service::Policy).identity();
    broker.stop().await;
    broker.served.take().unwrap().stop().await;

    broker.stack.new_root();
    broker.served = Some(broker.audit.serve(&broker.stack));
    broker.start_again().await;

    let told = status(&broker).await;
    assert_ne!(told.root.unwrap().sha256, before.sha256);
    assert_eq!(told.intermediates.len(), 1, "the old root's are gone");
    let listed = broker
        .vault(&admin)
        .await
        .list(ListRequest {})
        .await
        .unwrap();
    assert_eq!(listed.into_inner().tokens[0].name, "ops");
    let mesh = Mesh::join(&broker.stack.context(Service::Policy))
        .await
        .unwrap();
    let mut epochs = EpochServiceClient::new(mesh.channel(Service::Broker));
    epochs.epoch(EpochRequest {}).await.unwrap();
    // Whoever shows a certificate of the old root is nobody, and takes the broker for nobody.
    let ctx = broker.stack.context(Service::Policy);
    let stale = Mesh::with_identity(&ctx, (*old).clone());
    let mut epochs = EpochServiceClient::new(stale.channel(Service::Broker));
    let refused = epochs.epoch(EpochRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    rotate(&broker, &admin).await.unwrap();
}

/// Whoever can write the volume can seal something to the broker, whose public key is no secret.
#[tokio::test]
async fn an_intermediate_that_somebody_put_in_place_is_not_issued_from() {
    let mut broker = Broker::start().await;
    let told = broker.pki("").await.pki_status(PkiStatusRequest {}).await;
    let root = told.unwrap().into_inner().root.unwrap().sha256;
    broker.stop().await;
    let other = TestStack::new();
    let read = |name: &str| std::fs::read(other.secrets_dir().join(name)).unwrap();
    let sealed_key = read("intermediate.key.age");
    let key = other.vault_key().open(&sealed_key, 64 << 10).unwrap();
    let forged = json!({
        "version": 1, "root": root, "retired": [],
        "certificate": String::from_utf8(read("intermediate.pem")).unwrap(),
        "key": String::from_utf8(key.to_vec()).unwrap(),
    });
    let sealed = broker
        .stack
        .trust()
        .vault
        .seal(forged.to_string().as_bytes());
    let ctx = broker.stack.context(Service::Broker);
    let path = ctx.settings.data_dir.join("intermediate.age");
    std::fs::write(&path, sealed.unwrap()).unwrap();
    broker.start_again().await;
    broker.says("sealed, no certificates are issued").await;
    // The neighbour: without it the stack's own is issued from again.
    std::fs::remove_file(&path).unwrap();
    broker.no_longer_says("no certificates are issued").await;
}

#[tokio::test]
async fn a_rotation_that_fails_after_its_record_is_told_to_have_failed() {
    let broker = Broker::start().await;
    let admin = ready(&broker).await;
    let before = serial(&status(&broker).await);
    // Given a folder where the new file would be written,
    let ctx = broker.stack.context(Service::Broker);
    let in_the_way = ctx.settings.data_dir.join(".intermediate.age.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = rotate(&broker, &admin).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    // then the log has both, and the old intermediate is in use.
    let recorded = broker.audit.entry("pki.rotated").await;
    let failed = broker.audit.entry("pki.not_rotated").await;
    assert_eq!(
        failed,
        json!({ "not_done": ["pki.rotated"], "serial": recorded["serial"] })
    );
    assert_eq!(serial(&status(&broker).await), before);
    // The permitted neighbour.
    std::fs::remove_dir(&in_the_way).unwrap();
    let rotated = rotate(&broker, &admin).await.unwrap();
    let is_it = |fields: &serde_json::Value| fields["serial"] == rotated.serial.as_str();
    broker.audit.entry_that("pki.rotated", is_it).await;
    assert_eq!(broker.audit.count("pki.not_rotated"), 1);
}
