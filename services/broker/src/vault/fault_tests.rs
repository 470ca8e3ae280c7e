//! Whatever happens during a write, and whatever lies on the disk: the vault is the old one or the new one, or sealed with a reason.

use std::collections::BTreeSet;

use bailey_trust::SealingKey;
use bailey_types::Timestamp;

use super::tests::{Fixture, never_opened, principal, sealed};
use super::*;
use crate::change;
use crate::faults::{self, STEPS};
use crate::record::{Records, What};

/// What a child does to the vault in its folder: registers the principal `late`, and says how that went.
#[test]
fn child() {
    let Some(folder) = faults::child() else {
        return; // Run by the others only.
    };
    let _scenario = fail::FailScenario::setup();
    let fixture = Fixture::in_folder(&folder);
    let vault = fixture.open();
    let before = vault.document().unwrap();
    let late =
        |document: &mut Document| document.register(principal("late"), PrincipalKind::Plugin);
    let result = vault.change(late);
    let report = match (&result, vault.state()) {
        (Ok(_), State::Open(_)) => "changed".to_owned(),
        // Rolled back: what it has in hand is what it had before.
        (Err(e), State::Open(now)) if now == before => format!("refused: {}", Chain(e)),
        (Err(e), State::Sealed(_)) => {
            // As the broker does a few seconds later.
            assert!(vault.unseal());
            format!("sealed, then unsealed: {}", Chain(e))
        }
        (result, state) => panic!("{result:?} {state:?}"),
    };
    println!("{report}");
}

const CHILD: &str = "vault::fault_tests::child";

/// The principals of a vault that must be whole, which a further change can be made to.
fn whole(fixture: &Fixture, when: &str) -> BTreeSet<String> {
    let vault = fixture.open();
    let document = vault
        .document()
        .unwrap_or_else(|e| panic!("{when}: {}", Chain(&e)));
    let after =
        |document: &mut Document| document.register(principal("after"), PrincipalKind::Plugin);
    assert!(vault.change(after).unwrap(), "{when}");
    let left: Vec<_> = std::fs::read_dir(fixture.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().ends_with(".new"))
        .collect();
    assert!(left.is_empty(), "{when}: {left:?}");
    document
        .principals
        .keys()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn killed_at_any_step_the_vault_is_the_old_one_or_the_new_one() {
    for step in STEPS {
        let fixture = Fixture::new();
        drop(fixture.filled());
        let faults = format!("vault.age/{step}=return(kill)");
        let ended = faults::run(CHILD, &fixture.path(""), &faults);
        assert!(ended.killed, "{step} was not reached");
        let renamed = ["renamed", "done"].contains(&step);
        assert_eq!(whole(&fixture, step).contains("late"), renamed, "{step}");
    }
    // The permitted neighbour.
    let fixture = Fixture::new();
    drop(fixture.filled());
    assert!(!faults::run(CHILD, &fixture.path(""), "").killed);
    assert!(whole(&fixture, "unharmed").contains("late"));
}

/// What a child finds at its start, and a little later.
#[test]
fn opening_child() {
    let Some(folder) = faults::child() else {
        return; // Run by the other only.
    };
    let _scenario = fail::FailScenario::setup();
    let vault = Fixture::in_folder(&folder).unproven();
    let found = vault.unproven().is_some();
    println!("at the start: {found}, later: {}", vault.unseal());
}

/// It would be told to the log as kept, and a loss of power could still take it back.
#[test]
fn a_vault_that_the_disk_does_not_keep_yet_is_not_opened() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let opened = |faults: &str| {
        let child = "vault::fault_tests::opening_child";
        faults::run(child, &fixture.path(""), faults).printed
    };
    let printed = opened("vault.age/found=1*return(5)");
    assert!(
        printed.contains("at the start: false, later: true"),
        "{printed}"
    );
    let printed = opened("");
    assert!(
        printed.contains("at the start: true, later: false"),
        "{printed}"
    );
}

/// As `child`, with a change that the audit log has already; and then the disk is looked at a few times, as the broker does.
#[test]
fn recorded_child() {
    let Some(folder) = faults::child() else {
        return; // Run by the others only.
    };
    let _scenario = fail::FailScenario::setup();
    // There is no way to the log here: what would be told is in the process's own.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stdout)
        .init();
    let (vault, records) = (Fixture::in_folder(&folder).open(), Records::default());
    let planned = vault.plan(|it| it.register(principal("late"), PrincipalKind::Plugin));
    let planned = planned.unwrap();
    let attempt = records.attempt(["principal.registered"], What::Vault(planned.revision()));
    match change::settled(attempt, vault.commit(planned)) {
        Ok(_) => println!("it was done"),
        Err(e) => println!("answered: {}", Chain(&e)),
    }
    for _ in 0..5 {
        if vault.unseal() {
            let noted = vault.did_offline(Deed::Unsealed, Timestamp(1));
            println!("noted: {noted:?}");
        }
    }
}

#[test]
fn a_change_that_may_be_lost_with_the_power_is_not_recorded_as_not_done() {
    let run = |faults: &str| {
        let fixture = Fixture::new();
        drop(fixture.filled());
        let child = "vault::fault_tests::recorded_child";
        faults::run(child, &fixture.path(""), faults).printed
    };
    for step in ["renamed", "done"] {
        let printed = run(&format!("vault.age/{step}=1*return(5)"));
        assert!(printed.contains("vault.maybe_changed"), "{printed}");
        assert!(
            printed.contains("\"maybe_done\":[\"principal.registered\"]"),
            "{printed}"
        );
        assert!(
            printed.contains("answered: the change may be done"),
            "{printed}"
        );
        assert!(!printed.contains("vault.not_changed"), "{printed}");
    }
    // The permitted neighbours: what was not done is recorded as that, and of what was done nothing more.
    let printed = run("vault.age/synced=1*return(5)");
    assert!(printed.contains("vault.not_changed"), "{printed}");
    let printed = run("");
    assert!(printed.contains("it was done"), "{printed}");
    assert!(!printed.contains("_changed"), "{printed}");
}

#[test]
fn a_disk_that_fails_again_and_again_is_noted_once() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let child = "vault::fault_tests::recorded_child";
    let printed = faults::run(child, &fixture.path(""), "vault.age/renamed=return(5)").printed;
    let noted = |how: &str| printed.matches(&format!("noted: {how}")).count();
    // The note itself seals the vault again; read again it is there, and nothing more is written.
    assert_eq!((noted("Err"), noted("Ok")), (1, 1), "{printed}");
    let document = fixture.open().document().unwrap();
    assert_eq!(document.unrecorded.len(), 1);
}

#[test]
fn a_disk_that_fails_at_any_step_changes_nothing_or_everything() {
    // ENOSPC, EROFS, EIO.
    for errno in [28, 30, 5] {
        for step in STEPS {
            let fixture = Fixture::new();
            drop(fixture.filled());
            let faults = format!("vault.age/{step}=1*return({errno})");
            let report = faults::run(CHILD, &fixture.path(""), &faults).printed;
            let renamed = ["renamed", "done"].contains(&step);
            let expected = if renamed {
                "sealed, then unsealed"
            } else {
                "refused"
            };
            assert!(report.contains(expected), "{faults}: {report}");
            assert!(report.contains("injecting a fault"), "{faults}: {report}");
            assert_eq!(
                whole(&fixture, &faults).contains("late"),
                renamed,
                "{faults}"
            );
        }
    }
}

/// Runs the child with the vault on a small file system of its own, which `script` mounts at `disk` and treats as it likes.
fn on_a_disk(script: &str) -> String {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let before = std::fs::read(fixture.path("vault.age")).unwrap();
    let folder = fixture.path("");
    let script = format!(
        "set -e; cd {0}; mkdir disk; mount -t tmpfs -o size=64k,mode=0700 none disk; \
         cp -p vault.age age.key trust.json this-is-a-child disk; cd disk; {script}; \
         (\"$@\" || true) >../printed 2>&1; cp vault.age ../after",
        folder.display()
    );
    let arguments = [
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    let output = faults::command("unshare", &arguments, CHILD, &folder, "")
        .output()
        .unwrap();
    let printed = std::fs::read_to_string(fixture.path("printed")).unwrap_or_default();
    assert!(output.status.success(), "{output:?} {printed}");
    assert_eq!(std::fs::read(fixture.path("after")).unwrap(), before);
    printed
}

#[test]
fn a_full_disk_refuses_the_change_and_loses_nothing() {
    let report = on_a_disk("cat /dev/zero >filler 2>/dev/null || true");
    assert!(report.contains("refused: "), "{report}");
    assert!(report.contains("No space left on device"), "{report}");
}

#[test]
fn a_read_only_volume_seals_with_its_reason() {
    let printed = on_a_disk("mount -o remount,ro .");
    // The child cannot even open it, and says why.
    assert!(printed.contains("Read-only file system"), "{printed}");
}

#[test]
fn what_lies_on_the_disk_is_a_vault_or_the_reason_for_a_seal() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let good = std::fs::read(fixture.path("vault.age")).unwrap();
    let later = br#"{"version":2,"stack":"test","of_later":true}"#;
    let cases: [(&str, Vec<u8>, &str); 5] = [
        ("truncated", good[..good.len() / 2].to_vec(), "opening"),
        (
            "short of one byte",
            good[..good.len() - 1].to_vec(),
            "opening",
        ),
        ("garbage", vec![0xa5; 4096], "opening"),
        (
            "followed by something",
            [good.as_slice(), b"x"].concat(),
            "opening",
        ),
        (
            "of a later version",
            fixture.key.recipient().seal(later).unwrap(),
            "it has version 2; this broker reads version 1",
        ),
    ];
    for (what, blob, reason) in cases {
        never_opened(&fixture, what, &blob, reason);
    }
    std::fs::write(fixture.path("vault.age"), &good).unwrap();
    assert!(fixture.open().document().is_ok());
}

#[test]
fn a_vault_that_is_no_file_seals_and_stays() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("vault.age")).unwrap();
    let vault = fixture.open();
    assert!(sealed(&vault).contains("is no file"), "{}", sealed(&vault));
    assert!(matches!(
        vault.init(fixture.genesis()),
        Err(Error::Sealed(_))
    ));
    // Mended, it is taken up without a restart.
    std::fs::remove_dir(fixture.path("vault.age")).unwrap();
    assert!(!vault.unseal(), "there is none to unseal");
    vault.init(fixture.genesis()).unwrap();
}

/// Opened as a file, the pipe would keep the broker's only thread for ever; behind the link is somebody else's file.
#[test]
fn a_pipe_or_a_link_in_its_place_seals() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    let (path, aside) = (fixture.path("vault.age"), fixture.path("aside"));
    std::fs::rename(&path, &aside).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert!(sealed(&fixture.open()).contains("is no file"));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    assert!(sealed(&fixture.open()).contains("is no file"));
    // The permitted neighbour.
    std::fs::rename(&aside, &path).unwrap();
    assert!(fixture.open().document().is_ok());
}

#[test]
fn a_folder_that_is_not_there_yet_is_taken_up_when_it_is() {
    let fixture = Fixture::new();
    let late = fixture.path("late");
    let vault = Vault::open(&late, &fixture.path("age.key"), &fixture.trust).unwrap();
    assert!(sealed(&vault).contains("opening"), "{}", sealed(&vault));
    std::fs::create_dir(&late).unwrap();
    assert!(!vault.unseal(), "there is none to unseal");
    vault.init(fixture.genesis()).unwrap();
}

#[test]
fn what_an_interrupted_write_left_is_gone_at_the_next_start() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    std::fs::write(fixture.path(".vault.age.new"), b"half a va").unwrap();
    let _vault = fixture.open();
    assert!(!fixture.path(".vault.age.new").exists());
}

#[test]
fn a_process_that_dies_gives_the_vault_free() {
    let fixture = Fixture::new();
    drop(fixture.filled());
    assert!(faults::run(CHILD, &fixture.path(""), "vault.age/synced=return(kill)").killed);
    assert!(fixture.open().document().is_ok());
}

#[test]
fn every_recipient_opens_every_save_and_a_removed_one_the_next_no_more() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let (paper, stranger) = (SealingKey::generate(), SealingKey::generate());
    let opens = |key: &SealingKey| {
        content::open_of_anybody(&std::fs::read(fixture.path("vault.age")).unwrap(), key).is_ok()
    };
    assert!(!opens(&paper));
    let add = |recipient: SealingRecipient| {
        vault.change(|document| {
            let own = fixture.key.recipient();
            Ok(document.add_recipient(&own, recipient, "in the safe".into(), Timestamp(1))?)
        })
    };
    assert!(add(paper.recipient()).unwrap());
    assert!(!add(paper.recipient()).unwrap());
    assert!(opens(&paper) && opens(&fixture.key) && !opens(&stranger));
    vault
        .change(|document| document.register(principal("echo"), PrincipalKind::Plugin))
        .unwrap();
    assert!(opens(&paper) && opens(&fixture.key));
    vault
        .change(|document| Ok(document.remove_recipient(&paper.recipient())?))
        .unwrap();
    assert!(!opens(&paper) && opens(&fixture.key));
}

#[test]
fn recipients_have_rules() {
    let mut document = Fixture::new().genesis();
    let own = SealingKey::generate().recipient();
    let mut add = |recipient, note: &str| {
        document.add_recipient(&own, recipient, note.to_owned(), Timestamp(1))
    };
    let any = || SealingKey::generate().recipient();
    assert_eq!(add(own.clone(), ""), Err(recipients::Refused::Own));
    let long = "x".repeat(Document::DESCRIPTION_LIMIT_BYTES + 1);
    assert_eq!(add(any(), &long), Err(recipients::Refused::NoteTooLong));
    for _ in 0..Document::RECIPIENT_LIMIT {
        assert_eq!(add(any(), ""), Ok(true));
    }
    assert_eq!(add(any(), ""), Err(recipients::Refused::Full));
    let unknown = any();
    let refused = recipients::Refused::Unknown(unknown.to_string());
    assert_eq!(document.remove_recipient(&unknown), Err(refused));
}

/// The standard tool, where it is installed: Debian's `age` is a dependency of the tests (deploy/test.sh).
#[test]
fn the_standard_age_tool_reads_the_vault_with_either_key() {
    let fixture = Fixture::new();
    let vault = fixture.filled();
    let paper = SealingKey::generate();
    let own = fixture.key.recipient();
    vault
        .change(|document| {
            Ok(document.add_recipient(&own, paper.recipient(), String::new(), Timestamp(1))?)
        })
        .unwrap();
    let paper_path = fixture.path("paper.key");
    std::fs::write(&paper_path, paper.to_file_text().as_bytes()).unwrap();
    for identity in [fixture.path("age.key"), paper_path] {
        let output = std::process::Command::new("age")
            .args(["--decrypt", "--identity"])
            .args([&identity, &fixture.path("vault.age")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // What it prints says who wrote it first; the rest is the document.
        let mut printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let author = printed.as_object_mut().unwrap().remove("author");
        assert_eq!(author.unwrap().as_array().unwrap().len(), 1);
        let document: Document = serde_json::from_value(printed).unwrap();
        assert_eq!(document, *vault.document().unwrap());
    }
}
