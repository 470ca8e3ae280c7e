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

/// Two that the configuration names and nobody registered, as an import and `set` find them.
#[test]
fn of_a_refusal_nobody_stays_registered() {
    let genesis = Document::genesis("test".parse().unwrap(), Blake3([0; 32]), Nonce::generate());
    let name = |text: &str| text.parse::<PrincipalName>().unwrap();
    let both: BTreeSet<_> = [name("weather"), name("youtube")].into();
    let named = |name: &PrincipalName| (name.clone(), PrincipalKind::Plugin);
    let known: BTreeMap<_, _> = both.iter().map(named).collect();
    // There is room for one of them only.
    let mut document = genesis.clone();
    for n in document.principals.len()..Document::ENTRY_LIMIT - 1 {
        document
            .register(name(&format!("p{n}")), PrincipalKind::Plugin)
            .unwrap();
    }
    let before = document.clone();
    let refused = document.admit(&both, &known);
    assert!(matches!(refused, Err(Refused::Full { .. })), "{refused:?}");
    assert_eq!(document, before);
    let one = BTreeSet::from([name("weather")]);
    assert_eq!(document.admit(&one, &known).unwrap(), [name("weather")]);
    // A secret that is left out of an import registers nobody, and the others do.
    let asked = |secret: &str, value: &str, grant: &str| SetSecret {
        name: secret.parse().unwrap(),
        value: Some(Value::from(Zeroizing::new(value.to_owned()))),
        grants: Some([name(grant)].into()),
        pattern: None,
        recipe: None,
        description: String::new(),
    };
    let asked = vec![asked("empty", "", "weather"), asked("full", "x", "youtube")];
    let mut document = genesis;
    let (imported, registered) = document.import(asked, &known, Timestamp(1));
    assert!(imported[0].skipped.is_some() && imported[1].skipped.is_none());
    assert_eq!(registered, [name("youtube")]);
    assert!(!document.principals.contains_key(&name("weather")));
    assert!(document.principals.contains_key(&name("youtube")));
}
