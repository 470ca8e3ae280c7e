use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Dirs {
    _dir: tempfile::TempDir,
    config: PathBuf,
    secrets: PathBuf,
}

fn dirs() -> Dirs {
    let dir = tempfile::tempdir().unwrap();
    let (config, secrets) = (dir.path().join("config"), dir.path().join("secrets"));
    Dirs {
        _dir: dir,
        config,
        secrets,
    }
}

fn stack() -> StackId {
    "test".parse().unwrap()
}

#[test]
fn what_is_made_fits_together() {
    let dirs = dirs();
    make(&stack(), &dirs.config, &dirs.secrets).unwrap();

    assert!(survey(&dirs.config, &dirs.secrets).is_complete());
    let trust = TrustFile::read(&dirs.config.join("trust.json")).unwrap();
    let vault = SealingKey::read(&dirs.secrets.join("age.key")).unwrap();
    assert_eq!(vault.recipient().to_string(), trust.vault.to_string());
    for name in ["root-ca.key.age", "intermediate.key.age"] {
        let pem = vault
            .open(&fs::read(dirs.secrets.join(name)).unwrap(), 4096)
            .unwrap();
        assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----"), "{name}");
    }
    let signing = SigningKey::read(&dirs.secrets.join("signing-policy")).unwrap();
    assert_eq!(signing.verifying_key(), trust.signing.policy);
    let secret = fs::read_to_string(dirs.secrets.join("enroll-engine")).unwrap();
    let secret = STANDARD.decode(secret.trim()).unwrap();
    assert!(trust.enrolment_secret_matches(Service::Engine, &secret));
    assert!(!trust.enrolment_secret_matches(Service::Policy, &secret));
    assert_eq!(
        fs::read_to_string(dirs.config.join("ca.pem")).unwrap(),
        trust.root_ca_pem
    );
}

#[test]
fn the_intermediate_is_signed_by_the_root_and_may_not_make_another() {
    let dirs = dirs();
    make(&stack(), &dirs.config, &dirs.secrets).unwrap();
    let root = fs::read(dirs.config.join("ca.pem")).unwrap();
    let intermediate = fs::read(dirs.secrets.join("intermediate.pem")).unwrap();
    let root = x509_parser::pem::parse_x509_pem(&root).unwrap().1;
    let intermediate = x509_parser::pem::parse_x509_pem(&intermediate).unwrap().1;
    let (root, intermediate) = (
        root.parse_x509().unwrap(),
        intermediate.parse_x509().unwrap(),
    );

    assert!(root.verify_signature(None).is_ok());
    assert!(
        intermediate
            .verify_signature(Some(root.public_key()))
            .is_ok()
    );
    let constraints = intermediate.basic_constraints().unwrap().unwrap().value;
    assert!(constraints.ca && constraints.path_len_constraint == Some(0));
    assert!(intermediate.name_constraints().unwrap().is_some());
}

#[test]
fn secrets_are_for_their_owner_alone() {
    let dirs = dirs();
    make(&stack(), &dirs.config, &dirs.secrets).unwrap();
    for entry in fs::read_dir(&dirs.secrets).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o400);
    }
}

#[test]
fn a_second_run_changes_nothing_and_names_what_exists() {
    let dirs = dirs();
    make(&stack(), &dirs.config, &dirs.secrets).unwrap();
    let before = fs::read(dirs.secrets.join("age.key")).unwrap();
    let error = make(&stack(), &dirs.config, &dirs.secrets).unwrap_err();
    assert!(
        matches!(&error, Error::Exists(paths) if paths.len() == names().len()),
        "{error}"
    );
    assert_eq!(fs::read(dirs.secrets.join("age.key")).unwrap(), before);
}

#[test]
fn one_file_in_the_way_and_nothing_is_made() {
    let dirs = dirs();
    fs::create_dir(&dirs.secrets).unwrap();
    fs::write(dirs.secrets.join("enroll-worker"), "mine").unwrap();
    let error = make(&stack(), &dirs.config, &dirs.secrets)
        .unwrap_err()
        .to_string();
    assert!(error.contains("enroll-worker"), "{error}");
    assert_eq!(fs::read_dir(&dirs.secrets).unwrap().count(), 1);
    assert_eq!(
        fs::read_to_string(dirs.secrets.join("enroll-worker")).unwrap(),
        "mine"
    );
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    let dirs = dirs();
    make_unwritable(&dirs.config);
    // `trust.json` and `ca.pem` come last, so that all secrets were written when this fails.
    assert!(make(&stack(), &dirs.config, &dirs.secrets).is_err());
    assert_eq!(fs::read_dir(&dirs.secrets).unwrap().count(), 0);
}

/// Root may write everywhere; but nobody can make a file where a folder should be.
fn make_unwritable(config: &Path) {
    fs::write(config, "not a folder").unwrap();
}

#[test]
fn an_interrupted_run_is_made_anew() {
    let dirs = dirs();
    make(&stack(), &dirs.config, &dirs.secrets).unwrap();
    // As it is when the machine stops while files are written.
    fs::write(dirs.secrets.join(".init-unfinished"), "").unwrap();
    fs::remove_file(dirs.config.join("trust.json")).unwrap();
    let before = fs::read(dirs.secrets.join("age.key")).unwrap();
    assert!(survey(&dirs.config, &dirs.secrets).unfinished);

    make(&stack(), &dirs.config, &dirs.secrets).unwrap();
    assert!(survey(&dirs.config, &dirs.secrets).is_complete());
    assert_ne!(fs::read(dirs.secrets.join("age.key")).unwrap(), before);
}

#[test]
fn two_runs_at_once_make_one_set() {
    let dirs = dirs();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| make(&stack(), &dirs.config, &dirs.secrets)))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
    assert!(survey(&dirs.config, &dirs.secrets).is_complete());
    TrustFile::read(&dirs.config.join("trust.json")).unwrap();
}
