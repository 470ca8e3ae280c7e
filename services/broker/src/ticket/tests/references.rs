//! `config: {token: {secret_ref: name}}`.

use super::*;

const REFERS: &[u8] =
    br#"{"config":{"token":{"secret_ref":"demo_key"},"n":1.0},"protocol":2,"payload":{"token":{"secret_ref":"demo_key"}}}"#;

/// A world in which the config of `greet` refers to its secret.
fn refers() -> World {
    let mut world = World::new();
    world.request = REFERS.to_vec();
    world.decision.request_sha256 = Sha256::of(REFERS);
    refer_to(&mut world, "demo_key");
    world
}

fn refer_to(world: &mut World, secret: &str) {
    let delivery = world.delivery();
    delivery.config_refs = BTreeSet::from([secret.parse().unwrap()]);
}

#[test]
fn a_reference_becomes_the_value_in_config_and_nowhere_else() {
    let world = refers();
    let made = world.make().unwrap();
    let last: serde_json::Value = serde_json::from_slice(&world.opened(&made)).unwrap();
    assert_eq!(last["config"], json!({ "token": CANARY, "n": 1.0 }));
    assert_eq!(
        last["payload"]["token"],
        json!({ "secret_ref": "demo_key" })
    );
    // What socket-proxy takes out of the output is what stands in `secrets`: every value that was put into config is there too.
    assert_eq!(last["secrets"], json!({ "demo_key": CANARY }));
    // What was decided about names the secret, and what is recorded too; neither has the value.
    assert_eq!(Sha256::of(&world.request), world.decision.request_sha256);
    assert!(!format!("{made:?}").contains("canary"));
}

#[test]
fn a_secret_that_may_not_be_delivered_denies_the_call_for_its_reason() {
    type Spoil = fn(&mut World);
    let cases: [(Reason, Spoil); 6] = [
        (Reason::NoSuchSecret, |w| refer_to(w, "missing")),
        (Reason::PrincipalNotAuthorized, |w| {
            refer_to(w, "others_key");
        }),
        (Reason::SecretRevoked, |w| {
            let name: SecretName = "demo_key".parse().unwrap();
            assert_eq!(w.vault.revoke(&name, Timestamp(1)), Ok(true));
        }),
        (Reason::PrincipalRevoked, |w| {
            w.set_principal(PrincipalKind::Plugin, Status::Revoked);
        }),
        (Reason::RequiresVault, |w| {
            let name: PrincipalName = "greet".parse().unwrap();
            w.vault.principals.remove(&name);
        }),
        // Not the request that the lock makes of this call.
        (Reason::BadRequest, |w| {
            w.request = REQUEST.to_vec();
            w.decision.request_sha256 = Sha256::of(REQUEST);
        }),
    ];
    for (expected, spoil) in cases {
        let mut world = refers();
        spoil(&mut world);
        let refused = world.make().unwrap_err();
        assert_eq!(refused.reason, expected, "{refused}");
        assert_eq!(refused.record["principal"], json!("greet"));
        assert!(!format!("{refused} {refused:?}").contains("canary"));
        assert!(refers().make().is_ok());
    }
    assert_eq!(reason(refers().make_with(None)), Reason::RequiresVault);
}

#[test]
fn a_revoked_secret_that_config_does_not_refer_to_is_only_withheld() {
    let mut world = refers();
    let extra = SetSecret {
        name: "extra".parse().unwrap(),
        value: Some(Value::from(Zeroizing::new("x".to_owned()))),
        grants: Some(BTreeSet::from(["greet".parse().unwrap()])),
        pattern: None,
        recipe: None,
        description: String::new(),
    };
    world.vault.set_secret(extra, Timestamp(0)).unwrap();
    let extra: SecretName = "extra".parse().unwrap();
    world.vault.revoke(&extra, Timestamp(1)).unwrap();
    let made = world.make().unwrap();
    assert_eq!(made.record["secret_revoked"], json!(["extra"]));
    assert_eq!(made.record["secrets"], json!(["demo_key"]));
}

#[test]
fn a_plugin_that_has_changed_and_refers_to_a_secret_does_not_run() {
    let mut world = untrusted();
    world.request = REFERS.to_vec();
    world.decision.request_sha256 = Sha256::of(REFERS);
    refer_to(&mut world, "demo_key");
    assert_eq!(reason(world.make()), Reason::FingerprintMismatch);
}

#[test]
fn what_locked_plugins_lack_is_told() {
    let mut world = refers();
    let missing = |world: &World| missing(&world.vault, &world.lock.view.deliveries);
    assert_eq!(missing(&world), Vec::<String>::new());
    refer_to(&mut world, "others_key");
    let told = missing(&world);
    assert!(
        told[0].contains("others_key, which is not granted to greet"),
        "{told:?}"
    );
    refer_to(&mut world, "demo_key");
    world.delivery().requires_vault = true;
    assert_eq!(missing(&world), Vec::<String>::new());
    world.set_principal(PrincipalKind::Plugin, Status::Revoked);
    assert_eq!(missing(&world).len(), 1);
}

#[test]
fn a_lock_says_which_secrets_a_config_refers_to() {
    let text = "accounts: {default: {}}\nplugins:\n  greet: {config: {a: {secret_ref: demo_key}, b: [{c: {secret_ref: other}}]}}\n  echo: {}\n";
    let mut lock = World::new().lock.lock;
    lock.config_files = BTreeMap::from([("config.yaml".into(), text.into())]);
    let deliveries = View::of(&lock).unwrap().deliveries;
    let refs = |plugin: &str| {
        let name: PluginName = plugin.parse().unwrap();
        let refs = deliveries[&name].config_refs.iter();
        refs.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(refs("greet"), ["demo_key", "other"]);
    assert!(refs("echo").is_empty());
}
