//! `bailey vault`: what is asked of the broker, and what is said of its answers.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::Ran;
use crate::stand::Bench;

impl Bench {
    async fn vault(&self, args: &[&str]) -> Ran {
        self.bailey(&[&["vault"], args].concat()).await
    }

    fn was_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn a_secret_is_granted_as_asked_and_who_was_registered_for_it_is_said() {
    let bench = Bench::start();
    let set = async |grant: &str| {
        bench
            .vault(&["set", "key", "--generate", "--grant", grant])
            .await
    };
    for known in ["core", "shop"] {
        let granted = set(known).await.expect(0).says("keeps the secret key");
        assert!(!granted.stdout.contains("registered"), "{granted:?}");
        assert_eq!(bench.was_asked(), [format!("set key for {known}")]);
    }
    set("new")
        .await
        .expect(0)
        .says("registered the principal new, a consumer");
    // Nothing is registered beside the one change.
    assert_eq!(bench.was_asked(), ["set key for new"]);
    let refused = bench
        .bailey_with(&["vault", "set", "one", "--grant", "new"], "a value")
        .await;
    assert_ne!(refused.code, Some(0));
    refused.complains("the secret one exists");
    assert_eq!(bench.was_asked(), ["set one for new"]);
}

#[tokio::test]
async fn a_length_alone_says_nothing_of_the_alphabet() {
    let bench = Bench::start();
    for (flags, asked) in [
        (&["--length", "48"][..], "set key for  48:"),
        (&["--alphabet", "hex"], "set key for  0:hex"),
        (
            &["--length", "9", "--alphabet", "hex"],
            "set key for  9:hex",
        ),
        (&[], "set key for "),
    ] {
        let set = [&["set", "key", "--generate"], flags].concat();
        bench.vault(&set).await.expect(0);
        assert_eq!(bench.was_asked(), [asked]);
    }
}

#[tokio::test]
async fn each_verb_uses_one_connection() {
    let bench = Bench::start();
    for verb in [
        &["set", "key", "--generate", "--grant", "core"][..],
        &["roll", "one"],
        &["list"],
    ] {
        let before = *bench.connections.lock().unwrap();
        bench.vault(verb).await.expect(0);
        let used = *bench.connections.lock().unwrap() - before;
        assert_eq!(used, 1, "{verb:?}");
    }
    let before = *bench.connections.lock().unwrap();
    let import = ["vault", "import", "-"];
    bench.bailey_with(&import, "A=1").await.expect(0);
    assert_eq!(*bench.connections.lock().unwrap() - before, 1);
}

#[tokio::test]
async fn people_read_sentences_and_programs_the_words_of_the_wire() {
    let bench = Bench::start();
    let one = json!({ "name": "one" });
    let cases: [(&[&str], &str, Value); 8] = [
        (
            &["vault", "roll", "one"],
            "the broker made a new value of the secret one (rolled 1 time so far)\n",
            json!({ "outcome": "rolled", "made_by": "broker", "roll_count": 1 }),
        ),
        (
            &["vault", "revoke", "one"],
            "the secret one is revoked: its value is forgotten\n",
            json!({ "outcome": "revoked" }),
        ),
        (
            &["vault", "register-principal", "one", "--kind", "consumer"],
            "registered the principal one, a consumer\n",
            json!({ "outcome": "principal_registered", "kind": "consumer" }),
        ),
        (
            &["vault", "revoke-principal", "one"],
            "the principal one is revoked: what runs in its name fails\n",
            json!({ "outcome": "principal_revoked" }),
        ),
        (
            &["vault", "purge-principal", "one"],
            "the principal one is forgotten\n  took back its grant of one\n",
            json!({ "outcome": "principal_purged", "stripped": ["one"] }),
        ),
        (
            &["vault", "roll-principal", "one"],
            "rolled made\nskipped typed: its values are yours to make, with `bailey vault roll typed`\n",
            json!({ "rolled": ["made"], "skipped": ["typed"] }),
        ),
        (
            &["token", "revoke", "one"],
            "the API token one is revoked: the next request with it is refused\n",
            json!({ "outcome": "token_revoked" }),
        ),
        (
            &["vault", "set", "one", "--generate"],
            "keeps the secret one\n",
            json!({ "outcome": "set", "registered": [] }),
        ),
    ];
    for (args, sentence, fields) in cases {
        assert_eq!(bench.bailey(args).await.expect(0).stdout, sentence);
        let shown = bench.bailey(&[args, &["--json"]].concat()).await.expect(0);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        for expected in [&one, &fields] {
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(shown[name], *value, "{args:?}");
            }
        }
    }
}

#[tokio::test]
async fn numbers_have_units_and_what_waits_for_the_audit_log_is_told() {
    let bench = Bench::start();
    bench
        .vault(&["describe", "one"])
        .await
        .expect(0)
        .says("made by the broker: 48 characters, base64url")
        .says("rolled      0 times");
    bench
        .vault(&["status"])
        .await
        .expect(0)
        .says("the audit log does not have 1 record yet");
}

#[tokio::test]
async fn grants_are_shown_both_ways_round() {
    let bench = Bench::start();
    let shown = bench.vault(&["grants", "--json"]).await.expect(0);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let one = json!({ "secret": "one", "status": "active", "principals": ["greet"] });
    assert_eq!(shown["secrets"][0], one);
    let shop =
        json!({ "principal": "shop", "kind": "consumer", "status": "active", "secrets": [] });
    assert_eq!(shown["principals"][1], shop);
    bench
        .vault(&["list"])
        .await
        .expect(0)
        .says("two     revoked");
    let missing = bench.vault(&["describe", "three"]).await.expect(78);
    missing.complains("there is no secret three");
}

#[tokio::test]
async fn a_value_for_a_secret_that_the_broker_rolls_is_refused_and_nothing_is_rolled() {
    let bench = Bench::start();
    let roll = ["vault", "roll", "one"];
    let of = |command: &str| {
        let mut command = tokio::process::Command::new(command);
        command.stdout(Stdio::piped());
        command
    };
    let file = bench.bailey_with(&roll, "a value\n").await;
    let mut writer = of("echo").arg("a value").spawn().unwrap();
    let pipe: Stdio = writer.stdout.take().unwrap().try_into().unwrap();
    let pipe = bench.bailey_from(&roll, pipe).await;
    writer.wait().await.unwrap();
    for given in [file, pipe] {
        given
            .expect(78)
            .complains("the broker makes the values of one")
            .complains("`bailey vault set one --keep-value --manual`");
    }
    assert_eq!(bench.was_asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_secret_that_the_broker_rolls_is_rolled_wherever_nothing_is_given() {
    let bench = Bench::start();
    let roll = ["vault", "roll", "one"];
    // As cron, as ssh without a terminal and `docker run -i` leave it, as an empty file, and as a line without anything in it.
    let mut silent = tokio::process::Command::new("sleep")
        .arg("600")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let open: Stdio = silent.stdout.take().unwrap().try_into().unwrap();
    let ran = [
        bench.bailey_from(&roll, Stdio::null()).await,
        bench.bailey_from(&roll, open).await,
        bench.bailey_with(&roll, "").await,
        bench.bailey_with(&roll, "\n").await,
    ];
    for ran in ran {
        // Nobody may take for the secret's what comes by such a pipe later.
        ran.expect(0)
            .says("the broker made a new value of the secret one");
    }
    assert_eq!(bench.was_asked(), ["roll one"; 4]);
}

#[tokio::test]
async fn a_value_for_a_secret_that_the_operator_rolls_is_its_new_one() {
    let bench = Bench::start();
    let roll = ["vault", "roll", "typed"];
    let rolled = bench.bailey_with(&roll, "a value\n").await.expect(0);
    let sentence = "the secret typed has the new value (rolled 1 time so far)\n";
    assert_eq!(rolled.stdout, sentence);
    let roll = ["vault", "roll", "typed", "--json"];
    let rolled = bench.bailey_with(&roll, "a value\n").await.expect(0);
    let rolled: Value = serde_json::from_str(&rolled.stdout).unwrap();
    assert_eq!(rolled["made_by"], "operator");
    assert_eq!(bench.was_asked(), ["roll typed to a value"; 2]);
}

/// A terminal at which something was typed already; it lives as long as its other end.
pub(crate) fn typed(text: &[u8]) -> (std::fs::File, std::fs::File) {
    let controller = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
    rustix::pty::grantpt(&controller).unwrap();
    rustix::pty::unlockpt(&controller).unwrap();
    let name = rustix::pty::ptsname(&controller, Vec::new()).unwrap();
    let terminal = std::fs::File::open(name.to_str().unwrap()).unwrap();
    let mut controller = std::fs::File::from(controller);
    controller.write_all(text).unwrap();
    (controller, terminal)
}

#[tokio::test]
async fn at_a_terminal_nobody_is_asked_for_a_value_that_the_broker_makes() {
    let bench = Bench::start();
    // What was typed ahead is for the shell.
    let (_controller, terminal) = typed(b"ls\n");
    let ran = bench.bailey_from(&["vault", "roll", "one"], terminal.into());
    ran.await.expect(0).says("the broker made a new value");
    assert_eq!(bench.was_asked(), ["roll one"]);
}

#[tokio::test]
async fn what_is_kept_must_be_there() {
    let bench = Bench::start();
    bench
        .vault(&["set", "one", "--keep-value", "--no-grants"])
        .await
        .expect(0);
    assert_eq!(bench.was_asked(), ["set one for  if it is there"]);
}

#[tokio::test]
async fn whether_the_vault_is_open_is_its_status_exit_code() {
    let bench = Bench::start();
    bench.vault(&["status"]).await.expect(0);
    for (state, detail, said) in [
        ("sealed", "age.key is empty", "sealed: age.key is empty\n"),
        (
            "no_vault",
            "",
            "there is no vault yet: run `bailey vault init`\n",
        ),
        ("no_vault", "vault.age is gone", "vault.age is gone\n"),
    ] {
        *bench.state.lock().unwrap() = (state, detail);
        bench.vault(&["status"]).await.expect(2).says(said);
        bench
            .vault(&["status", "--json"])
            .await
            .expect(2)
            .says(state);
    }
    std::fs::remove_file(bench.stack.dir().join("manage/broker/manage.sock")).unwrap();
    bench
        .vault(&["status"])
        .await
        .expect(1)
        .complains("broker does not answer");
}
