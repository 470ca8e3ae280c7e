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
    assert!(content::open_of_anybody(&home.blob(), &paper).is_ok());
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
    let export = home.vault().export(&[reader.recipient()]).unwrap();
    assert!(content::open_of_anybody(&export, &home.key()).is_err());
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
            input(
                None,
                &content::seal(&other, &[key.recipient()], &[]).unwrap(),
            ),
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

/// What a restore would bring back and lose, by name; and that saying so changes nothing.
#[test]
fn a_restore_says_what_it_revives_before_it_does_it() {
    // Given a copy, and what was revoked, changed and made since
    let home = Home::new();
    let prepared = home.vault();
    let (principal, token) = (
        |name: &str| name.parse().unwrap(),
        |name: &str| name.parse().unwrap(),
    );
    let prepare = |document: &mut Document| {
        for name in ["kept", "gone", "purged"] {
            document.register(principal(name), PrincipalKind::Plugin)?;
        }
        for name in ["leaked", "rolled", "shared", "wider", "back"] {
            keep(document, name, CANARY);
        }
        document.revoke(&"back".parse().unwrap(), Timestamp(1))?;
        document.register(principal("out"), PrincipalKind::Plugin)?;
        document.revoke_principal(&principal("out"))?;
        for name in ["demo", "shared"] {
            let secret = document.secrets.get_mut(&name.parse().unwrap()).unwrap();
            secret.authorized_principals = [principal("kept")].into();
        }
        let hash = Bearer::api().hash();
        document.add_token(token("phone"), hash, [Scope::ALL[0]].into(), Timestamp(1))
    };
    prepared.change(prepare).unwrap();
    drop(prepared);
    let copy = home.blob();
    let later = home.vault();
    let since = |document: &mut Document| {
        document.revoke(&"leaked".parse().unwrap(), Timestamp(86_400_000))?;
        let other = Value::from(Zeroizing::new("another".to_owned()));
        document.roll(&"rolled".parse().unwrap(), Some(other), Timestamp(2))?;
        document.revoke_principal(&principal("gone"))?;
        document.purge_principal(&principal("purged"), Timestamp(2))?;
        let shared = document
            .secrets
            .get_mut(&"shared".parse().unwrap())
            .unwrap();
        shared.authorized_principals.clear();
        let wider = document.secrets.get_mut(&"wider".parse().unwrap());
        wider.unwrap().authorized_principals = [principal("kept")].into();
        let made = document.secrets.get_mut(&"wider".parse().unwrap());
        made.unwrap().pattern = crate::vault::Pattern::Auto;
        // As a vault made anew has them.
        document.secrets.remove(&"back".parse().unwrap());
        keep(document, "back", "x");
        document.principals.remove(&principal("out"));
        document.register(principal("out"), PrincipalKind::Consumer)?;
        document.nonce = Nonce::generate();
        document.revoke_token(&token("phone"))?;
        keep(document, "made-since", "x");
        Ok(())
    };
    later.change(since).unwrap();
    drop(later);
    let before = home.files();
    // when somebody asks what a restore would do
    let said = home.restore_with(Consent::Asked, &input(None, &copy), true);
    let said = said.unwrap();
    // then each of these is named, nothing that is as it was is, and nothing was done.
    let told: Vec<_> = said.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        told,
        [
            "revoked, for ever: the secret back",
            "good again: the secret leaked, which was revoked on 1970-01-02",
            "with another value: the secret rolled",
            "granted again: the secret shared to kept",
            "not granted any more: the secret wider to kept",
            "made otherwise (manual): the secret wider",
            "good again: the principal gone, which was revoked",
            "revoked, for ever: the principal out",
            "of the kind plugin: the principal out",
            "good again: the principal purged, which is not there any more",
            "good again: the API token phone, which is not there any more",
            "lost: the secret made-since",
            "with another nonce: every plugin must be locked anew",
        ]
    );
    assert!(!said.contains(CANARY));
    assert_eq!(home.files(), before);
    let said = home.restore(&input(None, &copy), true).unwrap();
    assert!(said.contains("good again: the secret leaked") && said.contains("restored 6 secrets"));
}

#[test]
fn without_a_vault_to_compare_with_all_that_is_good_is_named() {
    let home = Home::new();
    let copy = home.blob();
    std::fs::remove_file(home.places().vault_dir.join("vault.age")).unwrap();
    let said = home.restore_with(Consent::Asked, &input(None, &copy), false);
    let said = said.unwrap();
    assert!(said.contains("no vault to compare with"), "{said}");
    assert!(said.contains("good: the secret demo"), "{said}");
    assert!(!home.places().vault_dir.join("vault.age").exists());
}

#[test]
fn a_copy_that_somebody_else_may_have_made_is_doubted() {
    let (home, paper) = (Home::without_vault("test"), SealingKey::generate());
    let document = Document::genesis(
        "test".parse().unwrap(),
        Bearer::admin().hash(),
        Nonce::generate(),
    );
    let to = [paper.recipient(), home.key().recipient()];
    let said = |key: Option<&SealingKey>, authors: &[Author]| {
        let copy = content::seal(&document, &to, authors).unwrap();
        home.restore_with(Consent::Asked, &input(key, &copy), false)
            .unwrap()
    };
    let own = Author::of(&home.key());
    assert!(!said(None, std::slice::from_ref(&own)).contains('!'));
    assert!(said(Some(&paper), &[own]).contains("cannot be verified"));
    let forged = Author::of(&SealingKey::generate());
    assert!(said(None, &[forged]).contains("cannot be verified"));
    let unmarked = serde_json::to_vec(&document).unwrap();
    let copy = home.key().recipient().seal(&unmarked).unwrap();
    let said = home.restore_with(Consent::Asked, &input(None, &copy), false);
    assert!(said.unwrap().contains("does not say who made it"));
}

/// A vault as the software before the first release wrote it.
fn unmarked(home: &Home) -> Vec<u8> {
    let document = home.vault().document().unwrap();
    let plain = serde_json::to_vec(&*document).unwrap();
    home.key().recipient().seal(&plain).unwrap()
}

#[test]
fn a_vault_that_does_not_say_who_wrote_it_is_taken_over_by_the_operator_alone() {
    let home = Home::new();
    let phone = |document: &mut Document| {
        let (name, hash) = ("phone".parse().unwrap(), Bearer::api().hash());
        document.add_token(name, hash, [Scope::ALL[0]].into(), Timestamp(1))
    };
    home.vault().change(phone).unwrap();
    let (path, blob) = (home.places().vault_dir.join("vault.age"), unmarked(&home));
    std::fs::write(&path, &blob).unwrap();
    // Nobody else believes it.
    let State::Sealed(reason) = home.vault().state() else {
        panic!("it was opened");
    };
    assert!(reason.contains("bailey vault adopt"), "{reason}");
    for verb in [Verb::RotateKey, Verb::RotateAdminToken] {
        let refused = home.run(&verb).unwrap_err().to_string();
        assert!(refused.contains("bailey vault adopt"), "{refused}");
    }
    // One that knows another admin token is of somebody who never opened the right one,
    let token = home.secret("cli/admin.token");
    let adopt = |yes, expect| home.run(&Verb::Adopt { yes, expect });
    for found in [None, Some("guessed\n")] {
        if let Some(found) = found {
            std::fs::write(&token, found).unwrap();
        }
        for yes in [false, true] {
            let refused = adopt(yes, None).unwrap_err();
            assert!(refused.is::<Misconfigured>(), "{refused:#}");
            assert!(refused.to_string().contains("admin token"), "{refused}");
        }
    }
    std::fs::write(&token, "admin\n").unwrap();
    let asked = adopt(false, None).unwrap();
    assert!(asked.contains("good: the secret demo"), "{asked}");
    assert!(asked.contains("good: the API token phone with "), "{asked}");
    // and one that was put in place after it was shown is another.
    let shown = Sha256::of(&blob);
    assert!(asked.ends_with(&format!("sha256 {shown}")), "{asked}");
    let refused = adopt(true, Some(Sha256::of(b"another"))).unwrap_err();
    assert!(refused.to_string().contains("another file"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), blob);
    adopt(true, Some(shown)).unwrap();
    let document = home.vault().document().unwrap();
    assert!(holds_the_canary(&document));
    assert_eq!(document.unrecorded.last().unwrap().deed, Deed::Adopted);
    // Once it is the stack's own it is taken over only for being an earlier one,
    let again = adopt(false, None).unwrap();
    assert!(again.contains("this stack's own"), "{again}");
    // and what says that somebody else wrote it is never taken over.
    let forged = Author::of(&SealingKey::generate());
    let forged = content::seal(&document, &[home.key().recipient()], &[forged]).unwrap();
    std::fs::write(&path, forged).unwrap();
    let refused = adopt(true, None).unwrap_err();
    assert!(
        format!("{refused:#}").contains("it is foreign"),
        "{refused:#}"
    );
}

#[test]
fn what_is_said_of_the_admin_token_is_true_of_the_one_at_hand() {
    // Given a copy of a stack's vault, and in its place a vault of another admin token, as an earlier or a foreign one is
    let home = Home::new();
    let copy = home.blob();
    let vault = home.vault();
    let replaced = |document: &mut Document| {
        document.admin_token = Bearer::from("other".to_owned()).hash();
        Ok(())
    };
    vault.change(replaced).unwrap();
    drop(vault);
    let said = |replace| {
        home.restore_with(Consent::Asked, &input(None, &copy), replace)
            .unwrap()
    };
    let at_hand = home.secret("cli/admin.token");
    // when the token at hand is that of the copy, of the vault that is there, or missing, then that is what is said;
    let cases = [
        (
            Some("admin"),
            "  good: the admin token in secrets/cli/admin.token, which the vault that is there does not know",
        ),
        (Some("other"), "that one opens nothing then"),
        (None, "there is none in secrets/cli/admin.token"),
    ];
    for (token, expected) in cases {
        let _ = std::fs::remove_file(&at_hand);
        if let Some(token) = token {
            std::fs::write(&at_hand, format!("{token}\n")).unwrap();
        }
        let said = said(true);
        assert!(said.contains(expected), "{token:?}: {said}");
        assert!(!said.contains("earlier admin token"), "{said}");
    }
    // nothing of it where nothing changes, and all of it where there is nothing to compare with.
    std::fs::write(&at_hand, "admin\n").unwrap();
    let restored = home.restore(&input(None, &copy), true).unwrap();
    let end = "restored 1 secret, 1 principal and 0 API tokens; the admin token is the one in secrets/cli/admin.token";
    assert!(restored.ends_with(end), "{restored}");
    assert!(!said(true).contains("admin token"));
    std::fs::remove_file(home.places().vault_dir.join("vault.age")).unwrap();
    let alone = said(false);
    assert!(
        alone.ends_with("  good: the admin token in secrets/cli/admin.token"),
        "{alone}"
    );
}
