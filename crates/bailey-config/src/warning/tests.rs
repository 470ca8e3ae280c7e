use std::collections::BTreeMap;

use super::*;

fn said(text: &str) -> Vec<String> {
    let files = BTreeMap::from([("config.yaml".to_owned(), text.to_owned())]);
    warnings(&crate::parse(&files).unwrap())
}

/// Exactly these warnings, told by a word of each.
#[track_caller]
fn expect(text: &str, words: &[&str]) {
    let said = said(text);
    assert_eq!(said.len(), words.len(), "{text}: {said:#?}");
    for (warning, word) in said.iter().zip(words) {
        assert!(warning.contains(word), "{word}: {warning}");
    }
}

#[test]
fn a_configuration_that_confines_everything_is_quiet() {
    expect(
        "accounts: {default: {}, untrusted: {}, other: {memory: 64MiB}}",
        &[],
    );
    let starter = crate::starter::FILES
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    assert_eq!(
        warnings(&crate::parse(&starter.collect()).unwrap()),
        [""; 0]
    );
}

#[test]
fn missing_reserved_accounts_are_told() {
    expect("accounts: {untrusted: {}}", &["no account `default`"]);
    expect("accounts: {default: {}}", &["no account `untrusted`"]);
}

#[test]
fn a_credentialed_account_is_loud_and_says_who_sees_what() {
    let text = "accounts: {default: {}, untrusted: {}, ops: {uid: 1000, gid: 100, home: /home/me, mounts: [{path: /srv}]}}
plugins: {a: {run_as: ops}, b: {run_as: ops, enabled: false}, c: {}}";
    expect(
        text,
        &[
            "CREDENTIALED: the account ops acts on the host as uid 1000, gid 100 for a, and sees /home/me (rw), /srv (ro)",
        ],
    );
    expect(
        "accounts: {default: {}, untrusted: {}, ops: {uid: 1, gid: 1}}",
        &["only weaken"],
    );
}

#[test]
fn unconfined_is_loud_and_says_what_it_overrides() {
    expect(
        "service: {unconfined: true}\naccounts: {default: {}, untrusted: {}, ops: {uid: 1, gid: 1}}",
        &["UNCONFINED", "over accounts (default, ops, untrusted)"],
    );
}

#[test]
fn a_vault_without_accounts_is_told() {
    let both = [
        "UNCONFINED",
        "(a cannot do without) go to plugins that nothing confines",
        "untrusted",
    ];
    expect(
        "service: {unconfined: true}\nplugins: {a: {requires_vault: true}, b: {}}",
        &both,
    );
    expect(
        "service: {}",
        &["no plugin runs, and no secret", "untrusted"],
    );
}
