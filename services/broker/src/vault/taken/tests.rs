use bailey_trust::SealingKey;
use bailey_types::Timestamp;
use zeroize::Zeroizing;

use super::*;
use crate::token::{Bearer, Scope};
use crate::vault::tests::principal;
use crate::vault::{Deed, Nonce, PrincipalKind, Refused, SetSecret, Value};

type Change = fn(&mut Document) -> Result<(), Refused>;

const LATER: Timestamp = Timestamp(9);

fn value(text: &str) -> Value {
    Value::from(Zeroizing::new(text.to_owned()))
}

fn set(name: &str, value: Option<Value>, grants: Option<&[&str]>) -> SetSecret {
    SetSecret {
        name: name.parse().unwrap(),
        value,
        grants: grants.map(|names| names.iter().map(|name| principal(name)).collect()),
        pattern: None,
        recipe: None,
        description: String::new(),
    }
}

fn document() -> Document {
    let stack = "test".parse().unwrap();
    let mut document = Document::genesis(stack, Bearer::admin().hash(), Nonce::generate());
    for name in ["greet", "echo"] {
        document
            .register(principal(name), PrincipalKind::Plugin)
            .unwrap();
    }
    let granted = Some(&["greet", "echo"][..]);
    document
        .set_secret(set("key", Some(value("hunter2")), granted), Timestamp(1))
        .unwrap();
    let (token, hash) = ("phone".parse().unwrap(), Bearer::api().hash());
    document
        .add_token(token, hash, [Scope::ALL[0]].into(), Timestamp(1))
        .unwrap();
    add_recipient(&mut document).unwrap();
    document
}

fn add_recipient(document: &mut Document) -> Result<(), Refused> {
    let (own, other) = (SealingKey::generate(), SealingKey::generate());
    let added = document.add_recipient(&own.recipient(), other.recipient(), String::new(), LATER);
    Ok(added.map(drop)?)
}

fn takes(change: Change) -> bool {
    let before = document();
    let mut after = before.clone();
    change(&mut after).unwrap();
    assert_ne!(after, before);
    after.only_takes_from(&before)
}

#[test]
fn what_only_takes_away_is_recognised() {
    let taking: [(&str, Change); 6] = [
        ("secret", |it| {
            it.revoke(&"key".parse().unwrap(), LATER).map(drop)
        }),
        ("principal", |it| {
            it.revoke_principal(&principal("greet")).map(drop)
        }),
        ("purge", |it| {
            it.purge_principal(&principal("greet"), LATER).map(drop)
        }),
        ("token", |it| it.revoke_token(&"phone".parse().unwrap())),
        ("recipient", |it| {
            let other = it.recipients.keys().next().unwrap().clone();
            Ok(it.remove_recipient(&other)?)
        }),
        ("narrowed", |it| {
            it.set_secret(set("key", None, Some(&["echo"])), LATER)
                .map(drop)
        }),
    ];
    for (what, change) in taking {
        assert!(takes(change), "{what}");
    }
    for kind in [
        "secret.revoked",
        "principal.revoked",
        "principal.purged",
        "token.revoked",
    ] {
        assert!(Deed::taking(kind).is_some(), "{kind}");
    }
    assert!(Deed::taking("vault.recipient_removed").is_some());
    assert!(Deed::taking("token.created").is_none() && Deed::taking("vault.restored").is_none());
}

#[test]
fn what_gives_anything_is_not_taken_for_it() {
    let giving: [(&str, Change); 12] = [
        ("a secret", |it| {
            it.set_secret(set("new", Some(value("x")), None), LATER)
                .map(drop)
        }),
        ("a value", |it| {
            it.roll(&"key".parse().unwrap(), Some(value("x")), LATER)
                .map(drop)
        }),
        ("a principal", |it| {
            it.register(principal("new"), PrincipalKind::Plugin)
                .map(drop)
        }),
        ("a token", |it| {
            let hash = Bearer::api().hash();
            it.add_token("new".parse().unwrap(), hash, [Scope::ALL[0]].into(), LATER)
        }),
        ("a recipient", add_recipient),
        ("one grant for another", |it| {
            it.register(principal("new"), PrincipalKind::Plugin)?;
            it.set_secret(set("key", None, Some(&["new"])), LATER)
                .map(drop)
        }),
        ("a description", |it| {
            let described = SetSecret {
                description: "x".into(),
                ..set("key", None, Some(&["echo"]))
            };
            it.set_secret(described, LATER).map(drop)
        }),
        ("another admin token", |it| {
            it.admin_token = Bearer::admin().hash();
            Ok(())
        }),
        ("another scope", |it| {
            let token = it.tokens.values_mut().next().unwrap();
            token.scopes = [Scope::ALL[1]].into();
            Ok(())
        }),
        ("a lock", |it| {
            it.lock.serial = bailey_types::Serial(7);
            Ok(())
        }),
        ("a value in what is revoked", |it| {
            it.revoke(&"key".parse().unwrap(), LATER)?;
            it.secrets.values_mut().next().unwrap().value = value("x");
            Ok(())
        }),
        ("a name to use again", |it| {
            it.secrets.clear();
            Ok(())
        }),
    ];
    for (what, change) in giving {
        assert!(!takes(change), "{what}");
    }
    // Nor does anything that was revoked come back.
    let mut before = document();
    before.revoke_principal(&principal("greet")).unwrap();
    before.revoke(&"key".parse().unwrap(), LATER).unwrap();
    assert!(!document().only_takes_from(&before));
}
