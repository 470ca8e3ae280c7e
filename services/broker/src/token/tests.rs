use bailey_types::Sha256;

use super::*;
use crate::vault::Nonce;

fn vault(tokens: &[(&str, &Bearer, &str)]) -> Document {
    let admin = Bearer::admin();
    let mut document = Document::genesis("test".parse().unwrap(), admin.hash(), Nonce::generate());
    for (name, bearer, scopes) in tokens {
        let scopes = scopes
            .split(' ')
            .map(|scope| scope.parse().unwrap())
            .collect();
        document
            .add_token(name.parse().unwrap(), bearer.hash(), scopes, Timestamp(1))
            .unwrap();
    }
    document
}

fn scopes(names: &[&str]) -> BTreeSet<Scope> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn each_token_is_recognised_as_itself() {
    let (a, b) = (Bearer::api(), Bearer::api());
    let document = vault(&[("a", &a, "*"), ("b", &b, "jobs:ro")]);
    assert_eq!(
        verify(&document, &a, &scopes(&[])).unwrap().name.as_str(),
        "a"
    );
    assert_eq!(
        verify(&document, &b, &scopes(&[])).unwrap().name.as_str(),
        "b"
    );
}

#[test]
fn another_token_and_the_admin_token_are_unknown() {
    let (a, admin) = (Bearer::api(), Bearer::admin());
    let mut document = vault(&[("a", &a, "*")]);
    document.admin_token = admin.hash();
    assert!(is_admin(&document, &admin));
    assert!(!is_admin(&document, &a));
    for wrong in [admin, Bearer::api(), Bearer::from(String::new())] {
        assert!(matches!(
            verify(&document, &wrong, &scopes(&[])),
            Err(Error::Unknown)
        ));
    }
    assert!(matches!(
        verify(&vault(&[]), &a, &scopes(&[])),
        Err(Error::Unknown)
    ));
}

#[test]
fn a_scope_is_enough_if_it_covers_one_of_those_needed() {
    let token = Bearer::api();
    let document = vault(&[("ops", &token, "plugin:ro jobs:rw")]);
    assert!(verify(&document, &token, &scopes(&["jobs:logs:ro", "system:rw"])).is_ok());
    let error = verify(
        &document,
        &token,
        &scopes(&["plugin:rw", "plugin:invoke:ro"]),
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert_eq!(
        error.to_string(),
        "the token ops needs one of the scopes plugin:rw, plugin:invoke:ro"
    );
}

#[test]
fn an_origin_names_the_token_and_its_expanded_scopes() {
    let token = Bearer::api();
    let document = vault(&[("ops", &token, "plugin:rw")]);
    let known = verify(&document, &token, &scopes(&["plugin:rw"])).unwrap();
    let key = SigningKey::generate();
    let asked = Asked::Call {
        plugin: "echo".parse().unwrap(),
        command: "poll".parse().unwrap(),
        payload_sha256: Sha256::of(b"{}"),
    };
    let signed = origin(&known, asked.clone(), &key, Timestamp(7)).unwrap();
    let origin = bailey_trust::verify::<Origin>(&signed, &key.verifying_key())
        .unwrap()
        .statement;
    assert_eq!(
        (origin.principal.as_str(), origin.issued_at),
        ("token:ops", Timestamp(7))
    );
    assert_eq!(origin.asked, asked);
    assert!(origin.scopes.contains(&"plugin:invoke:ro".to_owned()));
}

#[test]
fn tokens_are_long_random_and_unprintable() {
    let token = Bearer::api();
    assert!(token.expose().starts_with("bly_"));
    assert_eq!(token.expose().len(), 4 + 43);
    assert_ne!(token.expose(), Bearer::api().expose());
    assert!(!format!("{token:?}").contains("bly_"));
}
