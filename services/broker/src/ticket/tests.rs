mod references;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bailey_trust::{
    DecisionOrigin, Lock, ProposedPlugin, SealingKey, SealingSession, SessionReader,
    StatementError, sign, verify,
};
use bailey_types::{
    AttemptNumber, Clock, DecisionId, ImageId, JobId, OriginId, PluginName, PrincipalName,
    SecretName, Serial,
};

use super::*;
use crate::testing::proposed;
use crate::vault::{Principal, PrincipalKind, SetSecret, Status, Value};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const EPOCH: &str = "epoch-of-this-life";
const REQUEST: &[u8] = br#"{"protocol":2,"command":"handle","config":{},"payload":{"a":1}}"#;
const CANARY: &str = "canary-\"7b1d\\";

/// A ticket, and what was decided about it.
#[derive(Debug)]
struct Made {
    ticket: Signed,
    sealed: Vec<u8>,
    delivers: bool,
    record: Fields,
}

struct World {
    policy: SigningKey,
    socket_proxy: SessionReader,
    office: Office,
    lock: Loaded<View>,
    vault: Document,
    decision: Decision,
    request: Vec<u8>,
    now: Timestamp,
}

impl World {
    /// A world in which the call is allowed: `greet` has the secret `demo_key`.
    fn new() -> Self {
        let (policy, broker) = (SigningKey::generate(), SigningKey::generate());
        let socket_proxy = SealingKey::generate();
        let nonce = Nonce::generate();
        let office = Office {
            policy: policy.verifying_key(),
            key: broker,
            socket_proxy: SealingSession::new(socket_proxy.recipient()),
            epoch: EPOCH.into(),
            consumed: Consumed::new(Clock::fixed(NOW)),
        };
        Self {
            policy,
            socket_proxy: SessionReader::new(socket_proxy),
            office,
            lock: lock(&nonce),
            vault: vault(nonce),
            decision: decision(),
            request: REQUEST.to_vec(),
            now: NOW,
        }
    }

    fn make_with(&self, vault: Option<&Document>) -> Result<Made, Refused> {
        let decision = sign(&self.decision, &self.policy).unwrap();
        self.make_signed(&decision, vault)
    }

    fn make_signed(&self, decision: &Signed, vault: Option<&Document>) -> Result<Made, Refused> {
        let asked = Asked {
            decision,
            request: &self.request,
        };
        let now = Now {
            time: self.now,
            lock: &self.lock,
            vault,
        };
        let granted = self.office.grant(&asked, &now)?;
        let super::Made { ticket, sealed } = self.office.make(&granted)?;
        Ok(Made {
            ticket,
            sealed,
            delivers: granted.delivers,
            record: granted.record,
        })
    }

    fn make(&self) -> Result<Made, Refused> {
        self.make_with(Some(&self.vault))
    }

    /// What the lock says about the secrets of the plugin.
    fn delivery(&mut self) -> &mut Delivery {
        self.lock.view.deliveries.get_mut(&plugin()).unwrap()
    }

    fn set_principal(&mut self, kind: PrincipalKind, status: Status) {
        let principal = Principal { kind, status };
        self.vault
            .principals
            .insert("greet".parse().unwrap(), principal);
    }

    /// What socket-proxy would write into the cell.
    fn opened(&self, made: &Made) -> Vec<u8> {
        let salted = self.socket_proxy.open(&made.sealed, 1 << 20).unwrap();
        let ticket = verify::<Ticket>(&made.ticket, &self.office.key.verifying_key()).unwrap();
        assert_eq!(ticket.statement.final_sha256, Sha256::of(&salted));
        salted[32..].to_vec()
    }
}

fn plugin() -> PluginName {
    "greet".parse().unwrap()
}

fn image(digit: &str) -> ImageId {
    format!("sha256:{}", digit.repeat(64)).parse().unwrap()
}

fn lock(nonce: &Nonce) -> Loaded<View> {
    let tree = Blake3([7; 32]);
    let proposed = ProposedPlugin {
        tree_blake3: tree,
        image: image("a"),
        ..proposed("greet")
    };
    let locked = LockedPlugin {
        proposed,
        tree_mac: tree_mac(nonce, &tree),
        uid: 20_000,
        holder_uid: 20_001,
        state_generation: 0,
    };
    let lock = Lock {
        version: 1,
        stack: "test".parse().unwrap(),
        serial: Serial(5),
        signed_at: Timestamp(0),
        config_files: BTreeMap::new(),
        plugins: BTreeMap::from([(plugin(), locked)]),
        next_uid: 20_002,
    };
    let delivery = Delivery {
        principal: "greet".parse().unwrap(),
        requires_vault: false,
        config_refs: BTreeSet::new(),
    };
    Loaded {
        lock,
        view: View {
            deliveries: BTreeMap::from([(plugin(), delivery)]),
            ..View::default()
        },
    }
}

fn vault(nonce: Nonce) -> Document {
    let mut vault = Document::genesis("test".parse().unwrap(), Blake3([0; 32]), nonce);
    vault
        .register("greet".parse().unwrap(), PrincipalKind::Plugin)
        .unwrap();
    vault
        .register("other".parse().unwrap(), PrincipalKind::Plugin)
        .unwrap();
    for (name, value, principal) in [
        ("demo_key", CANARY, "greet"),
        ("others_key", "canary-of-another", "other"),
    ] {
        let asked = SetSecret {
            name: name.parse().unwrap(),
            value: Some(Value::from(Zeroizing::new(value.to_owned()))),
            grants: Some(BTreeSet::from([principal.parse().unwrap()])),
            pattern: None,
            recipe: None,
            description: String::new(),
        };
        vault.set_secret(asked, Timestamp(0)).unwrap();
    }
    vault
}

fn decision() -> Decision {
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
        plugin: plugin(),
        command: "handle".parse().unwrap(),
        request_sha256: Sha256::of(REQUEST),
        lock_serial: Serial(5),
        image: image("a"),
        account: "default".parse().unwrap(),
        egress: Vec::new(),
        contract: "token:ops".into(),
        broker_epoch: EPOCH.into(),
        audit_index: 1,
        issued_at: NOW,
        expires_at: NOW.plus(Duration::from_mins(1)),
    }
}

fn reason(outcome: Result<Made, Refused>) -> Reason {
    outcome.expect_err("a ticket was made").reason
}

#[test]
fn a_ticket_carries_the_request_with_the_plugins_own_secrets() {
    let world = World::new();
    let made = world.make().unwrap();
    let last = world.opened(&made);
    assert!(last.ends_with(&REQUEST[1..]));
    let last: serde_json::Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(last["secrets"], json!({ "demo_key": CANARY }));
    assert!(made.delivers, "its record comes first");
    let ticket = verify::<Ticket>(&made.ticket, &world.office.key.verifying_key()).unwrap();
    let ticket = ticket.statement;
    assert_eq!(
        (ticket.decision, ticket.image),
        (world.decision.id, world.decision.image)
    );
    assert!(ticket.check_time(NOW).is_ok());
    assert_eq!(ticket.container_kind, "cell");
    // Whoever makes the container has as long as the decision lasts.
    assert_eq!(ticket.expires_at, world.decision.expires_at);
}

#[test]
fn the_record_names_secrets_and_never_holds_a_value() {
    let world = World::new();
    let made = world.make().unwrap();
    assert_eq!(made.record["secrets"], json!(["demo_key"]));
    assert_eq!(made.record["principal"], json!("greet"));
    let shown = format!("{made:?} {:?}", world.vault);
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn without_secrets_the_bytes_are_those_that_were_decided_about() {
    let world = World::new();
    let mut vault = world.vault.clone();
    vault.secrets.clear();
    let made = world.make_with(Some(&vault)).unwrap();
    assert_eq!(world.opened(&made), REQUEST);
}

#[test]
fn two_tickets_for_equal_bytes_have_different_hashes() {
    let world = World::new();
    let first = world.make_with(None).unwrap();
    let second = World {
        decision: decision(),
        ..world
    };
    let second = second.make_with(None).unwrap();
    assert_ne!(first.ticket.payload, second.ticket.payload);
    assert_ne!(first.sealed, second.sealed);
}

#[test]
fn a_decision_is_good_for_one_ticket() {
    let world = World::new();
    assert!(world.make().is_ok());
    assert_eq!(reason(world.make()), Reason::DecisionUsed);
    let next = World {
        decision: decision(),
        ..world
    };
    assert!(next.make().is_ok());
}

#[test]
fn a_ticket_never_lasts_longer_than_socket_proxy_takes_it() {
    let mut world = World::new();
    // The clock went back since policy decided.
    world.now = NOW.minus(Duration::from_millis(500));
    let made = world.make().unwrap();
    let ticket = verify::<Ticket>(&made.ticket, &world.office.key.verifying_key()).unwrap();
    assert!(ticket.statement.check_time(world.now).is_ok());
}

#[test]
fn request_and_secrets_are_bounded_together() {
    let mut world = World::new();
    let fill = |size: usize| format!(r#"{{"protocol":2,"payload":"{}"}}"#, "x".repeat(size));
    let secrets = world.opened(&world.make().unwrap()).len() - REQUEST.len();
    let most = Ticket::MAX_FINAL_BYTES - secrets - fill(0).len();
    for (size, fits) in [(most, true), (most + 1, false)] {
        world.request = fill(size).into_bytes();
        world.decision = Decision {
            request_sha256: Sha256::of(&world.request),
            ..decision()
        };
        let made = world.make();
        match made {
            Ok(_) => assert!(fits),
            Err(refused) => assert!(!fits && refused.reason == Reason::BadRequest, "{refused}"),
        }
    }
}

#[test]
fn a_refused_attempt_does_not_use_the_decision_up() {
    let mut world = World::new();
    world.request.push(b' ');
    assert_eq!(reason(world.make()), Reason::WrongRequest);
    world.request.pop();
    assert!(world.make().is_ok());
}

#[test]
fn each_deviation_is_refused_for_its_own_reason() {
    type Spoil = fn(&mut World);
    let cases: [(Reason, Spoil); 15] = [
        (Reason::BadDecision, |w| w.policy = SigningKey::generate()),
        (Reason::Expired, |w| {
            w.now = NOW.plus(Duration::from_secs(61));
        }),
        (Reason::Expired, |w| {
            w.now = NOW.minus(Duration::from_secs(2));
        }),
        (Reason::Expired, |w| {
            w.decision.expires_at = NOW.plus(Duration::from_secs(61));
        }),
        (Reason::WrongEpoch, |w| {
            w.decision.broker_epoch = "epoch-of-another-life".into();
        }),
        (Reason::WrongRequest, |w| w.request[20] ^= 1),
        (Reason::OlderLock, |w| w.decision.lock_serial = Serial(4)),
        (Reason::NewerLock, |w| w.decision.lock_serial = Serial(6)),
        (Reason::StaleLock, |w| w.vault.lock.serial = Serial(6)),
        (Reason::NotLocked, |w| {
            w.decision.plugin = "echo".parse().unwrap();
        }),
        (Reason::NotLocked, |w| w.lock.view.deliveries.clear()),
        (Reason::WrongImage, |w| w.decision.image = image("b")),
        (Reason::WrongGrant, |w| {
            w.decision.account = "root".parse().unwrap();
        }),
        (Reason::WrongGrant, |w| {
            w.decision.egress.push("example.org:443".into());
        }),
        (Reason::WrongSeal, |w| w.vault.nonce = Nonce::generate()),
    ];
    for (expected, spoil) in cases {
        let mut world = World::new();
        spoil(&mut world);
        assert_eq!(reason(world.make()), expected);
        assert!(World::new().make().is_ok());
    }
}

#[test]
fn bytes_that_bring_their_own_secrets_are_refused_even_if_policy_allowed_them() {
    for request in [
        &br#"{"secrets":{"a":"b"}}"#[..],
        br#"{"a":1,"a":2}"#,
        b"[]",
        b"junk",
    ] {
        let mut world = World::new();
        world.request = request.to_vec();
        world.decision.request_sha256 = Sha256::of(request);
        assert_eq!(reason(world.make()), Reason::BadRequest);
    }
}

#[test]
fn a_statement_of_another_kind_is_no_decision() {
    let world = World::new();
    let ticket = world.make().unwrap().ticket;
    let refused = world.make_signed(&ticket, None).unwrap_err();
    assert_eq!(refused.reason, Reason::BadDecision);
    assert_eq!(
        refused.detail,
        StatementError::BadSignature("decision").to_string()
    );
    assert!(refused.record.is_empty());
    let wrong = World {
        decision: Decision {
            image: image("b"),
            ..decision()
        },
        ..world
    };
    let refused = wrong.make().unwrap_err();
    assert_eq!(refused.record["plugin"], json!("greet"));
    assert!(!format!("{refused} {refused:?}").contains("canary"));
}

#[test]
fn who_the_vault_does_not_know_runs_without_secrets_unless_it_requires_them() {
    for (vault, known) in [(false, false), (true, false), (true, true)] {
        for requires_vault in [false, true] {
            let mut world = World::new();
            if !known {
                let name: PrincipalName = "greet".parse().unwrap();
                world.vault.principals.remove(&name);
            }
            world.delivery().requires_vault = requires_vault;
            let made = world.make_with(vault.then_some(&world.vault));
            if requires_vault && !known {
                assert_eq!(reason(made), Reason::RequiresVault);
            } else {
                let bare = world.opened(&made.unwrap()) == REQUEST;
                assert_eq!(bare, !known);
            }
        }
    }
}

#[test]
fn a_revoked_principal_is_refused_and_a_revoked_secret_withheld() {
    let mut world = World::new();
    let secret: SecretName = "demo_key".parse().unwrap();
    world.vault.secrets.get_mut(&secret).unwrap().status = Status::Revoked;
    let made = world.make().unwrap();
    assert_eq!(made.record["secret_revoked"], json!(["demo_key"]));
    assert_eq!(world.opened(&made), REQUEST);

    let mut world = World::new();
    world.set_principal(PrincipalKind::Plugin, Status::Revoked);
    assert_eq!(reason(world.make()), Reason::PrincipalRevoked);
}

#[test]
fn a_plugin_does_not_inherit_from_a_principal_of_another_kind() {
    let mut world = World::new();
    world.set_principal(PrincipalKind::Consumer, Status::Active);
    assert_eq!(reason(world.make()), Reason::WrongPrincipal);
}

#[test]
fn a_plugin_gets_the_secrets_of_the_principal_that_the_lock_names() {
    let mut world = World::new();
    world.delivery().principal = "other".parse().unwrap();
    let made = world.make().unwrap();
    assert_eq!(made.record["secrets"], json!(["others_key"]));
}

/// A world in which policy found that the folder of `greet` has changed.
fn untrusted() -> World {
    let mut world = World::new();
    let locked = world.lock.lock.plugins.get_mut(&plugin()).unwrap();
    locked.proposed.walls.untrusted = Some(bailey_plugin::Limits::default());
    locked.proposed.egress = vec!["example.org:443".into()];
    world.decision.account = "untrusted".parse().unwrap();
    world
}

#[test]
fn a_plugin_that_has_changed_gets_no_secret() {
    let world = untrusted();
    let made = world.make().unwrap();
    assert_eq!(world.opened(&made), REQUEST);
    assert_eq!(made.record["account"], json!("untrusted"));
    assert_eq!(made.record["secrets"], json!([]));
    assert!(!made.delivers);
    assert_eq!(made.record["fingerprint_mismatch"], json!(["demo_key"]));
    // Its neighbour: the same plugin, decided about as it was sealed.
    let mut world = untrusted();
    world.decision.account = "default".parse().unwrap();
    world.decision.egress = vec!["example.org:443".into()];
    assert_eq!(world.make().unwrap().record["secrets"], json!(["demo_key"]));
}

#[test]
fn a_plugin_that_has_changed_does_not_run_if_it_cannot_do_without_secrets() {
    let mut world = untrusted();
    world.delivery().requires_vault = true;
    assert_eq!(reason(world.make()), Reason::RequiresVault);
}

#[test]
fn untrusted_is_an_account_only_where_the_lock_has_it_and_only_with_nothing() {
    let mut world = untrusted();
    world.decision.egress = vec!["example.org:443".into()];
    assert_eq!(reason(world.make()), Reason::WrongGrant);
    let mut world = untrusted();
    let locked = world.lock.lock.plugins.get_mut(&plugin()).unwrap();
    locked.proposed.walls.untrusted = None;
    assert_eq!(reason(world.make()), Reason::WrongGrant);
    assert!(untrusted().make().is_ok());
}
