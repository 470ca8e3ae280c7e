mod copies;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use bailey_types::{SecretName, Timestamp};

use super::*;
use crate::faults::{self, STEPS};
use crate::token::{self, Bearer, Scope};
use crate::vault::{Deed, Nonce, PrincipalKind, SetSecret, State, Value, Vault, Verdict};

const CANARY: &str = "canary-71d0e2";
const CHILD: &str = "custody::tests::child";

/// A stack's folders with real roots of trust and a vault that holds one secret.
struct Home {
    folder: PathBuf,
    _dir: Option<tempfile::TempDir>,
}

impl Home {
    fn new() -> Self {
        let home = Self::without_vault("test");
        let vault = home.vault();
        let mut document = Document::genesis(
            "test".parse().unwrap(),
            Bearer::from("admin".to_owned()).hash(),
            Nonce::generate(),
        );
        keep(&mut document, "demo", CANARY);
        vault.init(document).unwrap();
        home
    }

    fn without_vault(stack: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self {
            folder: dir.path().to_owned(),
            _dir: Some(dir),
        };
        let places = home.places();
        bailey_roots::make(
            &stack.parse().unwrap(),
            &places.config_dir,
            &places.secrets_dir,
        )
        .unwrap();
        std::fs::create_dir(&places.vault_dir).unwrap();
        std::fs::create_dir(places.secrets_dir.join("cli")).unwrap();
        home
    }

    fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            _dir: None,
        }
    }

    fn places(&self) -> Places {
        Places {
            config_dir: self.folder.join("config"),
            secrets_dir: self.folder.join("secrets"),
            vault_dir: self.folder.join("broker"),
        }
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.places().secrets_dir.join(name)
    }

    fn trust(&self) -> TrustFile {
        TrustFile::read(&self.places().config_dir.join("trust.json")).unwrap()
    }

    fn key(&self) -> SealingKey {
        SealingKey::read(&self.secret("age.key")).unwrap()
    }

    /// As the broker opens it, once the audit log has said that it is the vault of now.
    fn vault(&self) -> Vault {
        let vault = Vault::open(
            &self.places().vault_dir,
            &self.secret("age.key"),
            &self.trust(),
        );
        let vault = vault.unwrap();
        if let Some(document) = vault.unproven() {
            vault.settle(&document, Verdict::Present);
        }
        vault
    }

    fn blob(&self) -> Vec<u8> {
        std::fs::read(self.places().vault_dir.join("vault.age")).unwrap()
    }

    fn run(&self, verb: &Verb) -> anyhow::Result<String> {
        run(&self.places(), verb)
    }

    fn restore(&self, input: &[u8], replace: bool) -> anyhow::Result<String> {
        self.restore_with(Consent::Given, input, replace)
    }

    fn restore_with(
        &self,
        consent: Consent,
        input: &[u8],
        replace: bool,
    ) -> anyhow::Result<String> {
        let mut custody = Custody::take(&self.places())?;
        restore::run(&mut custody, input, replace, consent, Timestamp(7))
    }

    /// Everything below the folder, with its bytes and mode.
    fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        let mut files = BTreeMap::new();
        let places = self.places();
        let cli = places.secrets_dir.join("cli");
        for folder in [
            &places.config_dir,
            &places.secrets_dir,
            &places.vault_dir,
            &cli,
        ] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                    files.insert(path.clone(), (std::fs::read(path).unwrap(), mode));
                }
            }
        }
        files
    }
}

fn keep(document: &mut Document, name: &str, value: &str) {
    let asked = SetSecret {
        name: name.parse().unwrap(),
        value: Some(Value::from(Zeroizing::new(value.to_owned()))),
        grants: None,
        pattern: None,
        recipe: None,
        description: String::new(),
    };
    document.set_secret(asked, Timestamp(1)).unwrap();
}

/// What a child does: the rotation, in the folder of another's.
#[test]
fn child() {
    let Some(folder) = faults::child() else {
        return; // Run by the others only.
    };
    let _scenario = fail::FailScenario::setup();
    match Home::in_folder(&folder).run(&Verb::RotateKey) {
        Ok(said) => println!("{said}"),
        Err(e) => println!("refused: {e:#}"),
    }
}

fn holds_the_canary(document: &Document) -> bool {
    let name: SecretName = "demo".parse().unwrap();
    document
        .secrets
        .get(&name)
        .is_some_and(|secret| secret.value.expose() == CANARY)
}

/// Whether the stack is all on one key, and that not `old`.
fn assert_rotated(home: &Home, old: &SealingKey, when: &str) {
    let (key, places) = (home.key(), home.places());
    assert_ne!(key.recipient(), old.recipient(), "{when}");
    assert!(!home.secret(rotate::NEXT).exists(), "{when}");
    let mode = home
        .secret("age.key")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o400, "{when}");
    let vault = home.vault();
    let document = vault
        .document()
        .unwrap_or_else(|e| panic!("{when}: {}", Chain(&e)));
    assert!(holds_the_canary(&document), "{when}");
    // Once for each rotation, however often it had to be run; one that is killed after its last step is over.
    let mut deeds = document.unrecorded.iter().map(|done| &done.deed);
    assert!(deeds.all(|deed| *deed == Deed::KeyRotated), "{when}");
    let expected = if when == "twice" || when.starts_with("age.key/retired") {
        2
    } else {
        1
    };
    assert_eq!(document.unrecorded.len(), expected, "{when}");
    assert!(content::open(&home.blob(), old).is_err(), "{when}");
    let authority = bailey_mesh::Authority::read(&home.trust(), &places.secrets_dir, &key);
    authority.unwrap_or_else(|e| panic!("{when}: {}", Chain(&e)));
    for name in ["root-ca.key.age", "intermediate.key.age"] {
        let sealed = std::fs::read(home.secret(name)).unwrap();
        assert!(key.open(&sealed, 4096).is_ok(), "{when}: {name}");
        assert!(old.open(&sealed, 4096).is_err(), "{when}: {name}");
    }
}

#[test]
fn another_age_key_opens_everything_and_the_old_one_nothing() {
    let home = Home::new();
    let old = home.key();
    let before = home.files();
    let said = home.run(&Verb::RotateKey).unwrap();
    assert!(said.contains(&home.trust().vault.to_string()), "{said}");
    assert_rotated(&home, &old, "at once");
    // Nothing was left, and nobody may more than before.
    let modes = |files: &BTreeMap<PathBuf, (Vec<u8>, u32)>| {
        files
            .iter()
            .map(|(path, (_, mode))| (path.clone(), *mode))
            .collect::<Vec<_>>()
    };
    assert_eq!(modes(&before), modes(&home.files()));
    // Another one later.
    home.run(&Verb::RotateKey).unwrap();
    assert_rotated(&home, &old, "twice");
}

#[test]
fn an_intermediate_that_was_replaced_is_sealed_to_the_new_key_too() {
    let home = Home::new();
    let path = home.places().vault_dir.join("intermediate.age");
    std::fs::write(&path, home.trust().vault.seal(b"its key").unwrap()).unwrap();
    let old = home.key();
    home.run(&Verb::RotateKey).unwrap();
    let sealed = std::fs::read(&path).unwrap();
    assert_eq!(*home.key().open(&sealed, 100).unwrap(), b"its key");
    assert!(old.open(&sealed, 100).is_err());
}

#[test]
fn recipients_outlive_a_rotation() {
    let (home, paper) = (Home::new(), SealingKey::generate());
    let own = home.trust().vault;
    let add = |document: &mut Document| {
        Ok(document.add_recipient(&own, paper.recipient(), String::new(), Timestamp(1))?)
    };
    home.vault().change(add).unwrap();
    home.run(&Verb::RotateKey).unwrap();
    let (document, _) = content::open_of_anybody(&home.blob(), &paper).unwrap();
    assert!(holds_the_canary(&document));
}

#[test]
fn a_key_can_be_rotated_before_there_is_a_vault() {
    let home = Home::without_vault("test");
    let old = home.key();
    home.run(&Verb::RotateKey).unwrap();
    assert_ne!(home.key().recipient(), old.recipient());
    assert!(matches!(home.vault().state(), State::NoVault));
}

/// Every write of a rotation, in order, by file and how often that was written before.
const WRITES: [(&str, u32); 8] = [
    ("age.key.next", 0),
    ("vault.age", 0),
    ("root-ca.key.age", 0),
    ("intermediate.key.age", 0),
    ("trust.json", 0),
    ("vault.age", 1),
    ("root-ca.key.age", 1),
    ("intermediate.key.age", 1),
];

fn killed_at(fault: &str) {
    let home = Home::new();
    let old = home.key();
    let ended = faults::run(CHILD, &home.folder, &format!("{fault}return(kill)"));
    assert!(ended.killed, "{fault} was not reached: {}", ended.printed);
    // One of the keys at hand opens the vault,
    let next = SealingKey::read(&home.secret(rotate::NEXT)).ok();
    let keys = [Some(home.key()), next];
    let mut opened = keys
        .iter()
        .flatten()
        .map(|key| content::open(&home.blob(), key));
    assert!(
        opened.any(|opened| opened.is_ok_and(|document| holds_the_canary(&document))),
        "{fault}"
    );
    // and to run it again is all there is to do.
    home.run(&Verb::RotateKey)
        .unwrap_or_else(|e| panic!("{fault}: {e:#}"));
    assert_rotated(&home, &old, fault);
}

#[test]
fn a_rotation_that_is_killed_at_any_step_loses_nothing_and_is_finished_by_the_next() {
    for (file, before) in WRITES {
        for step in STEPS {
            killed_at(&format!("{file}/{step}={before}*off->"));
        }
    }
    killed_at("age.key/retiring=");
    killed_at("age.key/retired=");
}

#[test]
fn a_rotation_on_a_failing_disk_says_so_and_is_finished_by_the_next() {
    for (file, before) in WRITES {
        let home = Home::new();
        let old = home.key();
        let fault = format!("{file}/half-written={before}*off->1*return(28)");
        let ended = faults::run(CHILD, &home.folder, &fault);
        assert!(
            ended.printed.contains("No space left"),
            "{fault}: {}",
            ended.printed
        );
        home.run(&Verb::RotateKey).unwrap();
        assert_rotated(&home, &old, &fault);
    }
}

#[test]
fn while_the_broker_runs_nothing_is_done() {
    let home = Home::new();
    let _broker = home.vault();
    let before = home.files();
    for verb in [
        Verb::RotateKey,
        Verb::RotateAdminToken,
        Verb::Restore {
            replace: true,
            yes: true,
        },
        Verb::Adopt {
            yes: true,
            expect: None,
        },
    ] {
        let refused = Custody::take(&home.places())
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(refused.contains("the broker runs"), "{verb:?}: {refused}");
    }
    assert!(home.run(&Verb::RotateKey).is_err());
    assert!(home.run(&Verb::RotateAdminToken).is_err());
    assert_eq!(home.files(), before);
}

#[test]
fn with_another_key_or_a_vault_that_it_does_not_open_nothing_is_done() {
    let home = Home::new();
    let put = |name: &str, bytes: &[u8]| {
        let (path, new) = (home.folder.join(name), home.folder.join("new"));
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o400)).unwrap();
        std::fs::rename(new, path).unwrap();
    };
    let (good_key, good_vault) = (home.key().to_file_text(), home.blob());
    let foreign = SealingKey::generate();
    let cases: [(&str, Vec<u8>); 4] = [
        (
            "secrets/age.key",
            foreign.to_file_text().as_bytes().to_vec(),
        ),
        ("secrets/age.key", Vec::new()),
        ("broker/vault.age", foreign.recipient().seal(b"{}").unwrap()),
        ("broker/vault.age", Vec::new()),
    ];
    for (name, bytes) in cases {
        put(name, &bytes);
        let before = home.files();
        for verb in [Verb::RotateKey, Verb::RotateAdminToken] {
            let refused = home.run(&verb).unwrap_err();
            assert!(
                refused
                    .chain()
                    .any(<dyn std::error::Error>::is::<Misconfigured>),
                "{verb:?} {name}: {refused:#}"
            );
            assert_eq!(home.files(), before, "{verb:?} {name}");
        }
        put("secrets/age.key", good_key.as_bytes());
        put("broker/vault.age", &good_vault);
    }
    home.run(&Verb::RotateKey).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let home = Home::new();
    let open = std::fs::Permissions::from_mode(0o444);
    std::fs::set_permissions(home.secret("age.key"), open).unwrap();
    let refused = home.run(&Verb::RotateAdminToken).unwrap_err().to_string();
    assert!(refused.contains("mode 0444"), "{refused}");
}

#[test]
fn another_admin_token_is_in_its_file_and_the_old_one_opens_nothing() {
    let home = Home::new();
    home.run(&Verb::RotateAdminToken).unwrap();
    let path = home.secret("cli/admin.token");
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    let token = std::fs::read_to_string(&path).unwrap();
    let vault = home.vault();
    let document = vault.document().unwrap();
    let is_admin = |text: &str| token::is_admin(&document, &Bearer::from(text.to_owned()));
    assert!(is_admin(token.trim()) && !is_admin("admin"));
    assert_eq!(
        document.unrecorded.last().unwrap().deed,
        Deed::AdminTokenRotated
    );
    assert!(holds_the_canary(&document));
    assert!(!home.secret("cli/admin.token.next").exists());
}

/// What waits to take its place is sealed to the old key: rotated now, the stack would get a CA that nobody can open.
#[test]
fn a_new_root_that_was_begun_comes_first() {
    let home = Home::new();
    let places = home.places();
    let begun = home.secret("root-ca.key.age.new-root");
    std::fs::write(&begun, home.trust().vault.seal(b"its key").unwrap()).unwrap();
    let complete = home.secret(".new-root-complete");
    std::fs::write(&complete, "1800000000").unwrap();
    let before = home.files();
    for verb in [Verb::RotateKey, Verb::RotateAdminToken] {
        let refused = home.run(&verb).unwrap_err();
        assert!(
            refused.downcast_ref::<Misconfigured>().is_some(),
            "{refused:#}"
        );
        assert!(refused.to_string().contains("make up"), "{refused}");
        assert_eq!(home.files(), before, "{verb:?}");
    }
    // As `make up` does.
    assert!(bailey_roots::finish_new_root(&places.config_dir, &places.secrets_dir).unwrap());
    home.run(&Verb::RotateAdminToken).unwrap();
}

#[test]
fn an_unfinished_rotation_comes_first() {
    let home = Home::new();
    faults::run(CHILD, &home.folder, "trust.json/renamed=return(kill)");
    let refused = home.run(&Verb::RotateAdminToken).unwrap_err().to_string();
    assert!(refused.contains("bailey vault rotate-key"), "{refused}");
    home.run(&Verb::RotateKey).unwrap();
    home.run(&Verb::RotateAdminToken).unwrap();
}
