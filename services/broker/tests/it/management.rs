//! The management socket.

use std::collections::{BTreeMap, BTreeSet};

use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::{BeatRequest, Readiness};
use bailey_proto::management::v1::lock_service_client::LockServiceClient;
use bailey_proto::management::v1::vault_service_client::VaultServiceClient;
use bailey_proto::management::v1::{
    AwaitLockRequest, AwaitLockResponse, CreateTokenRequest, InitRequest, ListRequest,
    ProposeRequest, SetSecretRequest, SignRequest, StatusRequest,
};
use bailey_types::{Serial, Service};
use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use serde_json::json;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};

use crate::harness::{Broker, logged, proposal};

/// Services of the package that are served on other sockets than the broker's.
const ELSEWHERE: [&str; 2] = ["EngineService", "SealService"];
/// What needs no admin token.
const OPEN: [&str; 4] = [
    "VaultService/Init",
    "VaultService/Status",
    "PkiService/PkiStatus",
    "CustodyService/Unseal",
];

/// Every method of the package, from the definitions: of the broker's services, and of the others.
pub fn methods() -> (Vec<String>, Vec<String>) {
    let files = prost_types::FileDescriptorSet::decode(bailey_proto::DESCRIPTORS).unwrap();
    let files = files.file.iter();
    let services = files
        .filter(|file| file.package() == "bailey.management.v1")
        .flat_map(|file| &file.service);
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for service in services {
        for method in &service.method {
            let path = format!("/bailey.management.v1.{}/{}", service.name(), method.name());
            if ELSEWHERE.contains(&service.name()) {
                others.push(path);
            } else {
                ours.push(path);
            }
        }
    }
    assert!(ours.len() >= 20 && !others.is_empty(), "{ours:?}");
    (ours, others)
}

/// What an answer of the broker's services has room for that is no text of its own, or is called a token: `message.field`.
fn handed_out() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(bailey_proto::DESCRIPTORS).unwrap();
    let messages: BTreeMap<String, _> = files
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(move |it| (file, it)))
        .map(|(file, it)| (format!(".{}.{}", file.package(), it.name()), it))
        .collect();
    let services = files.file.iter().flat_map(|file| &file.service);
    let ours = services.filter(|it| {
        let (ours, _) = methods();
        ours.iter()
            .any(|path| path.contains(&format!(".{}/", it.name())))
    });
    let mut waiting: Vec<String> = ours
        .flat_map(|it| &it.method)
        .map(|method| method.output_type().to_owned())
        .collect();
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = waiting.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let message = messages.get(&name).unwrap();
        for field in &message.field {
            let kind = field.r#type();
            if kind == Type::Message {
                waiting.push(field.type_name().to_owned());
            } else if kind == Type::Bytes || kind == Type::String && field.name().contains("token")
            {
                found.insert(format!("{}.{}", message.name(), field.name()));
            }
        }
    }
    found
}

/// There is no way to read a value back: what is handed out at all is new, public, or encrypted.
#[test]
fn no_answer_has_room_for_a_value() {
    let expected = [
        "CreateTokenResponse.token",
        "ExportResponse.vault",
        "InitResponse.admin_token",
        "ProposeResponse.lock",
        // The lock.
        "Signed.payload",
        "Signed.signature",
    ];
    assert_eq!(handed_out(), expected.map(str::to_owned).into());
}

/// The code that an empty request to `method` gets.
async fn code(broker: &Broker, method: &str, bearer: Option<&str>) -> Code {
    let mut grpc = Grpc::new(broker.channel().await);
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    if let Some(bearer) = bearer {
        request
            .metadata_mut()
            .insert("authorization", bearer.parse().unwrap());
    }
    let path: PathAndQuery = method.parse().unwrap();
    let answer: Result<tonic::Response<()>, _> = grpc
        .unary(request, path, tonic_prost::ProstCodec::default())
        .await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn without_the_admin_token_nothing_is_answered_but_what_is_open() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    let api = broker.create_token(&admin, "ops", &["*"]).await;
    let right = format!("Bearer {admin}");
    let (ours, others) = methods();
    let all = ours.iter().chain(&others);
    for (number, method) in all.enumerate() {
        if number % 6 == 5 {
            // Wrong tokens are counted, and after ten of them even the right one waits; each life counts anew.
            broker.restart().await;
        }
        let open = OPEN.iter().any(|open| method.ends_with(open));
        let refused = code(&broker, method, None).await == Code::Unauthenticated;
        assert_eq!(refused, !open, "{method}");
        let with_token = code(&broker, method, Some(&right)).await;
        assert_ne!(with_token, Code::Unauthenticated, "{method}");
        // A service that is neither served here nor known to be served elsewhere is on no socket at all.
        let served = with_token != Code::Unimplemented;
        assert_eq!(served, ours.contains(method), "{method}");
    }
    broker.restart().await;
    for wrong in [
        format!("Bearer {api}"),
        "Bearer ".into(),
        format!("Basic {admin}"),
    ] {
        let list = "/bailey.management.v1.VaultService/List";
        assert_eq!(
            code(&broker, list, Some(&wrong)).await,
            Code::Unauthenticated
        );
    }
    let refused = broker.audit.entry("manage.refused").await;
    assert_eq!(refused["reason"], "wrong_token");
    // Whoever gave one is told what to do about it; whoever gave none is told nothing but that.
    let said = async |token: &str| {
        let refused = broker.vault(token).await.list(ListRequest {}).await;
        refused.unwrap_err().message().to_owned()
    };
    assert_eq!(said("").await, "this needs the vault's admin token");
    let wrong = said("blyadmin_guess").await;
    assert!(
        wrong.contains("`bailey vault rotate-admin-token`"),
        "{wrong}"
    );
}

#[tokio::test]
async fn another_uid_is_answered_nothing_at_all() {
    let broker = Broker::start_with(Broker::for_another_uid).await;
    for method in methods().0 {
        assert_eq!(
            code(&broker, &method, None).await,
            Code::PermissionDenied,
            "{method}"
        );
    }
    assert_eq!(
        broker.audit.entry("manage.refused").await["reason"],
        "wrong_uid"
    );
}

#[tokio::test]
async fn guessing_the_admin_token_is_slow() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let list = "/bailey.management.v1.VaultService/List";
    let mut codes = Vec::new();
    for _ in 0..11 {
        codes.push(code(&broker, list, Some("Bearer blyadmin_guess")).await);
    }
    assert_eq!(codes[..10], [Code::Unauthenticated; 10]);
    assert_eq!(codes[10], Code::ResourceExhausted);
    // Not even the right one is looked at now.
    let right = format!("Bearer {admin}");
    assert_eq!(
        code(&broker, list, Some(&right)).await,
        Code::ResourceExhausted
    );
}

#[tokio::test]
async fn a_vault_is_made_once_and_says_how_it_is() {
    let broker = Broker::start().await;
    broker.says("there is no vault yet").await;
    let mut vault = broker.vault("").await;
    let status = vault.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.state, "no_vault");
    let list = vault.list(ListRequest {}).await.unwrap_err();
    assert_eq!(list.code(), Code::FailedPrecondition);
    let admin = broker.init().await;
    let again = vault.init(InitRequest {}).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    broker.grant_demo_key(&admin, "hunter2").await;
    broker.create_token(&admin, "ops", &["plugin:rw"]).await;
    let status = vault.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (status.state.as_str(), status.secrets, status.tokens),
        ("open", 1, 1)
    );
    let list = broker
        .vault(&admin)
        .await
        .list(ListRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            list.secrets[0].name.as_str(),
            list.secrets[0].status.as_str()
        ),
        ("demo_key", "active")
    );
    assert_eq!(list.secrets[0].granted_to, ["greet"]);
    assert_eq!(list.tokens[0].scopes, ["plugin:rw"]);
    assert_eq!(
        broker.audit.entry("secret.set").await["granted_to"],
        json!(["greet"])
    );
    assert_eq!(broker.audit.entry("token.created").await["token"], "ops");
}

#[tokio::test]
async fn bad_secrets_and_tokens_are_refused() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let mut vault = broker.vault(&admin).await;
    let set = |name: &str, value: Vec<u8>| SetSecretRequest {
        name: name.into(),
        value: value.into(),
        ..SetSecretRequest::default()
    };
    for bad in [
        set("demo", vec![0xff]),
        set("demo", vec![b'x'; (64 << 10) + 1]),
        set("demo", Vec::new()),
        set("Demo", vec![b'x']),
        set("core-admin-token", vec![b'x']),
    ] {
        let refused = vault.set_secret(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert!(
        vault
            .set_secret(set("demo", vec![b'x'; 64 << 10]))
            .await
            .is_ok()
    );
    let again = vault.set_secret(set("demo", vec![b'y'])).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    assert!(again.message().contains("roll"), "{again}");
    let token = |name: &str, scopes: &[&str]| CreateTokenRequest {
        name: name.into(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
    };
    for bad in [
        token("ops", &[]),
        token("ops", &["plugin:all"]),
        token("", &["*"]),
    ] {
        let refused = vault.create_token(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert!(vault.create_token(token("ops", &["*"])).await.is_ok());
    let again = vault.create_token(token("ops", &["*"])).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn a_lock_is_signed_by_its_code_and_recorded() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let lock = broker.lock_greet(&admin).await;
    assert_eq!((lock.serial, lock.next_uid), (Serial(1), 20_002));
    assert_eq!(broker.audit.entry("lock.signed").await["serial"], 1);
    assert_eq!(broker.lock_greet(&admin).await.serial, Serial(2));
    let code = "AAAAAAAA".to_owned();
    let wrong = broker
        .lock(&admin)
        .await
        .sign(SignRequest { code })
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition);
    let refused = broker.audit.entry("lock.refused").await;
    assert_eq!(
        refused,
        json!({ "operation": "sign", "reason": "no_such_code" })
    );
}

#[tokio::test]
async fn no_lock_leaves_without_its_record() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    broker.served.take().unwrap().stop().await;
    let mut lock = broker.lock(&admin).await;
    let request = || ProposeRequest {
        proposal: serde_json::to_vec(&proposal()).unwrap().into(),
    };
    let code = lock.propose(request()).await.unwrap().into_inner().code;
    let sign = || SignRequest { code: code.clone() };
    let refused = lock.sign(sign()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    broker.served = Some(broker.audit.serve(&broker.stack));
    // Nothing left, so nothing is used up; and what was proposed can be signed still.
    let signed = lock.sign(sign()).await.unwrap().into_inner();
    assert!(signed.lock.is_some());
    assert_eq!(broker.audit.entry("lock.signed").await["serial"], 1);
    assert_eq!(broker.lock_greet(&admin).await.serial, Serial(2));
}

#[tokio::test]
async fn the_broker_cosigns_only_what_continues_what_it_cosigned_before() {
    let mut broker = Broker::start().await;
    broker.audit.cosigned(1).await;
    broker.init().await;
    broker.audit.entry("vault.made").await;
    broker.restart().await;
    broker.audit.cosigned(2).await;
    broker.stop().await;
    let path = broker.stack.dir().join("data/broker/witness.json");
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let other = json!({ "size": known["size"], "root": "00".repeat(32) });
    std::fs::write(&path, other.to_string()).unwrap();
    broker.start_again().await;
    broker.says("the audit log is not co-signed").await;
}

#[tokio::test]
async fn no_value_and_no_token_reaches_log_or_audit() {
    let canary = format!("canary-{:x}", rand::random::<u64>());
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, &canary).await;
    let token = broker.create_token(&admin, "ops", &["*"]).await;
    broker.lock_greet(&admin).await;
    // A refused change is shown without what was refused, too.
    let asked = SetSecretRequest {
        name: "demo_key".into(),
        value: canary.clone().into_bytes().into(),
        ..SetSecretRequest::default()
    };
    let refused = broker
        .vault(&admin)
        .await
        .set_secret(asked)
        .await
        .unwrap_err();
    broker.audit.entry("token.created").await;
    let audit: String = broker.audit.all().iter().map(ToString::to_string).collect();
    let log = logged();
    assert!(
        log.contains("made the vault"),
        "the log was not listened to"
    );
    for secret in [canary, admin, token] {
        assert!(!audit.contains(&secret), "in the audit log");
        assert!(!log.contains(&secret), "in the log");
        assert!(!refused.message().contains(&secret), "in an answer");
    }
}

#[tokio::test]
async fn the_generated_clients_reach_both_services() {
    let broker = Broker::start().await;
    let (vault, lock) = (broker.channel().await, broker.channel().await);
    assert!(
        VaultServiceClient::new(vault)
            .status(StatusRequest {})
            .await
            .is_ok()
    );
    let request = SignRequest {
        code: String::new(),
    };
    let refused = LockServiceClient::new(lock)
        .sign(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_lock_is_awaited_until_whoever_says_by_which_it_goes_has_taken_it() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let peers = [
        Service::Policy,
        Service::Engine,
        Service::Scheduler,
        Service::EgressProxy,
    ];
    let peers = peers.map(|service| (service, broker.mesh(service)));
    let says = async |service, serial| {
        let (_, peer) = peers.iter().find(|(of, _)| *of == service).unwrap();
        let beat = BeatRequest {
            readiness: Readiness::Ready.into(),
            lock_serial: Some(serial),
            ..BeatRequest::default()
        };
        let mut presence = PresenceServiceClient::new(peer.channel(Service::Broker));
        presence.beat(beat).await.unwrap();
    };
    says(Service::Policy, 6).await;
    says(Service::Engine, 7).await;
    says(Service::Scheduler, 7).await;
    let mut lock = broker.lock(&admin).await;
    let mut taken = async |wait_ms| {
        let asked = AwaitLockRequest { serial: 7, wait_ms };
        let AwaitLockResponse { behind, unheard } =
            lock.await_lock(asked).await.unwrap().into_inner();
        (behind, unheard)
    };
    let now = taken(0).await;
    assert_eq!(
        now,
        (vec!["policy".to_owned()], vec!["egress-proxy".to_owned()])
    );
    // A broker that has just started waits for those of whom it has not heard, too.
    let (waited, ()) = tokio::join!(taken(20_000), async {
        says(Service::Policy, 7).await;
        says(Service::EgressProxy, 7).await;
    });
    assert_eq!(waited, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn what_is_to_be_kept_is_never_made_and_a_name_nearby_is_said() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, "hunter2").await;
    let set = |name: &str| SetSecretRequest {
        name: name.into(),
        existing: true,
        pattern: "auto".into(),
        ..SetSecretRequest::default()
    };
    let mut vault = broker.vault(&admin).await;
    let refused = vault.set_secret(set("demo_kay")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let said =
        "there is no secret demo_kay (did you mean demo_key?); `bailey vault list` lists them";
    assert_eq!(refused.message(), said);
    vault.set_secret(set("demo_key")).await.unwrap();
}

#[tokio::test]
async fn a_vault_that_was_lost_is_to_be_restored_and_a_new_stack_to_be_begun() {
    let mut broker = Broker::start().await;
    let status = async |broker: &Broker| {
        let mut vault = broker.vault("").await;
        let status = vault.status(StatusRequest {}).await.unwrap().into_inner();
        (status.state, status.detail)
    };
    assert_eq!(status(&broker).await, ("no_vault".into(), String::new()));
    let admin = broker.init().await;
    broker.lock_greet(&admin).await;
    broker.stop().await;
    std::fs::remove_file(broker.stack.dir().join("data/broker/vault.age")).unwrap();
    broker.start_again().await;
    broker.says("vault.age is gone").await;
    let (state, detail) = status(&broker).await;
    let (first, last) = (detail.find("vault restore"), detail.find("vault init"));
    assert!(
        state == "no_vault" && first.is_some() && first < last,
        "{detail}"
    );
}
