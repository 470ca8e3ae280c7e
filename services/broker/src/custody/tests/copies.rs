//! A vault brought back from a copy.

use super::*;

/// `identity` as it stands in its file's last line, then `copy`.
fn input(identity: Option<&SealingKey>, copy: &[u8]) -> Vec<u8> {
    let text = identity.map(SealingKey::to_file_text);
    let line = text
        .as_ref()
        .and_then(|text| text.lines().last())
        .unwrap_or_default();
    [line.as_bytes(), b"\n", copy].concat()
}

#[test]
fn on_new_hardware_a_paper_key_alone_brings_the_vault_back() {
    // Given a vault that a paper key can open, and nothing else of its stack
    let (lost, paper) = (Home::new(), SealingKey::generate());
    let own = lost.trust().vault;
    let add = |document: &mut Document| {
        Ok(document.add_recipient(&own, paper.recipient(), "safe".into(), Timestamp(1))?)
    };
    lost.vault().change(add).unwrap();
    let copy = lost.blob();
    drop(lost);
    // when it is restored into a stack of new roots
    let home = Home::without_vault("test");
    home.restore(&input(Some(&paper), &copy), false).unwrap();
    // then that stack's own key opens it, the paper key still does, and the operator can command it again.
    let document = home.vault().document().unwrap();
    assert!(holds_the_canary(&document));
    assert!(content::open(&home.blob(), &paper).is_ok());
    home.run(&Verb::RotateAdminToken).unwrap();
    let deeds: Vec<_> = home
        .vault()
        .document()
        .unwrap()
        .unrecorded
        .iter()
        .map(|it| it.deed)
        .collect();
    assert_eq!(deeds, [Deed::Restored, Deed::AdminTokenRotated]);
}

#[test]
fn an_export_is_read_by_whom_it_was_made_for_and_restores_as_the_vault_does() {
    let (home, reader) = (Home::new(), SealingKey::generate());
    let document = home.vault().document().unwrap();
    let export = content::seal(&document, &[reader.recipient()]).unwrap();
    assert!(content::open(&export, &home.key()).is_err());
    let other = Home::without_vault("test");
    let refused = other.restore(&input(None, &export), false).unwrap_err();
    assert!(
        refused.to_string().contains("the copy cannot be used"),
        "{refused}"
    );
    other
        .restore(&input(Some(&reader), &export), false)
        .unwrap();
    assert!(holds_the_canary(&other.vault().document().unwrap()));
}

#[test]
fn a_copy_replaces_a_vault_only_when_told_to_and_never_takes_back_what_was_locked() {
    let home = Home::new();
    let copy = home.blob();
    let later = home.vault();
    later
        .change(|document| {
            keep(document, "later", "x");
            document.lock.serial = bailey_types::Serial(9);
            Ok(())
        })
        .unwrap();
    drop(later);
    let before = home.files();
    let refused = home.restore(&input(None, &copy), false).unwrap_err();
    assert!(refused.to_string().contains("--replace"), "{refused}");
    assert_eq!(home.files(), before);
    home.restore(&input(None, &copy), true).unwrap();
    let document = home.vault().document().unwrap();
    assert_eq!(document.secrets.len(), 1);
    assert_eq!(document.lock.serial, bailey_types::Serial(9));
}

#[test]
fn what_is_no_copy_of_this_stacks_vault_is_not_restored() {
    let home = Home::without_vault("test");
    let (key, foreign) = (home.key(), Home::without_vault("other"));
    let other = Document::genesis(
        "other".parse().unwrap(),
        Bearer::admin().hash(),
        Nonce::generate(),
    );
    drop(foreign);
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("nothing", Vec::new(), "holds no copy"),
        ("no copy", input(None, b""), "cannot be used"),
        (
            "no identity",
            b"hunter2\nx".to_vec(),
            "does not hold an age identity",
        ),
        (
            "not a vault",
            input(None, &key.recipient().seal(b"{}").unwrap()),
            "cannot be used",
        ),
        (
            "of another stack",
            input(None, &content::seal(&other, &[key.recipient()]).unwrap()),
            "belongs to the stack other",
        ),
    ];
    for (what, input, reason) in cases {
        let refused = format!("{:#}", home.restore(&input, false).unwrap_err());
        assert!(refused.contains(reason), "{what}: {refused}");
        assert!(
            !home.places().vault_dir.join("vault.age").exists(),
            "{what}"
        );
    }
}
