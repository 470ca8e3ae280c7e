use bailey_types::Timestamp;

use super::*;
use crate::token::Bearer;
use crate::vault::{Deed, Nonce, PrincipalKind, SetSecret, Value};

fn document() -> Document {
    let stack = "test".parse().unwrap();
    Document::genesis(stack, Bearer::admin().hash(), Nonce::generate())
}

fn written_by(key: &SealingKey, authors: &[&SealingKey]) -> Vec<u8> {
    let authors: Vec<_> = authors.iter().map(|key| Author::of(key)).collect();
    seal(&document(), &[key.recipient()], &authors).unwrap()
}

#[test]
fn a_vault_is_opened_if_a_holder_of_the_key_wrote_it_and_by_nobody_else() {
    let (own, next, other) = (
        SealingKey::generate(),
        SealingKey::generate(),
        SealingKey::generate(),
    );
    assert!(open(&written_by(&own, &[&own]), &own).is_ok());
    // While the age key is rotated, each of the two will do.
    assert!(open(&written_by(&own, &[&next, &own]), &own).is_ok());
    let foreign = open(&written_by(&own, &[&other]), &own).unwrap_err();
    assert!(foreign.contains("it is foreign"), "{foreign}");
    let nobodys = open(&written_by(&own, &[]), &own).unwrap_err();
    assert!(nobodys.contains("it is foreign"), "{nobodys}");
    let unmarked = serde_json::to_vec(&document()).unwrap();
    let unmarked = open(&own.recipient().seal(&unmarked).unwrap(), &own).unwrap_err();
    assert!(unmarked.contains("bailey vault adopt"), "{unmarked}");
}

#[test]
fn whoever_is_asked_sees_what_somebody_else_wrote() {
    let (own, other) = (SealingKey::generate(), SealingKey::generate());
    let origin = |blob: &[u8]| open_of_anybody(blob, &own).unwrap().1;
    assert_eq!(origin(&written_by(&own, &[&own])), Origin::Own);
    assert_eq!(origin(&written_by(&own, &[&other])), Origin::Foreign);
    let unmarked = serde_json::to_vec(&document()).unwrap();
    let unmarked = own.recipient().seal(&unmarked).unwrap();
    assert_eq!(origin(&unmarked), Origin::Unmarked);
}

#[test]
fn a_mark_is_of_every_byte_that_follows_it() {
    let own = SealingKey::generate();
    let mut document = document();
    let seal = |document: &Document| seal(document, &[own.recipient()], &[Author::of(&own)]);
    let first = own.open(&seal(&document).unwrap(), 1 << 20).unwrap();
    document.did_offline(Deed::Restored, Timestamp(1));
    let second = own.open(&seal(&document).unwrap(), 1 << 20).unwrap();
    let head = first.windows(2).position(|it| it == b"],").unwrap();
    // The head of one before the text of the other.
    let spliced = [&first[..head], &second[head..]].concat();
    let spliced = own.recipient().seal(&spliced).unwrap();
    assert!(open(&spliced, &own).unwrap_err().contains("it is foreign"));
    // Nothing stands between a head and its text that is not under the mark, nor is a second head looked at.
    let twice = [&first[..head + 2], &first[1..]].concat();
    assert!(open(&own.recipient().seal(&twice).unwrap(), &own).is_err());
    for at in head + 2..first.len() {
        let mut changed = first.to_vec();
        changed[at] ^= 1;
        let changed = own.recipient().seal(&changed).unwrap();
        assert!(open(&changed, &own).is_err(), "byte {at}");
    }
}

/// As somebody writes one who knows the public key, the stack's name and this source.
#[test]
fn a_vault_that_is_written_by_hand_is_foreign() {
    let own = SealingKey::generate();
    let zeros = "00".repeat(32);
    let nonce = format!("{}=", "A".repeat(43));
    let forged = format!(
        r#"{{"author":["{zeros}"],"version":1,"stack":"test","admin_token":"{zeros}","nonce":"{nonce}","secrets":{{}},"principals":{{}},"tokens":{{}},"lock":{{"serial":0,"next_uid":20000,"uids":{{}}}}}}"#
    );
    let refused = open(&own.recipient().seal(forged.as_bytes()).unwrap(), &own).unwrap_err();
    assert!(refused.contains("it is foreign"), "{refused}");
}

/// What is revoked while the audit log is away waits in the vault, and a vault to which nothing can be added must have room for it.
#[test]
fn a_full_vault_has_room_for_what_waits_for_the_log() {
    let mut full = document();
    let text_bytes = serde_json::to_vec(&full).unwrap().len();
    let room = Vault::PLAINTEXT_LIMIT_BYTES - text_bytes - 1000;
    let (name, value) = ("large".parse().unwrap(), "x".repeat(room / 4 * 3));
    let asked = SetSecret {
        name,
        value: Some(Value::from(Zeroizing::new(value))),
        grants: None,
        pattern: None,
        recipe: None,
        description: String::new(),
    };
    full.set_secret(asked, Timestamp(1)).unwrap();
    let register = |document: &mut Document, names: u32| {
        for n in 0..names {
            let name = format!("principal-{n}").parse().unwrap();
            document.register(name, PrincipalKind::Plugin).unwrap();
        }
    };
    let mut more = full.clone();
    register(&mut more, 40);
    assert!(matches!(text(&more), Err(Error::TooLarge)));
    // The permitted neighbour.
    more.did_offline(Deed::TokenRevoked, Timestamp(1));
    assert!(text(&more).is_ok());
}
