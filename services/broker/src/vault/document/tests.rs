//! Every rule of reference/ductile 7.1, with its permitted neighbour.

use std::collections::BTreeSet;

use bailey_types::{Blake3, PrincipalName, SecretName, Timestamp};
use zeroize::Zeroizing;

use super::*;

fn principal(name: &str) -> PrincipalName {
    name.parse().unwrap()
}

fn secret(name: &str) -> SecretName {
    name.parse().unwrap()
}

fn names(list: &[&str]) -> BTreeSet<PrincipalName> {
    list.iter().map(|name| principal(name)).collect()
}

fn value(text: &str) -> Value {
    Value::from(Zeroizing::new(text.to_owned()))
}

/// A new manual secret, or with neither value nor grants a change that changes nothing.
fn asked(name: &str, text: Option<&str>, grants: Option<&[&str]>) -> SetSecret {
    SetSecret {
        name: secret(name),
        value: text.map(value),
        grants: grants.map(names),
        pattern: None,
        recipe: None,
        description: String::new(),
    }
}

fn auto(name: &str, grants: &[&str]) -> SetSecret {
    SetSecret {
        pattern: Some(Pattern::Auto),
        ..asked(name, None, Some(grants))
    }
}

/// `manual` and `auto`, both granted to the plugin `greet`; the plugin `echo` has nothing.
fn document() -> Document {
    let nonce = Nonce::generate();
    let mut document = Document::genesis("test".parse().unwrap(), Blake3([0; 32]), nonce);
    for name in ["greet", "echo"] {
        assert_eq!(
            document.register(principal(name), PrincipalKind::Plugin),
            Ok(true)
        );
    }
    let manual = asked("manual", Some("first"), Some(&["greet"]));
    assert_eq!(
        document.set_secret(manual, Timestamp(1)),
        Ok(SetOutcome::Set)
    );
    let made = document.set_secret(auto("auto", &["greet"]), Timestamp(1));
    assert_eq!(made, Ok(SetOutcome::Set));
    document
}

fn text<'a>(document: &'a Document, name: &str) -> &'a str {
    document.secrets[&secret(name)].value.expose()
}

fn grants(document: &Document, name: &str) -> BTreeSet<PrincipalName> {
    document.secrets[&secret(name)]
        .authorized_principals
        .clone()
}

#[test]
fn a_grant_needs_a_registered_principal() {
    let mut document = document();
    for name in ["new", "manual"] {
        let value = (name == "new").then_some("x");
        let refused = document.set_secret(asked(name, value, Some(&["nobody"])), Timestamp(2));
        assert_eq!(refused, Err(Refused::NoSuchPrincipal(principal("nobody"))));
        assert!(
            document
                .set_secret(asked(name, value, Some(&["echo"])), Timestamp(2))
                .is_ok()
        );
    }
    assert_eq!(grants(&document, "manual"), names(&["echo"]));
}

#[test]
fn set_keeps_clears_or_replaces_grants_and_leaves_the_value() {
    let mut document = document();
    for (given, expected) in [
        (None, &["greet"][..]),
        (Some(&["echo", "greet"][..]), &["echo", "greet"][..]),
        (Some(&["echo"][..]), &["echo"][..]),
        (Some(&[][..]), &[][..]),
        (None, &[][..]),
    ] {
        let set = document.set_secret(asked("manual", None, given), Timestamp(2));
        assert_eq!(set, Ok(SetOutcome::Changed));
        assert_eq!(grants(&document, "manual"), names(expected));
        assert_eq!(text(&document, "manual"), "first");
    }
    assert_eq!(document.secrets[&secret("manual")].roll_count, 0);
}

#[test]
fn set_never_changes_a_value_not_even_to_itself() {
    let mut document = document();
    for text in ["first", "second"] {
        let refused = document.set_secret(asked("manual", Some(text), None), Timestamp(2));
        assert_eq!(refused, Err(Refused::ValueExists(secret("manual"))));
    }
    assert_eq!(
        document.roll(&secret("manual"), Some(value("second")), Timestamp(3)),
        Ok(1)
    );
    assert_eq!(text(&document, "manual"), "second");
    let rolled = &document.secrets[&secret("manual")];
    assert_eq!(
        (rolled.created_at, rolled.updated_at),
        (Timestamp(1), Timestamp(3))
    );
}

#[test]
fn what_set_is_not_told_stays() {
    let mut document = document();
    let described = SetSecret {
        description: "for the weather".into(),
        ..asked("manual", None, None)
    };
    document.set_secret(described, Timestamp(2)).unwrap();
    document
        .set_secret(asked("manual", None, None), Timestamp(9))
        .unwrap();
    let kept = &document.secrets[&secret("manual")];
    assert_eq!(
        (kept.description.as_str(), kept.updated_at),
        ("for the weather", Timestamp(2))
    );
    let long = SetSecret {
        description: "x".repeat(513),
        ..asked("manual", None, None)
    };
    assert_eq!(
        document.set_secret(long, Timestamp(3)),
        Err(Refused::DescriptionTooLong)
    );
}

#[test]
fn a_manual_secret_is_never_empty() {
    let mut document = document();
    for text in [None, Some("")] {
        let refused = document.set_secret(asked("new", text, None), Timestamp(2));
        assert_eq!(refused, Err(Refused::NoValue));
        let refused = document.roll(&secret("manual"), text.map(value), Timestamp(2));
        assert_eq!(refused, Err(Refused::NoValue));
    }
    assert_eq!(text(&document, "manual"), "first");
    assert!(
        document
            .set_secret(asked("new", Some("x"), None), Timestamp(2))
            .is_ok()
    );
}

#[test]
fn the_broker_makes_the_values_of_an_automatic_secret_and_takes_none() {
    let mut document = document();
    let with_value = SetSecret {
        value: Some(value("mine")),
        ..auto("new", &[])
    };
    let refused = document.set_secret(with_value, Timestamp(2));
    assert_eq!(refused, Err(Refused::ValueNotWanted(secret("new"))));
    let refused = document.roll(&secret("auto"), Some(value("mine")), Timestamp(2));
    assert_eq!(refused, Err(Refused::ValueNotWanted(secret("auto"))));
    let before = text(&document, "auto").to_owned();
    assert_eq!(before.len(), 32);
    assert_eq!(document.roll(&secret("auto"), None, Timestamp(2)), Ok(1));
    assert_eq!(document.roll(&secret("auto"), None, Timestamp(2)), Ok(2));
    assert_ne!(text(&document, "auto"), before);
}

#[test]
fn length_and_alphabet_are_remembered() {
    let mut document = document();
    let hex = |length, alphabet| SetSecret {
        recipe: Some(RecipeChange::new(length, alphabet).unwrap()),
        ..auto("hex", &[])
    };
    let first = hex(Some(32), Some(Alphabet::Hex));
    document.set_secret(first, Timestamp(2)).unwrap();
    // A length alone leaves the alphabet as it is; what is there is not changed by either.
    document
        .set_secret(hex(Some(64), None), Timestamp(2))
        .unwrap();
    assert_eq!(text(&document, "hex").len(), 32);
    document.roll(&secret("hex"), None, Timestamp(2)).unwrap();
    for _ in 0..3 {
        let made = text(&document, "hex");
        assert!(
            made.len() == 64 && made.bytes().all(|b| b.is_ascii_hexdigit()),
            "{}",
            made.len()
        );
        document.roll(&secret("hex"), None, Timestamp(3)).unwrap();
    }
    // Who makes the values can change; the value stays until it is rolled.
    let pattern = |pattern| SetSecret {
        pattern: Some(pattern),
        ..asked("hex", None, None)
    };
    document
        .set_secret(pattern(Pattern::Manual), Timestamp(4))
        .unwrap();
    assert_eq!(
        document.roll(&secret("hex"), None, Timestamp(4)),
        Err(Refused::NoValue)
    );
    assert!(
        document
            .roll(&secret("hex"), Some(value("mine")), Timestamp(4))
            .is_ok()
    );
    document
        .set_secret(pattern(Pattern::Auto), Timestamp(5))
        .unwrap();
    assert_eq!(text(&document, "hex"), "mine");
    document.roll(&secret("hex"), None, Timestamp(5)).unwrap();
    assert_eq!(text(&document, "hex").len(), 64);
}

#[test]
fn revoked_is_for_ever_and_the_value_is_gone() {
    let mut document = document();
    let name = secret("manual");
    assert_eq!(document.revoke(&name, Timestamp(5)), Ok(true));
    let revoked = document.secrets[&name].clone();
    assert_eq!(
        (revoked.value.expose(), revoked.status),
        ("", Status::Revoked)
    );
    assert_eq!(revoked.revoked_at, Some(Timestamp(5)));
    // Who could have had it stays known: each delivery says that it is withheld.
    assert_eq!(grants(&document, "manual"), names(&["greet"]));
    assert_eq!(document.revoke(&name, Timestamp(6)), Ok(false));
    let refused = Err(Refused::SecretRevoked(name.clone()));
    assert_eq!(
        document.set_secret(asked("manual", Some("x"), None), Timestamp(6)),
        refused
    );
    assert_eq!(
        document.set_secret(asked("manual", None, Some(&[])), Timestamp(6)),
        refused
    );
    let refused = document.roll(&name, Some(value("x")), Timestamp(6));
    assert_eq!(refused, Err(Refused::SecretRevoked(name.clone())));
    assert_eq!(document.secrets[&name], revoked);
    assert!(document.roll(&secret("auto"), None, Timestamp(6)).is_ok());
}

#[test]
fn what_was_never_set_is_neither_rolled_nor_revoked() {
    let mut document = document();
    let missing = secret("missing");
    let refused = || Refused::NoSuchSecret {
        name: missing.clone(),
        near: Vec::new(),
    };
    assert_eq!(
        document.roll(&missing, Some(value("x")), Timestamp(2)),
        Err(refused())
    );
    assert_eq!(document.revoke(&missing, Timestamp(2)), Err(refused()));
}

#[test]
fn the_admin_token_and_core_are_not_the_operators_to_change() {
    let mut document = document();
    let before = document.clone();
    let reserved = secret("core-admin-token");
    let refused = Refused::Reserved("core-admin-token".into());
    let set = document.set_secret(asked("core-admin-token", Some("x"), None), Timestamp(2));
    assert_eq!(set.as_ref().err(), Some(&refused));
    assert_eq!(
        document
            .roll(&reserved, Some(value("x")), Timestamp(2))
            .as_ref()
            .err(),
        Some(&refused)
    );
    assert_eq!(
        document.revoke(&reserved, Timestamp(2)).as_ref().err(),
        Some(&refused)
    );
    let (core, refused) = (principal("core"), Refused::Reserved("core".into()));
    let registered = document.register(core.clone(), PrincipalKind::Gateway);
    assert_eq!(registered.as_ref().err(), Some(&refused));
    assert_eq!(
        document.revoke_principal(&core).as_ref().err(),
        Some(&refused)
    );
    assert_eq!(
        document.purge_principal(&core, Timestamp(2)).as_ref().err(),
        Some(&refused)
    );
    assert_eq!(document, before);
    assert!(
        document
            .set_secret(asked("shared", Some("x"), Some(&["core"])), Timestamp(2))
            .is_ok()
    );
}

#[test]
fn a_principal_is_registered_once_and_as_one_thing() {
    let mut document = document();
    let greet = principal("greet");
    assert_eq!(
        document.register(greet.clone(), PrincipalKind::Plugin),
        Ok(false)
    );
    let differs = document.register(greet.clone(), PrincipalKind::Consumer);
    assert!(matches!(differs, Err(Refused::PrincipalDiffers { .. })));
    assert_eq!(document.revoke_principal(&greet), Ok(true));
    assert_eq!(document.revoke_principal(&greet), Ok(false));
    let again = document.register(greet, PrincipalKind::Plugin);
    assert!(matches!(
        again,
        Err(Refused::PrincipalDiffers {
            status: Status::Revoked,
            ..
        })
    ));
    assert_eq!(
        document.register(principal("phone"), PrincipalKind::Consumer),
        Ok(true)
    );
}

#[test]
fn purging_takes_back_every_grant_and_frees_the_name_without_them() {
    let mut document = document();
    let greet = principal("greet");
    document
        .set_secret(asked("other", Some("x"), Some(&["echo"])), Timestamp(2))
        .unwrap();
    let stripped = document.purge_principal(&greet, Timestamp(3)).unwrap();
    assert_eq!(stripped, [secret("auto"), secret("manual")]);
    assert!(!document.principals.contains_key(&greet));
    assert_eq!(grants(&document, "manual"), names(&[]));
    assert_eq!(grants(&document, "other"), names(&["echo"]));
    let refused = document.purge_principal(&greet, Timestamp(3));
    assert_eq!(refused, Err(Refused::NoSuchPrincipal(greet.clone())));
    assert_eq!(document.register(greet, PrincipalKind::Plugin), Ok(true));
    assert_eq!(grants(&document, "manual"), names(&[]));
}

#[test]
fn rolling_a_principal_rolls_what_the_broker_makes_and_names_the_rest() {
    let mut document = document();
    document
        .set_secret(auto("second", &["greet", "echo"]), Timestamp(2))
        .unwrap();
    document
        .set_secret(auto("not-its", &["echo"]), Timestamp(2))
        .unwrap();
    document
        .set_secret(auto("revoked", &["greet"]), Timestamp(2))
        .unwrap();
    document.revoke(&secret("revoked"), Timestamp(2)).unwrap();
    document.revoke_principal(&principal("greet")).unwrap();
    let before = document.clone();
    let rolled = document
        .roll_principal(&principal("greet"), Timestamp(3))
        .unwrap();
    assert_eq!(rolled.rolled, [secret("auto"), secret("second")]);
    assert_eq!(rolled.skipped, [secret("manual")]);
    for name in ["auto", "second"] {
        assert_ne!(text(&document, name), text(&before, name));
        assert_eq!(document.secrets[&secret(name)].roll_count, 1);
    }
    for name in ["manual", "not-its", "revoked"] {
        assert_eq!(
            document.secrets[&secret(name)],
            before.secrets[&secret(name)]
        );
    }
    let nobody = principal("nobody");
    let refused = document.roll_principal(&nobody, Timestamp(3));
    assert_eq!(refused, Err(Refused::NoSuchPrincipal(nobody)));
}

#[test]
fn an_import_makes_what_can_be_made_and_says_why_of_the_rest() {
    let mut document = document();
    document.revoke(&secret("auto"), Timestamp(2)).unwrap();
    let asked = vec![
        asked("fresh", Some("x"), Some(&["echo"])),
        asked("manual", Some("other"), None),
        asked("auto", Some("other"), None),
        asked("ungranted", Some("x"), Some(&["nobody"])),
        asked("empty", None, None),
        asked("fresh", Some("twice"), None),
    ];
    let skipped: Vec<_> = document
        .import(asked, &BTreeMap::new(), Timestamp(3))
        .0
        .into_iter()
        .map(|imported| imported.skipped)
        .collect();
    let expected = [
        None,
        Some(Skipped::Itself(Refused::ValueExists(secret("manual")))),
        Some(Skipped::Itself(Refused::SecretRevoked(secret("auto")))),
        Some(Skipped::Principal(Refused::Stranger {
            name: principal("nobody"),
            near: Vec::new(),
        })),
        Some(Skipped::Itself(Refused::NoValue)),
        Some(Skipped::Itself(Refused::ValueExists(secret("fresh")))),
    ];
    assert_eq!(skipped, expected);
    assert_eq!(text(&document, "fresh"), "x");
    assert_eq!(text(&document, "manual"), "first");
}

#[test]
fn a_token_is_added_once_and_gone_when_it_is_revoked() {
    let mut document = document();
    let name: TokenName = "phone".parse().unwrap();
    let scopes = BTreeSet::from([Scope::JobsRo]);
    let add = |document: &mut Document| {
        document.add_token(name.clone(), Blake3([1; 32]), scopes.clone(), Timestamp(2))
    };
    assert_eq!(
        document.revoke_token(&name),
        Err(Refused::NoSuchToken(name.clone()))
    );
    assert_eq!(add(&mut document), Ok(()));
    assert_eq!(add(&mut document), Err(Refused::TokenExists(name.clone())));
    assert_eq!(document.revoke_token(&name), Ok(()));
    assert!(document.tokens.is_empty());
    assert_eq!(add(&mut document), Ok(()));
    let other = document.add_token(
        "x".parse().unwrap(),
        Blake3([2; 32]),
        BTreeSet::new(),
        Timestamp(2),
    );
    assert_eq!(other, Err(Refused::NoScopes));
}

#[test]
fn a_full_vault_takes_nothing_more_and_still_changes() {
    let mut document = document();
    for number in 0..Document::ENTRY_LIMIT - 2 {
        let asked = asked(&format!("s{number}"), Some("x"), None);
        document.set_secret(asked, Timestamp(2)).unwrap();
    }
    let refused = document.set_secret(asked("more", Some("x"), None), Timestamp(2));
    assert!(matches!(
        refused,
        Err(Refused::Full {
            what: "secrets",
            ..
        })
    ));
    assert!(
        document
            .set_secret(asked("manual", None, Some(&[])), Timestamp(2))
            .is_ok()
    );
}

#[test]
fn a_document_of_before_recipes_is_still_read() {
    let document = document();
    let mut old = serde_json::to_value(&document).unwrap();
    for secret in old["secrets"].as_object_mut().unwrap().values_mut() {
        secret.as_object_mut().unwrap().remove("recipe").unwrap();
    }
    assert_eq!(serde_json::from_value::<Document>(old).unwrap(), document);
}
