use super::*;

fn origin() -> Origin {
    Origin {
        id: OriginId::new(),
        principal: "token:ops".into(),
        asked: Asked::Call {
            plugin: "echo".parse().unwrap(),
            command: "poll".parse().unwrap(),
            payload_sha256: Sha256::of(b"{}"),
        },
        scopes: vec!["plugin:rw".into()],
        issued_at: Timestamp(1),
    }
}

#[test]
fn a_statement_comes_back_as_it_was_signed() {
    let key = SigningKey::generate();
    let origin = origin();
    let signed = sign(&origin, &key).unwrap();
    assert_eq!(
        verify::<Origin>(&signed, &key.verifying_key())
            .unwrap()
            .statement,
        origin
    );
}

#[test]
fn one_changed_byte_is_a_bad_signature() {
    let key = SigningKey::generate();
    let mut signed = sign(&origin(), &key).unwrap();
    let mut payload = signed.payload.to_vec();
    payload[10] ^= 1;
    signed.payload = payload.into();
    let error = verify::<Origin>(&signed, &key.verifying_key()).unwrap_err();
    assert_eq!(error, StatementError::BadSignature("origin"));
}

#[test]
fn another_key_or_another_kind_is_a_bad_signature() {
    let key = SigningKey::generate();
    let signed = sign(&origin(), &key).unwrap();
    assert!(verify::<Origin>(&signed, &SigningKey::generate().verifying_key()).is_err());
    let error = verify::<Decision>(&signed, &key.verifying_key()).unwrap_err();
    assert_eq!(error, StatementError::BadSignature("decision"));
}

#[test]
fn a_signed_statement_with_an_unknown_field_is_malformed() {
    let key = SigningKey::generate();
    let mut value = serde_json::to_value(origin()).unwrap();
    value["extra"] = true.into();
    let payload = serde_json::to_vec(&value).unwrap();
    let signature = key.sign(&message::<Origin>(&payload)).to_vec();
    let signed = Signed {
        payload: payload.into(),
        signature: signature.into(),
    };
    let error = verify::<Origin>(&signed, &key.verifying_key()).unwrap_err();
    assert!(matches!(error, StatementError::Malformed { .. }), "{error}");
}

#[test]
fn validity_has_a_start_an_end_and_a_greatest_length() {
    let at = |s: i64| Timestamp(s * 1000);
    assert!(check_time("ticket", at(100), at(160), at(130)).is_ok());
    assert!(check_time("ticket", at(100), at(160), at(161)).is_err());
    assert!(check_time("ticket", at(100), at(160), at(98)).is_err());
    assert!(check_time("ticket", at(100), at(161), at(130)).is_err());
}

fn pool_grant(expires_at: Timestamp) -> PoolGrant {
    PoolGrant {
        id: GrantId::new(),
        plugin: "echo".parse().unwrap(),
        image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
        lock_serial: Serial(1),
        cells: 2,
        issued_at: Timestamp(1000),
        expires_at,
    }
}

#[test]
fn a_pool_grant_is_good_for_an_hour_and_for_nothing_else() {
    let end = Timestamp(1000).plus(PoolGrant::MAX_VALIDITY);
    assert!(pool_grant(end).check_time(end).is_ok());
    assert!(pool_grant(end).check_time(Timestamp(end.0 + 1)).is_err());
    let longer = pool_grant(Timestamp(end.0 + 1));
    assert!(longer.check_time(Timestamp(2000)).is_err());
    let key = SigningKey::generate();
    let signed = sign(&pool_grant(end), &key).unwrap();
    assert!(verify::<PoolGrant>(&signed, &key.verifying_key()).is_ok());
    let error = verify::<Decision>(&signed, &key.verifying_key()).unwrap_err();
    assert_eq!(error, StatementError::BadSignature("decision"));
}
