use super::*;

fn stack() -> StackId {
    "home".parse().unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        size: 7,
        root: Sha256([9; 32]),
    }
}

#[test]
fn a_checkpoint_has_the_three_lines_of_the_specification() {
    let key = SigningKey::generate();
    let note = String::from_utf8(sign(checkpoint(), &stack(), &key).unwrap()).unwrap();
    let lines: Vec<_> = note.lines().collect();
    assert_eq!(lines[0], "bailey/home/audit");
    assert_eq!(lines[1], "7");
    assert_eq!(lines[2], "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=");
    assert_eq!(lines[3], "");
    assert!(lines[4].starts_with("— bailey/home/audit "), "{note}");
    assert_eq!(
        read_checkpoint(note.as_bytes(), &stack(), &key.verifying_key()),
        Ok(checkpoint())
    );
}

#[test]
fn only_audits_own_signature_on_its_own_log_counts() {
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    let note = sign(checkpoint(), &stack(), &key).unwrap();
    assert!(read_checkpoint(&note, &stack(), &other.verifying_key()).is_err());
    assert!(read_checkpoint(&note, &"away".parse().unwrap(), &key.verifying_key()).is_err());
    let changed = String::from_utf8(note)
        .unwrap()
        .replacen("\n7\n", "\n8\n", 1);
    assert!(read_checkpoint(changed.as_bytes(), &stack(), &key.verifying_key()).is_err());
}

#[test]
fn a_cosignature_covers_its_time_and_is_not_a_plain_signature() {
    let (audit, policy) = (SigningKey::generate(), SigningKey::generate());
    let note = sign(checkpoint(), &stack(), &audit).unwrap();
    let both = cosign(
        &note,
        &stack(),
        Service::Policy,
        &policy,
        Timestamp(1_700_000_000_999),
    )
    .unwrap();
    let keys = (audit.verifying_key(), policy.verifying_key());
    let read = |note: &[u8], service| read_cosigned(note, &stack(), &keys.0, service, &keys.1);
    assert_eq!(
        read(&both, Service::Policy),
        Ok((checkpoint(), Timestamp(1_700_000_000_000)))
    );
    assert!(read(&both, Service::Broker).is_err());
    assert!(read(&note, Service::Policy).is_err());
}
