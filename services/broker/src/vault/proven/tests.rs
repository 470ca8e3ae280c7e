use bailey_types::Timestamp;
use serde_json::Map;

use super::*;
use crate::faults::{self, STEPS};
use crate::vault::tests::{Fixture, principal};
use crate::vault::{PrincipalKind, State, Vault};

fn kept(revision: u64) -> Mark {
    Mark {
        kind: Mark::KEPT.to_owned(),
        revision,
        of: revision,
        at: None,
    }
}

/// The vault `before` after these deeds, each a change that waits for the log.
fn after(before: &Document, deeds: &[Deed]) -> Document {
    let mut document = before.clone();
    for (at, deed) in (1..).zip(deeds) {
        document.did_offline(*deed, Timestamp(at));
    }
    document
}

fn at(fixture: &Fixture, revision: u64) -> Document {
    Document {
        revision,
        ..fixture.genesis()
    }
}

#[test]
fn a_vault_is_as_late_as_what_the_log_knows_of_it() {
    let fixture = Fixture::new();
    let five = at(&fixture, 5);
    assert!(five.continues(&kept(5)) && five.continues(&kept(4)));
    assert!(!five.continues(&kept(6)));
    // What was done without the log does not make an earlier vault a later one,
    let revoked = after(&five, &[Deed::TokenRevoked, Deed::SecretRevoked]);
    assert_eq!((revoked.revision, revoked.told_until()), (7, 5));
    assert!(revoked.continues(&kept(5)));
    assert!(!revoked.continues(&kept(6)) && !revoked.continues(&kept(7)));
    // nor is it a change that it was opened again, however long that waits.
    let unsealed = after(&five, &[Deed::Unsealed]);
    assert_eq!((unsealed.revision, unsealed.told_until()), (5, 5));
    assert!(unsealed.continues(&kept(5)) && !unsealed.continues(&kept(6)));
    // Several parts of one change have one revision.
    let mut parts = Document {
        revision: 6,
        ..five.clone()
    };
    for _ in 0..2 {
        parts.tell_later(Deed::SecretRevoked, Map::new(), Timestamp(1));
    }
    assert!(parts.continues(&kept(5)) && !parts.continues(&kept(6)));
}

#[test]
fn a_deed_that_waits_and_is_the_last_that_the_log_has_is_this_vaults() {
    let fixture = Fixture::new();
    let copy = after(&at(&fixture, 3), &[Deed::Restored]);
    assert_eq!(copy.takeovers().len(), 1);
    let deed = copy.unrecorded.first().unwrap();
    let told = Mark {
        kind: "vault.restored".into(),
        revision: 4,
        of: 4,
        at: Some(deed.at.to_rfc3339()),
    };
    assert!(told.is_of(deed) && copy.continues(&told));
    // Another of the same kind is another.
    let other = Mark {
        at: Some(Timestamp(9).to_rfc3339()),
        ..told
    };
    assert!(!other.is_of(deed) && !copy.continues(&other));
    assert!(
        after(&at(&fixture, 3), &[Deed::KeyRotated])
            .takeovers()
            .is_empty()
    );
}

/// What is told of a revocation: the vault that forgot it, and the one in which it waits, are as late; the one that never knew it is not.
#[test]
fn what_is_kept_of_a_deed_that_waits_is_known_by_it() {
    let fixture = Fixture::new();
    let five = at(&fixture, 5);
    let mut waits = after(&five, &[Deed::TokenRevoked]);
    let deed = waits.unrecorded.first().unwrap().clone();
    let told = Mark {
        revision: waits.told_without(1),
        of: deed.revision,
        at: Some(deed.at.to_rfc3339()),
        ..kept(0)
    };
    assert_eq!((told.revision, told.of), (6, 6));
    assert!(waits.continues(&told) && !five.continues(&told));
    waits.recorded(&[deed]);
    assert!(waits.continues(&told));
    // Another revocation on top of the earlier vault has the number, and is another.
    let mut other = five.clone();
    other.did_offline(Deed::TokenRevoked, Timestamp(9));
    assert!(!other.continues(&told));
    // Of several that wait, each stands for those before it.
    let two = after(&five, &[Deed::TokenRevoked, Deed::SecretRevoked]);
    assert_eq!((two.told_without(1), two.told_without(2)), (6, 7));
    // What was numbered anew after it was put in place is above all that it replaced.
    let mut raised = after(&at(&fixture, 3), &[Deed::Restored]);
    raised.revision = 51;
    assert_eq!(raised.told_without(1), 51);
}

#[test]
fn an_earlier_vault_gives_nothing_until_another_file_is_there() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let vault = fixture.unproven();
    let document = vault.unproven().unwrap();
    assert!(matches!(vault.state(), State::Sealed(_)) && vault.proven().is_err());
    let path = fixture.path("vault.age");
    let before = std::fs::read(&path).unwrap();
    vault.settle(&document, Verdict::Earlier { known: 9 });
    let State::Sealed(reason) = vault.state() else {
        panic!("it is open");
    };
    assert!(
        reason.contains("the log has revision 9, and this is 2") && reason.contains("vault adopt"),
        "{reason}"
    );
    // Looking at the same file again does not open it, and nothing is written.
    assert!(!vault.unseal());
    assert!(vault.document().is_err() && vault.change(|_| Ok(())).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // Whatever else is there is compared anew.
    let other = after(&document, &[Deed::Restored]);
    let key = fixture.key.clone();
    let sealed = crate::vault::content::seal(
        &other,
        &[key.recipient()],
        &[crate::vault::content::Author::of(&key)],
    );
    std::fs::write(&path, sealed.unwrap()).unwrap();
    assert!(vault.unseal());
    let document = vault.unproven().unwrap();
    // What the operator put there counts from then on, above all that the log has.
    vault.settle(&document, Verdict::Another { after: 9 });
    assert_eq!(vault.proven().unwrap().revision, 10);
    drop(vault);
    assert_eq!(fixture.unproven().document().unwrap().revision, 10);
}

#[test]
fn what_is_said_of_a_vault_that_was_replaced_meanwhile_is_not_said_of_the_next() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let vault = fixture.unproven();
    let other = at(&fixture, 7);
    vault.settle(&other, Verdict::Present);
    assert!(vault.unproven().is_some());
    // What was taken from it since is the same vault.
    let document = vault.unproven().unwrap();
    vault.did_offline(Deed::TokenRevoked, Timestamp(1)).unwrap();
    vault.settle(&document, Verdict::Present);
    assert!(matches!(vault.state(), State::Open(_)));
}

fn register(vault: &Vault) {
    vault
        .change(|document| document.register(principal("later"), PrincipalKind::Plugin))
        .unwrap();
}

/// What a child does with a vault of which the log knows everything.
#[test]
fn child() {
    let Some(folder) = faults::child() else {
        return; // Run by the others only.
    };
    let _scenario = fail::FailScenario::setup();
    let vault = Fixture::in_folder(&folder).open();
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("changes") => register(&vault),
        Some("revokes") => vault.did_offline(Deed::TokenRevoked, Timestamp(1)).unwrap(),
        _ => {
            let waiting = vault.document().unwrap().unrecorded.clone();
            vault.recorded(&waiting).unwrap();
        }
    }
}

/// The log has the record of the change and not that it was kept; or had what waits told, and not that it was forgotten.
#[test]
fn killed_at_any_step_no_vault_is_taken_for_an_earlier_one() {
    for what in ["changes", "revokes", "forgets"] {
        for step in STEPS {
            let fixture = Fixture::named(what);
            let vault = fixture.filled();
            let log = kept(vault.document().unwrap().revision);
            if what == "forgets" {
                vault.did_offline(Deed::TokenRevoked, Timestamp(1)).unwrap();
            }
            drop(vault);
            let faults = format!("vault.age/{step}=return(kill)");
            let ended = faults::run("vault::proven::tests::child", &fixture.path(""), &faults);
            assert!(ended.killed, "{what}: {step} was not reached");
            let found = fixture.open().document().unwrap();
            assert!(found.continues(&log), "{what} {step}: {found:?}");
        }
    }
}
