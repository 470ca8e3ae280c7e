use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::slice::from_ref;

use bailey_types::{SecretName, Timestamp};
use zeroize::Zeroizing;

use bailey_trust::SealingKey;

use super::*;
use crate::token::Bearer;

const CANARY: &str = "canary-3f9c1e";

pub(super) struct Fixture {
    folder: PathBuf,
    pub(super) key: SealingKey,
    pub(super) trust: TrustFile,
    _dir: Option<tempfile::TempDir>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::named("vault")
    }

    /// In a folder of this name.
    pub(super) fn named(name: &str) -> Self {
        let (dir, key) = (tempfile::tempdir().unwrap(), SealingKey::generate());
        let trust = crate::testing::trust(&key);
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let fixture = Self {
            folder,
            key,
            trust,
            _dir: Some(dir),
        };
        fixture.put_key(&fixture.key.to_file_text());
        let text = serde_json::to_vec(&fixture.trust).unwrap();
        std::fs::write(fixture.path("trust.json"), text).unwrap();
        fixture
    }

    /// What another fixture made.
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            key: SealingKey::read(&folder.join("age.key")).unwrap(),
            trust: TrustFile::read(&folder.join("trust.json")).unwrap(),
            _dir: None,
        }
    }

    fn put_key(&self, text: &str) {
        let path = self.path("age.key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A vault of which the audit log says that it is the one of now.
    pub(super) fn open(&self) -> Vault {
        proven(self.unproven())
    }

    /// A vault as it is before the audit log answered.
    pub(super) fn unproven(&self) -> Vault {
        Vault::open(&self.folder, &self.path("age.key"), &self.trust).unwrap()
    }

    pub(super) fn genesis(&self) -> Document {
        Document::genesis(
            self.trust.stack.clone(),
            Bearer::admin().hash(),
            Nonce::generate(),
        )
    }

    /// A vault that holds one secret, `demo` for the principal `greet`, with the canary as its value.
    pub(super) fn filled(&self) -> Vault {
        let vault = self.open();
        vault.init(self.genesis()).unwrap();
        let vault = proven(vault);
        vault
            .change(|document| document.register(principal("greet"), PrincipalKind::Plugin))
            .unwrap();
        vault
            .change(|document| {
                document.set_secret(set("demo", Some(CANARY), &["greet"]), Timestamp(1))
            })
            .unwrap();
        vault
    }
}

fn proven(vault: Vault) -> Vault {
    if let Some(document) = vault.unproven() {
        vault.settle(&document, Verdict::Present);
    }
    vault
}

pub(super) fn principal(name: &str) -> bailey_types::PrincipalName {
    name.parse().unwrap()
}

fn names(list: &[&str]) -> BTreeSet<bailey_types::PrincipalName> {
    list.iter().map(|name| principal(name)).collect()
}

pub(super) fn set(name: &str, value: Option<&str>, grants: &[&str]) -> SetSecret {
    SetSecret {
        name: name.parse().unwrap(),
        value: value.map(|text| Value::from(Zeroizing::new(text.to_owned()))),
        grants: (!grants.is_empty()).then(|| names(grants)),
        pattern: None,
        recipe: None,
        description: String::new(),
    }
}

fn replace(name: &str, grants: &[&str]) -> SetSecret {
    SetSecret {
        grants: Some(names(grants)),
        ..set(name, None, &[])
    }
}

/// With `blob` as its vault, the broker is sealed for `reason` and stays so, and `blob` stays as it is.
pub(super) fn never_opened(fixture: &Fixture, what: &str, blob: &[u8], reason: &str) {
    std::fs::write(fixture.path("vault.age"), blob).unwrap();
    let vault = fixture.open();
    let said = sealed(&vault);
    assert!(
        said.starts_with("vault.age cannot be used") && said.contains(reason),
        "{what}: {said}"
    );
    assert!(!vault.unseal(), "{what}");
    assert!(
        matches!(vault.change(|_| Ok(())), Err(Error::Sealed(_))),
        "{what}"
    );
    assert!(
        matches!(vault.init(fixture.genesis()), Err(Error::Sealed(_))),
        "{what}"
    );
    assert_eq!(
        std::fs::read(fixture.path("vault.age")).unwrap(),
        blob,
        "{what}"
    );
}

pub(super) fn sealed(vault: &Vault) -> String {
    match vault.state() {
        State::Sealed(reason) => reason,
        other @ (State::NoVault | State::Open(_)) => panic!("not sealed: {other:?}"),
    }
}

#[test]
fn what_was_changed_is_there_after_a_restart() {
    let fixture = Fixture::new();
    let before = fixture.filled().document().unwrap();
    let after = fixture.open().document().unwrap();
    assert_eq!(before, after);
    let name: SecretName = "demo".parse().unwrap();
    assert_eq!(after.secrets[&name].value.expose(), CANARY);
}

#[test]
fn neither_plaintext_nor_debug_shows_a_value() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    for entry in std::fs::read_dir(&fixture.folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            !String::from_utf8_lossy(&bytes).contains(CANARY),
            "{}",
            path.display()
        );
    }
    assert!(!format!("{vault:?} {:?}", vault.state()).contains(CANARY));
    let mode = fixture
        .path("vault.age")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn before_init_there_is_no_vault_and_it_is_made_once() {
    let fixture = Fixture::new();
    let vault = fixture.open();
    assert!(matches!(vault.document(), Err(Error::NoVault)));
    assert!(matches!(vault.change(|_| Ok(())), Err(Error::NoVault)));
    vault.init(fixture.genesis()).unwrap();
    assert!(matches!(vault.init(fixture.genesis()), Err(Error::Exists)));
    let core = vault.document().unwrap().principals[&principal("core")].clone();
    assert_eq!(
        core,
        Principal {
            kind: PrincipalKind::Gateway,
            status: Status::Active
        }
    );
}

#[test]
fn a_bad_key_seals_and_the_right_one_unseals() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    fixture.put_key("");
    let vault = fixture.open();
    assert!(sealed(&vault).contains("is empty"));
    assert!(matches!(vault.change(|_| Ok(())), Err(Error::Sealed(_))));
    assert!(matches!(
        vault.init(fixture.genesis()),
        Err(Error::Sealed(_))
    ));
    assert!(!vault.unseal());
    fixture.put_key(&SealingKey::generate().to_file_text());
    assert!(!vault.unseal());
    assert!(sealed(&vault).contains("another key"));
    fixture.put_key(&fixture.key.to_file_text());
    assert!(vault.unseal());
    assert_eq!(vault.document().unwrap().secrets.len(), 1);
}

#[test]
fn a_bad_key_seals_even_where_there_is_no_vault() {
    let fixture = Fixture::new();
    fixture.put_key("");
    assert!(matches!(
        fixture.open().init(fixture.genesis()),
        Err(Error::Sealed(_))
    ));
    assert!(!fixture.path("vault.age").exists());
}

#[test]
fn what_is_not_our_vault_is_never_opened_or_replaced() {
    let fixture = Fixture::new();
    let recipient = fixture.key.recipient();
    let written = |document: &Document, author: &SealingKey| {
        content::seal(document, from_ref(&recipient), &[Author::of(author)]).unwrap()
    };
    let mut another = fixture.genesis();
    another.stack = "other".parse().unwrap();
    let ours = fixture.genesis();
    let plain = serde_json::to_vec(&ours).unwrap();
    let extra = [br#"{"extra":1,"#, &plain[1..]].concat();
    let mut passphrase = age::scrypt::Recipient::new("hunter2".to_owned().into());
    passphrase.set_work_factor(2);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), "opening"),
        ("unencrypted", plain.clone(), "opening"),
        (
            "for another key",
            SealingKey::generate().recipient().seal(&plain).unwrap(),
            "opening",
        ),
        (
            "with a passphrase",
            age::encrypt(&passphrase, &plain).unwrap(),
            "opening",
        ),
        ("malformed", recipient.seal(b"{}").unwrap(), "malformed"),
        (
            "with an unknown field",
            recipient.seal(&extra).unwrap(),
            "malformed",
        ),
        (
            "of another stack",
            written(&another, &fixture.key),
            "it belongs to the stack other",
        ),
        // Whoever knows the public key can make these two.
        (
            "of somebody who has another key",
            written(&ours, &SealingKey::generate()),
            "it is foreign",
        ),
        (
            "of nobody",
            recipient.seal(&plain).unwrap(),
            "bailey vault adopt",
        ),
    ];
    for (what, blob, reason) in cases {
        never_opened(&fixture, what, &blob, reason);
    }
    // The permitted neighbour of all of them.
    std::fs::write(fixture.path("vault.age"), written(&ours, &fixture.key)).unwrap();
    assert!(fixture.open().document().is_ok());
}

#[test]
fn every_change_has_a_number_of_its_own() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let revision = || vault.document().unwrap().revision;
    let before = revision();
    let register =
        || vault.plan(|document| document.register(principal("echo"), PrincipalKind::Plugin));
    assert_eq!(register().unwrap().revision(), Some(before + 1));
    assert_eq!(revision(), before, "a plan changes nothing");
    vault.commit(register().unwrap()).unwrap();
    assert_eq!(revision(), before + 1);
    assert_eq!(register().unwrap().revision(), None);
    vault.did_offline(Deed::Restored, Timestamp(1)).unwrap();
    assert_eq!(revision(), before + 2);
    // A plan goes on top of what only forgets what was told, and of nothing else.
    let planned = || vault.plan(|it| it.register(principal("later"), PrincipalKind::Plugin));
    let mut late = planned().unwrap();
    // What only says that the audit log was told is no change.
    let done = vault.document().unwrap().unrecorded.clone();
    vault.recorded(&done).unwrap();
    assert!(vault.document().unwrap().unrecorded.is_empty());
    assert_eq!(revision(), before + 2);
    vault.rebase(&mut late).unwrap();
    let mut later = planned().unwrap();
    vault.commit(late).unwrap();
    assert!(vault.document().unwrap().unrecorded.is_empty());
    assert!(matches!(vault.rebase(&mut later), Err(Error::Moved)));
}

#[test]
fn a_plan_on_what_is_not_there_any_more_is_not_carried_out() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let plan = |name: &'static str| {
        vault.plan(move |document| document.register(principal(name), PrincipalKind::Plugin))
    };
    let (first, second) = (plan("first").unwrap(), plan("second").unwrap());
    assert!(vault.commit(first).unwrap());
    assert!(matches!(vault.commit(second), Err(Error::Moved)));
    let principals = &vault.document().unwrap().principals;
    assert!(principals.contains_key(&principal("first")));
    assert!(!principals.contains_key(&principal("second")));
}

/// A custody that was killed while it ran as root left a file that the broker could not open.
#[test]
fn a_writer_leaves_nothing_that_keeps_the_next_one_out() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let left: Vec<_> = std::fs::read_dir(&fixture.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn what_an_interrupted_write_left_does_no_harm() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    std::fs::write(fixture.path(".vault.age.new"), b"half a va").unwrap();
    vault
        .change(|document| document.register(principal("echo"), PrincipalKind::Plugin))
        .unwrap();
    assert!(!fixture.path(".vault.age.new").exists());
    drop(vault);
    assert_eq!(fixture.open().document().unwrap().principals.len(), 3);
}

#[test]
fn a_write_that_fails_leaves_memory_and_disk_as_they_were() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let before = std::fs::read(fixture.path("vault.age")).unwrap();
    // A folder where the temporary file should go: neither removable as a file nor to be written.
    std::fs::create_dir(fixture.path(".vault.age.new")).unwrap();
    let register =
        || vault.change(|document| document.register(principal("echo"), PrincipalKind::Plugin));
    assert!(matches!(
        register(),
        Err(Error::Write(FileError::Io { .. }))
    ));
    assert!(
        !vault
            .document()
            .unwrap()
            .principals
            .contains_key(&principal("echo"))
    );
    assert_eq!(std::fs::read(fixture.path("vault.age")).unwrap(), before);
    std::fs::remove_dir(fixture.path(".vault.age.new")).unwrap();
    assert!(register().unwrap());
}

#[test]
fn a_change_from_outside_is_never_written_over() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let theirs = fixture.key.recipient().seal(b"theirs").unwrap();
    std::fs::write(fixture.path("vault.age"), &theirs).unwrap();
    let register =
        || vault.change(|document| document.register(principal("echo"), PrincipalKind::Plugin));
    assert!(matches!(
        register(),
        Err(Error::Write(FileError::ChangedOutside(_)))
    ));
    assert_eq!(std::fs::read(fixture.path("vault.age")).unwrap(), theirs);
    std::fs::remove_file(fixture.path("vault.age")).unwrap();
    assert!(matches!(
        register(),
        Err(Error::Write(FileError::ChangedOutside(_)))
    ));
}

#[test]
fn a_vault_has_one_writer() {
    let fixture = Fixture::new();
    let _first = fixture.open();
    let second = Vault::open(&fixture.folder, &fixture.path("age.key"), &fixture.trust);
    assert!(matches!(second, Err(FileError::TwoWriters(_))));
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let before = std::fs::read(fixture.path("vault.age")).unwrap();
    let again =
        vault.change(|document| document.register(principal("greet"), PrincipalKind::Plugin));
    assert!(!again.unwrap());
    let again =
        vault.change(|document| document.set_secret(replace("demo", &["greet"]), Timestamp(9)));
    assert_eq!(again.unwrap(), SetOutcome::Changed);
    // Each encryption differs, so equal bytes were not written again.
    assert_eq!(std::fs::read(fixture.path("vault.age")).unwrap(), before);
}
