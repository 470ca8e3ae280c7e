use bailey_types::Timestamp;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::proof::{check_consistency, check_inclusion};

fn stack() -> StackId {
    "home".parse().unwrap()
}

fn entries(count: usize) -> Vec<NewEntry> {
    let entry = |n: usize| NewEntry {
        at: Timestamp(1_700_000_000_000),
        actor: "engine".into(),
        kind: "job.succeeded".into(),
        fields: RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap(),
    };
    (0..count).map(entry).collect()
}

fn open(dir: &Path, key: &SigningKey) -> (Log, Recovered) {
    Log::open(dir, &stack(), key.clone()).unwrap()
}

#[test]
fn what_was_appended_is_there_after_a_crash() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (mut log, _) = open(dir.path(), &key);
    log.append(&entries(300)).unwrap();
    log.publish().unwrap();
    log.append(&entries(5)).unwrap();
    let (checkpoint, all) = (log.checkpoint(), log.entries(0, 1000).unwrap());
    drop(log); // Nothing is written on drop: this is what kill -9 leaves.

    let (log, recovered) = open(dir.path(), &key);
    assert_eq!(
        recovered,
        Recovered {
            replayed_entries: 5,
            cut_bytes: 0
        }
    );
    assert_eq!(log.checkpoint(), checkpoint);
    assert_eq!(log.entries(0, 1000).unwrap(), all);
    assert_eq!(all.len(), 305);
    assert_eq!(log.entries(254, 4).unwrap(), all[254..258]);
}

#[test]
fn a_batch_that_was_never_finished_is_cut_off() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (mut log, _) = open(dir.path(), &key);
    log.append(&entries(3)).unwrap();
    let whole = fs::read(log.store.journal()).unwrap();
    log.append(&entries(2)).unwrap();
    let both = fs::read(log.store.journal()).unwrap();
    drop(log);
    for length in whole.len()..both.len() {
        // Half of it written, or all of it with the last bytes still zero.
        for torn in [
            both[..length].to_vec(),
            [&both[..length], &vec![0; both.len() - length][..]].concat(),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("journal"), &torn).unwrap();
            let (mut log, recovered) = open(dir.path(), &key);
            assert_eq!(log.size(), 3, "{length}");
            assert_eq!(recovered.cut_bytes, bytes_u64(torn.len() - whole.len()));
            assert_eq!(log.append(&entries(1)).unwrap().first_index, 3);
        }
    }
}

#[test]
fn a_changed_record_before_a_whole_one_is_not_taken_for_a_crash() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (mut log, _) = open(dir.path(), &key);
    log.append(&entries(3)).unwrap();
    log.append(&entries(2)).unwrap();
    let path = log.store.journal();
    drop(log);
    let mut bytes = fs::read(&path).unwrap();
    bytes[50] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(
        Log::open(dir.path(), &stack(), key),
        Err(Error::Damaged(_))
    ));
}

#[test]
fn a_crash_between_publishing_and_emptying_the_journal_repeats_nothing() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (mut log, _) = open(dir.path(), &key);
    log.append(&entries(300)).unwrap();
    let (journal, checkpoint) = (fs::read(log.store.journal()).unwrap(), log.checkpoint());
    log.publish().unwrap();
    fs::write(log.store.journal(), journal).unwrap();
    drop(log);
    let (log, recovered) = open(dir.path(), &key);
    assert_eq!(
        (log.checkpoint(), recovered.replayed_entries),
        (checkpoint, 0)
    );
}

#[test]
fn tiles_lie_where_the_specification_says() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (mut log, _) = open(dir.path(), &key);
    log.append(&entries(200)).unwrap();
    log.publish().unwrap();
    log.append(&entries(370)).unwrap();
    log.publish().unwrap();
    let file = |path: &str| {
        fs::read(dir.path().join(path))
            .map(|bytes| bytes.len())
            .ok()
    };
    assert_eq!(file("tile/0/000"), Some(8192));
    assert_eq!(file("tile/0/001"), Some(8192));
    assert_eq!(file("tile/0/002.p/58"), Some(58 * 32));
    assert_eq!(file("tile/1/000.p/2"), Some(64));
    assert!(file("tile/entries/001").is_some() && file("tile/entries/002.p/58").is_some());
    assert!(
        !dir.path().join("tile/0/000.p").exists(),
        "replaced by the full tile"
    );
    assert!(
        !dir.path().join("tile/entries/000.p").exists(),
        "replaced by the full bundle"
    );
    let path = log.store.tile(TileKind::Hashes(1), 1_234_067, 8);
    assert_eq!(path, dir.path().join("tile/1/x001/x234/067.p/8"));
}

#[test]
fn two_processes_cannot_append() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (_log, _) = open(dir.path(), &key);
    assert!(matches!(
        Log::open(dir.path(), &stack(), key),
        Err(Error::InUse(_))
    ));
}

#[test]
fn a_cosigned_checkpoint_must_be_one_of_ours_and_never_goes_back() {
    let (dir, key, policy) = (
        tempfile::tempdir().unwrap(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let (mut log, _) = open(dir.path(), &key);
    log.append(&entries(3)).unwrap();
    let at = Timestamp(1_700_000_000_000);
    let sign = |note: &[u8]| note::cosign(note, &stack(), Service::Policy, &policy, at).unwrap();
    let older = sign(log.note());
    log.append(&entries(3)).unwrap();
    let newer = sign(log.note());
    let public = policy.verifying_key();
    log.keep_cosigned(&newer, Service::Policy, &public).unwrap();
    assert!(log.keep_cosigned(&older, Service::Policy, &public).is_err());
    assert!(log.keep_cosigned(&newer, Service::Broker, &public).is_err());
    let forged = Checkpoint {
        size: 6,
        root: Sha256([0; 32]),
    };
    let forged = sign(&note::sign(forged, &stack(), &key).unwrap());
    assert!(matches!(
        log.keep_cosigned(&forged, Service::Policy, &public),
        Err(Error::NotOurs(6))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_earlier_tree_and_every_entry_can_be_proved(batches in prop::collection::vec((1_usize..400, any::<bool>()), 1..5)) {
        let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
        let (mut log, _) = open(dir.path(), &key);
        let mut known = Vec::new();
        for (count, publish) in batches {
            log.append(&entries(count)).unwrap();
            if publish {
                log.publish().unwrap();
            }
            known.push(log.checkpoint());
        }
        let now = log.checkpoint();
        for old in known {
            let proof: Vec<_> = log.consistency(old.size).unwrap().iter().map(|hash| hash.0).collect();
            prop_assert_eq!(check_consistency(old, now, &proof), Ok(()));
            let other = Checkpoint { root: Sha256([1; 32]), ..old };
            prop_assert!(check_consistency(other, now, &proof).is_err());
            prop_assert!(old.size == now.size || check_consistency(now, old, &proof).is_err());
        }
        let all = log.entries(0, usize::MAX).unwrap();
        for (index, leaf) in (0..).zip(&all).step_by(37) {
            let proof = log.inclusion(index).unwrap();
            prop_assert_eq!(check_inclusion(now, index, leaf, &proof), Ok(()));
            prop_assert!(check_inclusion(now, index, b"another", &proof).is_err());
        }
    }
}

#[test]
fn the_newest_entry_of_somebody_is_found_from_the_end() {
    let (dir, key) = (tempfile::tempdir().unwrap(), SigningKey::generate());
    let (mut log, _) = open(dir.path(), &key);
    let marked = |actor: &str, kind: &str| NewEntry {
        actor: actor.into(),
        kind: kind.into(),
        ..entries(1).remove(0)
    };
    let wanted = ["vault.kept".to_owned(), "vault.restored".to_owned()];
    let latest = |log: &Log, before: u64, most: u64| {
        let found = log.latest("broker", &wanted, before, most).unwrap();
        (found.entry.is_some(), found.looked_from)
    };
    assert_eq!(latest(&log, u64::MAX, 100), (false, 0));
    log.append(&entries(10)).unwrap();
    log.append(&[marked("broker", "vault.kept")]).unwrap();
    // Of another kind, and of somebody else.
    log.append(&[
        marked("broker", "secret.set"),
        marked("engine", "vault.kept"),
    ])
    .unwrap();
    assert_eq!(latest(&log, u64::MAX, 1000), (true, 10));
    log.append(&entries(700)).unwrap();
    log.publish().unwrap();
    log.append(&[marked("broker", "vault.restored")]).unwrap();
    log.append(&entries(3)).unwrap();
    assert_eq!(latest(&log, u64::MAX, 1000), (true, 713));
    // What is asked for next is what is before, part by part.
    assert_eq!(latest(&log, 713, 100), (false, 512));
    assert_eq!(latest(&log, 512, 300), (true, 10));
    assert_eq!(latest(&log, 10, 300), (false, 0));
    let found = log.latest("broker", &wanted, u64::MAX, 1000).unwrap();
    assert_eq!(found.entry, log.entries(713, 1).unwrap().pop());
}
