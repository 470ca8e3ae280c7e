//! `bailey vault audit`: what the audit log has about the vault.

mod revisions;

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use bailey_audit_log::{Entry, Leaf, select_dir};
use bailey_proto::management::v1::{StatusRequest, StatusResponse};
use bailey_trust::TrustFile;
use bailey_types::Clock;
use serde_json::{Value, json};

use self::revisions::Revisions;
use super::client;
use crate::cli::vault::AuditArgs;
use crate::home::Home;
use crate::output::{Done, Out, plain};

/// What the broker calls such entries.
const KINDS: [&str; 10] = [
    "vault.",
    "secret.",
    "principal.",
    "token.",
    "ticket.",
    "manage.",
    "hmac.",
    "upstream.",
    "lock.",
    "pki.",
];
/// What others say of secrets: socket-proxy, that a plugin printed one; egress-proxy, that an upstream sent its key back.
const RETURNED: [(&str, &str); 2] = [
    ("socket-proxy", "secret.returned"),
    ("egress-proxy", "upstream.key_returned"),
];
/// How old co-signatures may be. To read what happened is right even if the stack stood still for long; `audit verify` is for the rest.
const ANY_AGE: Duration = Duration::from_hours(24 * 36_500);

pub(super) async fn run(home: &Home, args: &AuditArgs, out: &mut Out) -> anyhow::Result<Done> {
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from("/audit/log"));
    let trust = TrustFile::read(&args.trust.clone().unwrap_or_else(|| home.trust_file()))?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let now = Clock::system().now();
    let revisions = RefCell::new(Revisions::default());
    let wanted = |leaf: &Leaf<'_>| {
        revisions.borrow_mut().follow(leaf);
        is_about_the_vault(leaf)
    };
    let entries = select_dir(&dir, &trust, now, ANY_AGE, limit, wanted)?;
    show(home, &entries, out)?;
    let present = if args.dir.is_none() {
        present(home).await
    } else {
        None
    };
    // Said last, where it is seen; and by the exit code, for programs.
    match suspicion(revisions.into_inner(), present.as_ref()) {
        Some(suspicion) => Err(anyhow::anyhow!(suspicion)),
        None => Ok(Done::Well),
    }
}

/// How the vault is; `None` if it cannot be asked now.
async fn present(home: &Home) -> Option<StatusResponse> {
    let mut client = client(home).await.ok()?;
    Some(client.status(StatusRequest {}).await.ok()?.into_inner())
}

/// What is not as it should be with the vault that is there.
fn suspicion(revisions: Revisions, present: Option<&StatusResponse>) -> Option<String> {
    if let Some(refused) = present.filter(|status| status.earlier) {
        return Some(format!(
            "the broker gives nothing from the vault that is there: {}",
            refused.detail
        ));
    }
    let open = present.filter(|status| status.state == "open");
    revisions.suspicion(open.map(|status| status.revision))
}

fn show(home: &Home, entries: &[Entry], out: &mut Out) -> anyhow::Result<()> {
    if home.json() {
        let entries = entries.iter().map(|entry| {
            json!({ "seq": entry.seq, "at": entry.at.to_rfc3339(), "kind": entry.kind, "fields": entry.fields })
        });
        return out.json(&entries.collect::<Vec<_>>());
    }
    let rows = entries.iter().map(|entry| {
        [
            entry.at.to_rfc3339(),
            entry.kind.clone(),
            subject(entry),
            detail(entry),
        ]
    });
    out.table(["WHEN", "WHAT", "WHOSE", ""], &rows.collect::<Vec<_>>());
    Ok(())
}

/// Whether the broker wrote it, and it says more than that a plugin ran without secrets; or somebody else did, that a secret came back.
fn is_about_the_vault(leaf: &Leaf<'_>) -> bool {
    if RETURNED.contains(&(leaf.actor.as_str(), leaf.kind.as_str())) {
        return true;
    }
    // That a change is durable is for the broker to know.
    if leaf.kind == "vault.kept" {
        return false;
    }
    if leaf.actor != "broker" || !KINDS.iter().any(|kind| leaf.kind.starts_with(kind)) {
        return false;
    }
    leaf.kind != "ticket.made" || {
        let fields: Value = serde_json::from_str(leaf.fields.get()).unwrap_or_default();
        let names = ["secrets", "secret_revoked", "fingerprint_mismatch"];
        let some = |name: &&str| {
            let held = fields.get(*name).and_then(Value::as_array);
            held.is_some_and(|held| !held.is_empty())
        };
        names.iter().any(some)
    }
}

fn subject(entry: &Entry) -> String {
    let keys = [
        "secret",
        "upstream",
        "principal",
        "token",
        "plugin",
        "method",
    ];
    let named = keys.iter().find_map(|key| entry.fields.get(*key)?.as_str());
    plain(named.unwrap_or_default())
}

/// The fields that people ask for. All of them are in the JSON.
fn detail(entry: &Entry) -> String {
    let told = [
        "reason",
        "operation",
        "outcome",
        "plugin",
        "upstream",
        "client",
        "principal",
        "secrets",
        "recipient",
        "recipients",
        "secret_revoked",
        "fingerprint_mismatch",
        "granted_to",
        "rolled",
        "skipped",
        "kind",
        "scopes",
        "roll_count",
        "not_done",
        "maybe_done",
        "serial",
        "job",
        "count",
    ];
    let subject = subject(entry);
    let one = |name: &&str| {
        let text = match entry.fields.get(*name)? {
            Value::Null => return None,
            Value::String(text) if *text == subject => return None,
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => return None,
            Value::Array(items) => {
                let items = items.iter().map(|item| item.as_str().unwrap_or_default());
                items.collect::<Vec<_>>().join(",")
            }
            other @ (Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
        };
        Some(format!("{name}={text}"))
    };
    plain(&told.iter().filter_map(one).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn wanted(actor: &str, kind: &str, fields: &str) -> bool {
        let fields = RawValue::from_string(fields.to_owned()).unwrap();
        is_about_the_vault(&Leaf {
            v: 1,
            seq: 0,
            at: bailey_types::Timestamp(0),
            actor: actor.to_owned(),
            kind: kind.to_owned(),
            fields: &fields,
            salt: String::new(),
        })
    }

    #[test]
    fn the_brokers_own_entries_are_shown_and_tickets_that_delivered_or_withheld_something() {
        assert!(wanted("broker", "secret.set", "{}"));
        assert!(wanted("broker", "vault.earlier_refused", "{}"));
        assert!(!wanted("broker", "vault.kept", "{}"));
        assert!(wanted("broker", "ticket.refused", "{}"));
        assert!(wanted("broker", "ticket.made", r#"{"secrets":["a"]}"#));
        assert!(wanted(
            "broker",
            "ticket.made",
            r#"{"secrets":[],"secret_revoked":["a"]}"#
        ));
        assert!(!wanted("broker", "ticket.made", r#"{"secrets":[]}"#));
        assert!(wanted("broker", "lock.signed", "{}"));
        assert!(wanted("broker", "pki.rotated", "{}"));
        assert!(!wanted("broker", "certificate.renewed", "{}"));
        assert!(!wanted("policy", "secret.set", "{}"));
        assert!(wanted("broker", "hmac.signed", "{}"));
        assert!(wanted("socket-proxy", "secret.returned", "{}"));
        assert!(!wanted("socket-proxy", "secret.set", "{}"));
        assert!(wanted("broker", "upstream.key_released", "{}"));
        assert!(wanted("egress-proxy", "upstream.key_returned", "{}"));
        assert!(!wanted("egress-proxy", "upstream.closed", "{}"));
    }

    #[test]
    fn a_vault_that_the_broker_refused_is_suspicious_and_one_without_its_key_is_not() {
        let status = |state: &str, earlier| StatusResponse {
            state: state.into(),
            detail: "it is earlier than the audit log knows".into(),
            earlier,
            ..StatusResponse::default()
        };
        let said = |status: &StatusResponse| suspicion(Revisions::default(), Some(status));
        assert!(
            said(&status("sealed", true))
                .unwrap()
                .ends_with("it is earlier than the audit log knows")
        );
        assert_eq!(said(&status("sealed", false)), None);
        assert_eq!(said(&status("open", false)), None);
        assert_eq!(suspicion(Revisions::default(), None), None);
    }

    #[test]
    fn who_can_open_a_vault_or_a_copy_is_shown() {
        let shown = |fields: Value| {
            detail(&Entry {
                seq: 7,
                at: bailey_types::Timestamp(0),
                kind: "vault.exported".into(),
                fields,
            })
        };
        let (one, two) = (
            json!({ "recipient": "age1a" }),
            json!({ "recipients": ["age1a", "age1b"] }),
        );
        assert_eq!(shown(one), "recipient=age1a");
        // To whom an import grants is told; that nobody has something, not.
        let granted = json!({ "outcome": "imported", "granted_to": ["greet", "echo"] });
        assert_eq!(shown(granted), "outcome=imported granted_to=greet,echo");
        for nobody in [json!({ "granted_to": [] }), json!({ "granted_to": null })] {
            assert_eq!(shown(nobody), "");
        }
        assert_eq!(shown(two), "recipients=age1a,age1b");
    }

    #[test]
    fn a_row_names_whose_it_is_once() {
        let entry = Entry {
            seq: 7,
            at: bailey_types::Timestamp(0),
            kind: "ticket.refused".into(),
            fields: json!({ "plugin": "greet", "principal": "greet", "reason": "secret_revoked", "container": "0123" }),
        };
        assert_eq!(
            (subject(&entry), detail(&entry)),
            ("greet".into(), "reason=secret_revoked".into())
        );
    }
}
