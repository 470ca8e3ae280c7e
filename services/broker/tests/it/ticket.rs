//! Launch tickets over the mesh: from a signed decision to what socket-proxy opens.

use std::time::Duration;

use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use bailey_proto::broker::v1::ticket_service_client::TicketServiceClient;
use bailey_proto::broker::v1::{EpochRequest, MakeTicketRequest, MakeTicketResponse};
use bailey_trust::{Decision, DecisionOrigin, SessionReader, Ticket, sign, verify};
use bailey_types::{
    AttemptNumber, Clock, DecisionId, ImageId, JobId, OriginId, Serial, Service, Sha256,
};
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use crate::harness::{Broker, logged};

const REQUEST: &[u8] = br#"{"protocol":2,"command":"handle","config":{},"payload":{}}"#;

async fn decision(broker: &Broker, request: &[u8]) -> Decision {
    let mesh = broker.mesh(Service::Policy);
    let mut epochs = EpochServiceClient::new(mesh.channel(Service::Broker));
    let epoch = epochs
        .epoch(EpochRequest {})
        .await
        .unwrap()
        .into_inner()
        .epoch;
    let now = Clock::system().now();
    Decision {
        id: DecisionId::new(),
        nonce: "00".repeat(16),
        job: JobId::new(),
        attempt: AttemptNumber(1),
        principal: "token:ops".into(),
        origin: DecisionOrigin::Root {
            origin: OriginId::new(),
            step: None,
        },
        plugin: "greet".parse().unwrap(),
        command: "handle".parse().unwrap(),
        request_sha256: Sha256::of(request),
        lock_serial: Serial(1),
        image: image("a"),
        account: "default".parse().unwrap(),
        egress: Vec::new(),
        contract: "token:ops".into(),
        broker_epoch: epoch,
        audit_index: 1,
        issued_at: now,
        expires_at: now.plus(Duration::from_mins(1)),
    }
}

fn image(digit: &str) -> ImageId {
    format!("sha256:{}", digit.repeat(64)).parse().unwrap()
}

async fn ticket(
    broker: &Broker,
    decision: &Decision,
    request: &[u8],
) -> Result<MakeTicketResponse, Status> {
    let signed = sign(decision, &broker.stack.signing_key(Service::Policy)).unwrap();
    let asked = MakeTicketRequest {
        decision: Some(signed),
        request: request.to_vec().into(),
    };
    let channel = broker.mesh(Service::Engine).channel(Service::Broker);
    let mut tickets = TicketServiceClient::new(channel).max_decoding_message_size(16 << 20);
    tickets
        .make_ticket(asked)
        .await
        .map(tonic::Response::into_inner)
}

/// What socket-proxy writes into the cell.
fn opened(broker: &Broker, made: &MakeTicketResponse) -> Vec<u8> {
    let ticket = made.ticket.clone().unwrap();
    let ticket = verify::<Ticket>(&ticket, &broker.stack.trust().signing.broker).unwrap();
    let reader = SessionReader::new(broker.stack.socket_proxy_key());
    let salted = reader.open(&made.sealed, 16 << 20).unwrap();
    assert_eq!(ticket.statement.final_sha256, Sha256::of(&salted));
    let (_salt, last) = salted.split_at(32);
    last.to_vec()
}

#[tokio::test]
async fn a_ticket_delivers_the_secret_and_is_recorded_by_name() {
    let canary = format!("canary-{:x}", rand::random::<u64>());
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, &canary).await;
    broker.lock_greet(&admin).await;
    let decision = decision(&broker, REQUEST).await;
    let made = ticket(&broker, &decision, REQUEST).await.unwrap();
    let delivered: Json = serde_json::from_slice(&opened(&broker, &made)).unwrap();
    assert_eq!(delivered["secrets"], json!({ "demo_key": canary }));
    let recorded = broker.audit.entry("ticket.made").await;
    assert_eq!(
        (&recorded["secrets"], &recorded["plugin"]),
        (&json!(["demo_key"]), &json!("greet"))
    );
    let used = ticket(&broker, &decision, REQUEST).await.unwrap_err();
    assert_eq!(used.code(), Code::PermissionDenied);
    assert!(used.message().starts_with("decision_used"), "{used}");
    assert_eq!(
        broker.audit.entry("ticket.refused").await["reason"],
        "decision_used"
    );
    let audit: String = broker.audit.all().iter().map(ToString::to_string).collect();
    assert!(!audit.contains(&canary) && !logged().contains(&canary));
}

#[tokio::test]
async fn a_request_of_ten_mebibytes_fits() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.lock_greet(&admin).await;
    let text = "x".repeat((10 << 20) - 40);
    let request = format!(r#"{{"protocol":2,"payload":"{text}"}}"#).into_bytes();
    let decision = decision(&broker, &request).await;
    let made = ticket(&broker, &decision, &request).await.unwrap();
    assert!(opened(&broker, &made) == request);
}

#[tokio::test]
async fn an_allowed_call_stays_allowed_only_for_itself() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.lock_greet(&admin).await;
    let allowed = decision(&broker, REQUEST).await;
    let other = Decision {
        image: image("b"),
        ..allowed.clone()
    };
    let refused = ticket(&broker, &other, REQUEST).await.unwrap_err();
    assert!(refused.message().starts_with("wrong_image"), "{refused}");
    let refused = ticket(&broker, &allowed, b"{}").await.unwrap_err();
    assert!(refused.message().starts_with("wrong_request"), "{refused}");
    assert!(ticket(&broker, &allowed, REQUEST).await.is_ok());
    let older = decision(&broker, REQUEST).await;
    broker.lock_greet(&admin).await;
    let refused = ticket(&broker, &older, REQUEST).await.unwrap_err();
    assert!(refused.message().starts_with("older_lock"), "{refused}");
}

#[tokio::test]
async fn decisions_of_an_earlier_life_are_void() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    broker.lock_greet(&admin).await;
    let earlier = decision(&broker, REQUEST).await;
    broker.restart().await;
    let refused = ticket(&broker, &earlier, REQUEST).await.unwrap_err();
    assert!(refused.message().starts_with("wrong_epoch"), "{refused}");
    let fresh = decision(&broker, REQUEST).await;
    assert!(ticket(&broker, &fresh, REQUEST).await.is_ok());
}

#[tokio::test]
async fn an_old_lock_that_is_put_back_is_noticed_by_the_next_life() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    broker.lock_greet(&admin).await;
    let path = broker.stack.config_dir().join("bailey.lock");
    let first = std::fs::read(&path).unwrap();
    broker.lock_greet(&admin).await;
    std::fs::write(&path, first).unwrap();
    broker.restart().await;
    let decision = decision(&broker, REQUEST).await;
    let refused = ticket(&broker, &decision, REQUEST).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with("stale_lock"), "{refused}");
}

#[tokio::test]
async fn before_the_first_lock_and_without_audit_there_is_no_ticket() {
    let mut broker = Broker::start().await;
    let call = decision(&broker, REQUEST).await;
    let refused = ticket(&broker, &call, REQUEST).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused.message().contains("nothing is locked yet"),
        "{refused}"
    );
    let admin = broker.init().await;
    // A ticket that delivers nothing waits for no record; this one delivers.
    broker.grant_demo_key(&admin, "hunter2").await;
    broker.lock_greet(&admin).await;
    broker.served.take().unwrap().stop().await;
    let refused = ticket(&broker, &call, REQUEST).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("audit"), "{refused}");
    broker.served = Some(broker.audit.serve(&broker.stack));
    // The decision is used up: a ticket that was made may have left.
    let refused = ticket(&broker, &call, REQUEST).await.unwrap_err();
    assert!(refused.message().starts_with("decision_used"), "{refused}");
    let call = decision(&broker, REQUEST).await;
    assert!(ticket(&broker, &call, REQUEST).await.is_ok());
}

#[tokio::test]
async fn a_ticket_that_delivers_nothing_does_not_wait_for_its_record() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    broker.lock_greet(&admin).await;
    broker.served.take().unwrap().stop().await;
    let call = decision(&broker, REQUEST).await;
    assert!(ticket(&broker, &call, REQUEST).await.is_ok());
    // Audit is told as soon as it is back.
    broker.served = Some(broker.audit.serve(&broker.stack));
    let recorded = broker.audit.entry("ticket.made").await;
    assert_eq!(recorded["secrets"], json!([]));
}
