use bailey_types::Blake3;
use zeroize::Zeroizing;

use super::*;
use crate::vault::{Nonce, SetSecret, Value};

#[test]
fn a_grant_registers_whom_the_configuration_names_and_nobody_else() {
    let fresh = || Document::genesis("test".parse().unwrap(), Blake3([0; 32]), Nonce::generate());
    let mut document = fresh();
    let (plugin, consumer) = (PrincipalKind::Plugin, PrincipalKind::Consumer);
    let known: BTreeMap<PrincipalName, PrincipalKind> = [("weather", plugin), ("openai", consumer)]
        .map(|(name, kind)| (name.parse().unwrap(), kind))
        .into();
    let asked = |secret: &str, grants: &[&str]| SetSecret {
        name: secret.parse().unwrap(),
        value: Some(Value::from(Zeroizing::new("a value".to_owned()))),
        grants: Some(grants.iter().map(|name| name.parse().unwrap()).collect()),
        pattern: None,
        recipe: None,
        description: String::new(),
    };
    let now = Timestamp(1);
    let (_, registered) = document
        .set_secret_for(asked("one", &["weather", "openai", "core"]), &known, now)
        .unwrap();
    assert_eq!(registered.len(), 2);
    for (name, kind) in &known {
        assert_eq!(document.principals[name].kind, *kind);
    }
    // Somebody who was registered by name needs no configuration.
    document
        .register("shop".parse().unwrap(), consumer)
        .unwrap();
    let (_, registered) = document
        .set_secret_for(asked("two", &["shop"]), &known, now)
        .unwrap();
    assert!(registered.is_empty());
    // A typo is said to be one, and what is to be done.
    let before = document.clone();
    let refused = document
        .clone()
        .set_secret_for(asked("three", &["waether"]), &known, now);
    let said = refused.unwrap_err().to_string();
    assert!(
        said.starts_with("the principal waether is not registered")
            && said.contains("(did you mean weather?)")
            && said
                .ends_with("`bailey vault register-principal waether --kind plugin` (or consumer)"),
        "{said}"
    );
    let far = document
        .clone()
        .set_secret_for(asked("three", &["zzz"]), &known, now);
    assert!(!far.unwrap_err().to_string().contains("did you mean"));
    // Nor is anything granted to whom was revoked; and of a secret that is refused nothing is registered.
    document.revoke_principal(&"shop".parse().unwrap()).unwrap();
    let refused = document.set_secret_for(asked("three", &["shop"]), &known, now);
    assert!(matches!(refused, Err(Refused::PrincipalDiffers { .. })));
    let refused = document.set_secret_for(asked("one", &["nobody"]), &known, now);
    assert!(matches!(refused, Err(Refused::ValueExists(_))));
    assert_eq!(document.principals.len(), before.principals.len());
}
