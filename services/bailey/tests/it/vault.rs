//! `bailey vault`: what is asked of the broker, and what is said of its answers.

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
            "the secret one has a new value (1 time so far)\n",
            json!({ "outcome": "rolled", "roll_count": 1 }),
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
