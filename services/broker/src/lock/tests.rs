use bailey_trust::{SealingKey, VerifyingKey};
use bailey_types::Blake3;

use super::*;
use crate::testing::proposed;
use crate::token::Bearer;
use crate::vault::{Nonce, Vault};

struct World {
    dir: tempfile::TempDir,
    vault: Vault,
    notary: Notary,
    public: VerifyingKey,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let age_key = SealingKey::generate();
        let path = dir.path().join("age.key");
        std::fs::write(&path, age_key.to_file_text()).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).unwrap();
        let trust = crate::testing::trust(&age_key);
        let vault = Vault::open(dir.path(), &path, &trust).unwrap();
        let genesis = Document::genesis(
            trust.stack.clone(),
            Bearer::admin().hash(),
            Nonce::generate(),
        );
        vault.init(genesis).unwrap();
        let key = SigningKey::generate();
        let public = key.verifying_key();
        Self {
            dir,
            vault,
            notary: Notary::new(trust.stack, key),
            public,
        }
    }

    fn propose(&self, plugins: &[&str], present: Option<&Lock>) -> Proposed {
        let vault = self.vault.document().unwrap();
        self.notary
            .propose(&vault, present, proposal(plugins), Timestamp(1))
            .unwrap()
    }

    fn sign(&self, code: &str) -> Result<Lock, Error> {
        let signing = self.notary.sign(code, Timestamp(2))?;
        let remembered = self.vault.change(|document| signing.remember(document));
        remembered.map_err(|e| Error::Change(e.into()))?;
        self.notary.signed(code);
        let (lock, signed) = (signing.lock, signing.signed);
        let verified = bailey_trust::verify::<Lock>(&signed, &self.public).unwrap();
        assert_eq!(verified.statement, lock);
        Ok(lock)
    }

    fn locked(&self, plugins: &[&str]) -> Lock {
        self.sign(&self.propose(plugins, None).code).unwrap()
    }
}

fn proposal(plugins: &[&str]) -> LockProposal {
    let enabled: Vec<String> = plugins
        .iter()
        .map(|name| format!("  {name}: {{}}\n"))
        .collect();
    let enabled = enabled.concat();
    let text = format!("accounts:\n  default: {{}}\nplugins:\n{enabled}");
    let files = BTreeMap::from([("config.yaml".to_owned(), text)]);
    let plugins = plugins
        .iter()
        .map(|name| (name.parse().unwrap(), proposed(name)))
        .collect();
    LockProposal {
        config_files: files,
        plugins,
    }
}

fn uids(lock: &Lock, plugin: &str) -> (u32, u32) {
    let locked = &lock.plugins[&plugin.parse::<PluginName>().unwrap()];
    (locked.uid, locked.holder_uid)
}

#[test]
fn what_was_previewed_is_what_is_signed() {
    let world = World::new();
    let proposed = world.propose(&["echo", "greet"], None);
    let signed = world.sign(&proposed.code).unwrap();
    assert_eq!(
        Lock {
            signed_at: proposed.lock.signed_at,
            ..signed.clone()
        },
        proposed.lock
    );
    assert_eq!((signed.serial, signed.signed_at), (Serial(1), Timestamp(2)));
    assert_eq!(
        (uids(&signed, "echo"), uids(&signed, "greet")),
        ((20_000, 20_001), (20_002, 20_003))
    );
    let nonce = &world.vault.document().unwrap().nonce;
    let echo = &signed.plugins[&"echo".parse::<PluginName>().unwrap()];
    assert_eq!(echo.tree_mac, tree_mac(nonce, &Blake3([2; 32])));
}

#[test]
fn the_same_proposal_has_the_same_code_and_another_has_another() {
    let world = World::new();
    let code = world.propose(&["echo"], None).code;
    assert_eq!(world.propose(&["echo"], None).code, code);
    let later = proposal(&["echo"]);
    let vault = world.vault.document().unwrap();
    let later = world
        .notary
        .propose(&vault, None, later, Timestamp(99))
        .unwrap();
    assert_eq!(later.code, code);
    assert_ne!(world.propose(&["greet"], None).code, code);
    let mut edited = proposal(&["echo"]);
    edited
        .config_files
        .get_mut("config.yaml")
        .unwrap()
        .push_str("# edited\n");
    let edited = world
        .notary
        .propose(&vault, None, edited, Timestamp(1))
        .unwrap();
    assert_ne!(edited.code, code);
    assert_ne!(World::new().propose(&["echo"], None).code, code);
}

#[test]
fn a_code_is_eight_symbols_that_nobody_confuses() {
    let world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..200 {
        let code = world.propose(&[&format!("plugin{i}")], None).code;
        assert!(
            code.len() == 8 && code.bytes().all(|b| Notary::SYMBOLS.contains(&b)),
            "{code}"
        );
        seen.insert(code);
    }
    assert_eq!(seen.len(), 200);
    for confused in b"0O1I" {
        assert!(!Notary::SYMBOLS.contains(confused));
    }
}

#[test]
fn a_wrong_or_used_code_signs_nothing() {
    let world = World::new();
    let code = world.propose(&["echo"], None).code;
    assert!(matches!(world.sign("AAAAAAAA"), Err(Error::NoSuchCode)));
    let typed = format!(" {}-{} ", &code[..4].to_lowercase(), &code[4..]);
    assert!(world.sign(&typed).is_ok());
    assert!(matches!(world.sign(&code), Err(Error::NoSuchCode)));
    assert_eq!(world.vault.document().unwrap().lock.serial, Serial(1));
}

#[test]
fn a_proposal_made_before_another_lock_was_signed_is_void() {
    let world = World::new();
    let stale = world.propose(&["echo"], None).code;
    let fresh = world.propose(&["greet"], None).code;
    assert!(world.sign(&fresh).is_ok());
    let refused = world.sign(&stale);
    let moved = matches!(
        refused,
        Err(Error::Change(change::Error::Vault(vault::Error::Refused(
            vault::Refused::LockMoved
        ))))
    );
    assert!(moved, "{refused:?}");
}

#[test]
fn uids_are_kept_and_never_given_twice() {
    let world = World::new();
    let first = world.locked(&["echo", "greet"]);
    let second = world.locked(&["fetch"]);
    assert_eq!(uids(&second, "fetch"), (20_004, 20_005));
    let third = world.locked(&["echo", "new"]);
    assert_eq!(uids(&third, "echo"), uids(&first, "echo"));
    assert_eq!(uids(&third, "new"), (20_006, 20_007));
    assert_eq!((third.serial, third.next_uid), (Serial(3), 20_008));
}

#[test]
fn a_vault_made_anew_goes_on_from_the_lock_in_force() {
    let old = World::new().locked(&["echo", "greet"]);
    let world = World::new();
    let proposed = world.propose(&["fetch", "greet"], Some(&old));
    let lock = world.sign(&proposed.code).unwrap();
    assert_eq!((lock.serial, lock.next_uid), (Serial(2), 20_006));
    assert_eq!(
        (uids(&lock, "greet"), uids(&lock, "fetch")),
        (uids(&old, "greet"), (20_004, 20_005))
    );
}

/// Locks these plugins on top of `present`; those in `reset` with their state reset. Answers the generation of each.
fn generations(world: &World, plugins: &[&str], reset: &[&str], present: Option<&Lock>) -> Lock {
    let vault = world.vault.document().unwrap();
    let mut proposal = proposal(plugins);
    for name in reset {
        let plugin = proposal
            .plugins
            .get_mut(&name.parse::<PluginName>().unwrap());
        plugin.unwrap().reset_state = true;
    }
    let proposed = world
        .notary
        .propose(&vault, present, proposal, Timestamp(1))
        .unwrap();
    world.sign(&proposed.code).unwrap()
}

fn generation(lock: &Lock, plugin: &str) -> u32 {
    lock.plugins[&plugin.parse::<PluginName>().unwrap()].state_generation
}

#[test]
fn state_is_kept_unless_it_is_reset_and_what_was_left_behind_never_comes_back() {
    let world = World::new();
    let first = generations(&world, &["echo", "greet"], &[], None);
    assert_eq!(
        (generation(&first, "echo"), generation(&first, "greet")),
        (0, 0)
    );
    let second = generations(&world, &["echo", "greet"], &["echo"], Some(&first));
    assert_eq!(
        (generation(&second, "echo"), generation(&second, "greet")),
        (1, 0)
    );
    // What was proposed once is not proposed again by whoever goes on from the lock.
    assert!(
        second
            .plugins
            .values()
            .all(|plugin| !plugin.proposed.reset_state)
    );
    let third = generations(&world, &["echo", "greet"], &[], Some(&second));
    assert_eq!(generation(&third, "echo"), 1);
    // Gone and back again, with the lock lost in between.
    generations(&world, &["greet"], &[], Some(&third));
    assert_eq!(
        generation(&generations(&world, &["echo"], &[], None), "echo"),
        1
    );
}

#[test]
fn a_vault_made_anew_goes_on_with_the_state_of_the_lock_in_force() {
    let world = World::new();
    let old = generations(&world, &["echo"], &["echo"], None);
    assert_eq!(generation(&old, "echo"), 1);
    let anew = generations(&World::new(), &["echo"], &[], Some(&old));
    assert_eq!(generation(&anew, "echo"), 1);
    let reset = generations(&World::new(), &["echo"], &["echo"], Some(&old));
    assert_eq!(generation(&reset, "echo"), 2);
}

#[test]
fn the_serial_is_on_disk_before_the_signature_is_out() {
    let world = World::new();
    let code = world.propose(&["echo"], None).code;
    // The disk refuses: there is no signature, and the serial is still free.
    let blocked = world.dir.path().join(".vault.age.new");
    std::fs::create_dir(&blocked).unwrap();
    assert!(matches!(
        world.sign(&code),
        Err(Error::Change(change::Error::Vault(vault::Error::Write(_))))
    ));
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(world.vault.document().unwrap().lock.serial, Serial(0));
    assert_eq!(world.locked(&["echo"]).serial, Serial(1));
}

#[test]
fn uids_run_out_instead_of_reaching_into_those_of_others() {
    let mut state = LockState {
        serial: Serial(0),
        next_uid: 59_998,
        uids: BTreeMap::new(),
    };
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert!(give(&mut state, &a).is_ok());
    assert!(matches!(give(&mut state, &b), Err(Error::NoUid)));
    assert!(give(&mut state, &a).is_ok());
}

#[test]
fn a_proposal_that_does_not_fit_its_configuration_is_refused() {
    let world = World::new();
    let vault = world.vault.document().unwrap();
    let refused = |proposal: LockProposal| {
        let refused = world.notary.propose(&vault, None, proposal, Timestamp(1));
        let Err(Error::Config(why)) = refused else {
            panic!("{refused:?}")
        };
        why
    };
    let echo: PluginName = "echo".parse().unwrap();
    let mut missing = proposal(&["echo", "greet"]);
    missing.plugins.remove(&echo);
    assert_eq!(
        refused(missing),
        "the plugin echo is enabled, but not proposed to be locked"
    );
    let mut added = proposal(&["greet"]);
    added.plugins.insert(echo.clone(), proposed("echo"));
    assert_eq!(
        refused(added),
        "the plugin echo is proposed, but not enabled"
    );
    let mut moved = proposal(&["echo"]);
    moved.plugins.get_mut(&echo).unwrap().account = "other".parse().unwrap();
    assert_eq!(
        refused(moved),
        "the plugin echo runs as default, but is proposed as other"
    );
    let mut weaker = proposal(&["echo"]);
    weaker.plugins.get_mut(&echo).unwrap().walls.mode = bailey_trust::Mode::Unconfined;
    assert_eq!(
        refused(weaker),
        "the plugin echo is confined by its configuration, but is proposed as unconfined"
    );
    let mut broken = proposal(&["echo"]);
    broken
        .config_files
        .insert("config.yaml".into(), "surprise: 1\n".into());
    assert!(refused(broken).starts_with("config.yaml:1:"));
}

#[test]
fn a_malformed_proposal_is_refused() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"config_files":{},"plugins":{},"extra":1}"#,
    ] {
        assert!(
            matches!(parse(text.as_bytes()), Err(Error::Malformed(_))),
            "{text}"
        );
    }
    let text = serde_json::to_vec(&proposal(&["echo"])).unwrap();
    assert_eq!(parse(&text).unwrap(), proposal(&["echo"]));
}

#[test]
fn there_is_an_end_to_services() {
    let world = World::new();
    let propose = |count: usize| {
        let names: Vec<String> = (0..count).map(|nth| format!("p{nth}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut proposal = proposal(&names);
        for plugin in proposal.plugins.values_mut() {
            plugin
                .manifest
                .commands
                .push(crate::testing::command("serve"));
            plugin.manifest.container.mode = Some(bailey_plugin::RunMode::Service);
            plugin.walls.service = Some(bailey_trust::ServiceTerms::default());
        }
        let vault = world.vault.document().unwrap();
        world.notary.propose(&vault, None, proposal, Timestamp(1))
    };
    assert!(propose(MAX_SERVICES).is_ok());
    assert!(matches!(propose(MAX_SERVICES + 1), Err(Error::Config(_))));
}
