use std::collections::BTreeMap;

use bailey_trust::SealingKey;
use x509_parser::pem::parse_x509_pem;

use super::*;

struct Stack {
    dir: tempfile::TempDir,
}

impl Stack {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stack = Self { dir };
        crate::make(&"test".parse().unwrap(), &stack.config(), &stack.secrets()).unwrap();
        stack
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    /// Every file with its bytes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let dirs = [self.config(), self.secrets()];
        let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    fn renew(&self) -> Result<Vec<PathBuf>, Error> {
        make(
            &self.config(),
            &self.secrets(),
            Timestamp(1_800_000_000_000),
        )
    }

    /// The root, the intermediate and the keys of both belong together.
    fn assert_sound(&self) {
        let files = self.files();
        let trust = TrustFile::read(&self.config().join("trust.json")).unwrap();
        assert_eq!(trust.root_ca_pem.as_bytes(), files["ca.pem"]);
        let root = parse_x509_pem(&files["ca.pem"]).unwrap().1;
        let intermediate = parse_x509_pem(&files["intermediate.pem"]).unwrap().1;
        let root = root.parse_x509().unwrap();
        let intermediate = intermediate.parse_x509().unwrap();
        assert!(
            intermediate
                .verify_signature(Some(root.public_key()))
                .is_ok()
        );
        let vault = SealingKey::read(&self.secrets().join("age.key")).unwrap();
        for (name, certificate) in [
            ("root-ca.key.age", &root),
            ("intermediate.key.age", &intermediate),
        ] {
            let pem = vault.open(&files[name], 4096).unwrap();
            let key = rcgen::KeyPair::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
            assert!(
                certificate
                    .public_key()
                    .raw
                    .ends_with(rcgen::PublicKeyData::der_bytes(&key)),
                "{name}"
            );
        }
    }
}

#[test]
fn a_new_root_changes_five_files_and_keeps_the_old_ones() {
    let stack = Stack::new();
    let before = stack.files();
    let kept = stack.renew().unwrap();
    let after = stack.files();

    stack.assert_sound();
    for (name, bytes) in &before {
        let hangs_on_the_root = NAMES.iter().any(|(of_root, _)| of_root == name);
        assert_eq!(after[name] != *bytes, hangs_on_the_root, "{name}");
    }
    assert_eq!(after.len(), before.len() + NAMES.len());
    assert_eq!(kept.len(), NAMES.len());
    for (name, _) in NAMES {
        assert_eq!(after[&format!("{name}.old-1800000000")], before[name]);
    }
    let old: TrustFile = serde_json::from_slice(&before["trust.json"]).unwrap();
    let new: TrustFile = serde_json::from_slice(&after["trust.json"]).unwrap();
    assert_eq!(old.signing.broker, new.signing.broker);
    assert_eq!(old.vault.to_string(), new.vault.to_string());
}

#[test]
fn a_run_that_was_stopped_before_its_files_were_complete_has_changed_nothing() {
    let stack = Stack::new();
    fs::write(stack.secrets().join("root-ca.key.age.new-root"), "half").unwrap();
    let before = stack.files();
    assert!(!finish(&stack.config(), &stack.secrets()).unwrap());
    assert_eq!(stack.files(), before);
    stack.renew().unwrap();
    stack.assert_sound();
}

/// As the files are when the machine stops after each step of taking their places.
#[test]
fn a_run_that_was_stopped_between_two_files_is_finished() {
    for done in 0..=NAMES.len() {
        let stack = Stack::new();
        let before = stack.files();
        stack.renew().unwrap();
        let after = stack.files();
        for (name, mode) in NAMES.into_iter().skip(done) {
            let path = |suffix: &str| place(&stack.config(), &stack.secrets(), name, mode, suffix);
            fs::rename(path(""), path(NEW)).unwrap();
            fs::rename(path(".old-1800000000"), path("")).unwrap();
        }
        fs::write(stack.secrets().join(MARKER), "1800000000").unwrap();

        assert!(finish(&stack.config(), &stack.secrets()).unwrap());
        assert_eq!(stack.files(), after, "after {done} files");
        stack.assert_sound();
        assert!(!finish(&stack.config(), &stack.secrets()).unwrap());
        assert_eq!(stack.files()["age.key"], before["age.key"]);
    }
}

/// The CLI's container may make files beside `trust.json`, also between the last step and the end of the marker.
#[test]
fn a_draft_that_somebody_else_put_there_takes_no_place() {
    let stack = Stack::new();
    stack.renew().unwrap();
    let trust = stack.config().join("trust.json.new-root");
    let elsewhere = stack.dir.path().join("elsewhere");
    fs::write(&elsewhere, "{}").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &trust).unwrap();
    fs::write(stack.secrets().join(MARKER), "1800000000").unwrap();
    let before = stack.files();
    let refused = |stack: &Stack| {
        let error = finish(&stack.config(), &stack.secrets()).unwrap_err();
        assert!(
            matches!(&error, Error::Foreign(path) if *path == trust),
            "{error}"
        );
    };
    refused(&stack);
    assert_eq!(stack.files(), before);

    // A file of another uid no more than a link; only root can make one here.
    fs::remove_file(&trust).unwrap();
    fs::write(&trust, "{}").unwrap();
    if std::os::unix::fs::chown(&trust, Some(10_012), None).is_ok() {
        refused(&stack);
    }
    fs::remove_file(&trust).unwrap();
    assert!(finish(&stack.config(), &stack.secrets()).unwrap());
    stack.assert_sound();
}

#[test]
fn a_stack_that_lacks_something_gets_no_new_root() {
    let stack = Stack::new();
    fs::remove_file(stack.secrets().join("age.key")).unwrap();
    let before = stack.files();
    let error = stack.renew().unwrap_err().to_string();
    assert!(error.contains("age.key"), "{error}");
    assert_eq!(stack.files(), before);
}

#[test]
fn a_further_intermediate_is_under_the_same_root() {
    let stack = Stack::new();
    let vault = SealingKey::read(&stack.secrets().join("age.key")).unwrap();
    let files = stack.files();
    let key = vault.open(&files["root-ca.key.age"], 4096).unwrap();
    let root_pem = std::str::from_utf8(&files["ca.pem"]).unwrap();
    let made = certificates::intermediate(
        &"test".parse().unwrap(),
        root_pem,
        std::str::from_utf8(&key).unwrap(),
        crate::INTERMEDIATE_VALIDITY,
        Timestamp(1_800_000_000_000),
    )
    .unwrap();
    let root = parse_x509_pem(root_pem.as_bytes()).unwrap().1;
    let root = root.parse_x509().unwrap();
    let first = parse_x509_pem(&files["intermediate.pem"]).unwrap().1;
    let second = parse_x509_pem(made.certificate.as_bytes()).unwrap().1;
    let (first, second) = (first.parse_x509().unwrap(), second.parse_x509().unwrap());
    assert!(second.verify_signature(Some(root.public_key())).is_ok());
    assert_ne!(first.raw_serial(), second.raw_serial());
    let constraints = second.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0));
    assert!(second.name_constraints().unwrap().is_some());
}
