use std::error::Error as _;

use bailey_trust::{SealingKey, SigningKey, TrustFile};
use bailey_types::StackId;
use serde_json::value::RawValue;

use super::*;
use crate::leaf::NewEntry;
use crate::log::Log;
use crate::note::cosign;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DAY: Duration = Duration::from_hours(24);

struct Keys {
    audit: SigningKey,
    policy: SigningKey,
    broker: SigningKey,
    trust: TrustFile,
}

fn keys() -> Keys {
    let [audit, policy, broker, scheduler] = std::array::from_fn(|_| SigningKey::generate());
    let sealing = SealingKey::generate().recipient();
    let trust = TrustFile {
        version: 1,
        stack: "home".parse().unwrap(),
        root_ca_pem: String::new(),
        signing: bailey_trust::SigningKeys {
            broker: broker.verifying_key(),
            policy: policy.verifying_key(),
            audit: audit.verifying_key(),
            scheduler: scheduler.verifying_key(),
        },
        socket_proxy: sealing.clone(),
        vault: sealing,
        enrolment: BTreeMap::new(),
    };
    Keys {
        audit,
        policy,
        broker,
        trust,
    }
}

fn entries(count: usize) -> Vec<NewEntry> {
    let fields = || RawValue::from_string("{\"job\":\"x\"}".into()).unwrap();
    let entry = |_| NewEntry {
        at: NOW,
        actor: "engine".into(),
        kind: "job.dead".into(),
        fields: fields(),
    };
    (0..count).map(entry).collect()
}

fn cosign_both(log: &mut Log, keys: &Keys, at: Timestamp) {
    let stack: &StackId = &keys.trust.stack;
    for (service, key) in [
        (Service::Policy, &keys.policy),
        (Service::Broker, &keys.broker),
    ] {
        let note = cosign(log.note(), stack, service, key, at).unwrap();
        log.keep_cosigned(&note, service, &key.verifying_key())
            .unwrap();
    }
}

/// 300 entries as tiles, 4 in the journal, all of them co-signed: an end that nobody co-signed can be cut off unseen.
fn sample(dir: &Path, keys: &Keys) -> Log {
    let (mut log, _) = Log::open(dir, &keys.trust.stack, keys.audit.clone()).unwrap();
    log.append(&entries(300)).unwrap();
    log.publish().unwrap();
    log.append(&entries(2)).unwrap();
    log.append(&entries(2)).unwrap();
    cosign_both(&mut log, keys, NOW);
    log
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_whole_log_is_believed() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    let log = sample(dir.path(), &keys);
    let report = verify_dir(dir.path(), &keys.trust, NOW, DAY).unwrap();
    assert_eq!(report.checkpoint, log.checkpoint());
    assert_eq!((report.checkpoint.size, report.published), (304, 300));
    assert_eq!(
        report.cosigned.iter().map(|c| c.size).collect::<Vec<_>>(),
        [304, 304]
    );
    assert_eq!(report.from_until, Some((NOW, NOW)));
}

#[test]
fn one_changed_byte_anywhere_is_noticed() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    drop(sample(dir.path(), &keys));
    let mut changed = 0;
    for path in files(dir.path()) {
        let before = fs::read(&path).unwrap();
        let step = (before.len() / 15).max(1);
        for at in (0..before.len()).step_by(step) {
            let mut bytes = before.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let result = verify_dir(dir.path(), &keys.trust, NOW, DAY);
            assert!(result.is_err(), "byte {at} of {}", path.display());
            changed += 1;
        }
        fs::write(&path, before).unwrap();
    }
    assert!(changed > 100);
    verify_dir(dir.path(), &keys.trust, NOW, DAY).unwrap();
}

#[test]
fn a_file_that_was_cut_short_or_taken_away_is_noticed() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    drop(sample(dir.path(), &keys));
    for path in files(dir.path()) {
        let before = fs::read(&path).unwrap();
        if before.is_empty() {
            continue; // The lock.
        }
        for length in [0, before.len() / 2, before.len() - 1] {
            fs::write(&path, &before[..length]).unwrap();
            assert!(
                verify_dir(dir.path(), &keys.trust, NOW, DAY).is_err(),
                "{length} of {}",
                path.display()
            );
        }
        fs::remove_file(&path).unwrap();
        assert!(
            verify_dir(dir.path(), &keys.trust, NOW, DAY).is_err(),
            "without {}",
            path.display()
        );
        fs::write(&path, before).unwrap();
    }
}

#[test]
fn an_older_log_of_the_same_stack_does_not_satisfy_the_cosignatures() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    let (mut log, _) = Log::open(dir.path(), &keys.trust.stack, keys.audit.clone()).unwrap();
    log.append(&entries(3)).unwrap();
    log.publish().unwrap();
    let old: Vec<_> = files(dir.path())
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    log.append(&entries(3)).unwrap();
    cosign_both(&mut log, &keys, NOW);
    drop(log);
    for (bytes, path) in old {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let error = verify_dir(dir.path(), &keys.trust, NOW, DAY).unwrap_err();
    assert!(
        matches!(error, VerifyError::Root { size: 6, .. }),
        "{error}"
    );
}

#[test]
fn a_cosignature_is_good_for_a_day() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    drop(sample(dir.path(), &keys));
    let verify = |now| verify_dir(dir.path(), &keys.trust, now, DAY);
    verify(NOW.plus(DAY)).unwrap();
    let error = verify(NOW.plus(DAY).plus(Duration::from_secs(1))).unwrap_err();
    assert!(
        matches!(
            error,
            VerifyError::Stale {
                service: Service::Policy,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        verify(NOW.minus(DAY)).is_err(),
        "a co-signature of the future"
    );
}

#[test]
fn a_log_that_nobody_cosigned_is_refused_by_name() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    drop(Log::open(dir.path(), &keys.trust.stack, keys.audit.clone()).unwrap());
    let error = verify_dir(dir.path(), &keys.trust, NOW, DAY).unwrap_err();
    assert!(error.to_string().contains("cosigned/policy"), "{error}");
    assert!(error.source().is_some());
}

#[test]
fn the_newest_wanted_entries_of_a_log_are_selected_and_of_a_broken_one_none() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), keys());
    let (mut log, _) = Log::open(dir.path(), &keys.trust.stack, keys.audit.clone()).unwrap();
    let mut all = entries(300);
    for (index, entry) in all
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| index % 100 == 0)
    {
        entry.kind = "secret.set".into();
        entry.fields = RawValue::from_string(format!("{{\"n\":{index}}}")).unwrap();
    }
    log.append(&all).unwrap();
    log.publish().unwrap();
    cosign_both(&mut log, &keys, NOW);
    let select = |limit| {
        let wants = |leaf: &Leaf<'_>| leaf.kind.starts_with("secret.");
        select_dir(dir.path(), &keys.trust, NOW, DAY, limit, wants)
    };
    let numbers = |limit| {
        let selected = select(limit).unwrap();
        let numbers = selected
            .iter()
            .map(|entry| entry.fields["n"].as_u64().unwrap());
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(10), [0, 100, 200]);
    assert_eq!(numbers(2), [100, 200]);
    assert_eq!(numbers(0), [0; 0]);
    drop(log);
    let checkpoint = Store::new(dir.path()).checkpoint();
    fs::write(checkpoint, b"nonsense").unwrap();
    assert!(select(10).is_err());
}
