//! What a copy of a vault brings back, and what is lost with the vault that it replaces: names, never values.

use std::collections::BTreeMap;
use std::fmt::Display;

use bailey_types::{Timestamp, TokenName};

use crate::vault::{Document, Secret, Status, Token};

/// One line for each thing that differs; without a vault to compare with, for each thing that is good.
pub fn lines(copy: &Document, present: Option<&Document>) -> Vec<String> {
    match present {
        Some(present) => differences(copy, present),
        None => all(copy),
    }
}

fn all(copy: &Document) -> Vec<String> {
    let secrets = copy.secrets.iter();
    let secrets = secrets.filter(|(_, secret)| secret.status == Status::Active);
    let principals = copy.principals.iter();
    let principals = principals.filter(|(_, principal)| principal.status == Status::Active);
    let mut lines: Vec<_> = secrets
        .map(|(name, secret)| format!("  good: the secret {name}{}", granted(secret)))
        .collect();
    lines
        .extend(principals.map(|(name, it)| format!("  good: the principal {name} ({})", it.kind)));
    for (name, token) in &copy.tokens {
        let scopes: Vec<_> = token.scopes.iter().map(ToString::to_string).collect();
        let scopes = scopes.join(" ");
        lines.push(format!("  good: the API token {name} with {scopes}"));
    }
    let recipients = copy.recipients.keys();
    lines.extend(recipients.map(|key| format!("  can open the vault: {key}")));
    lines
}

fn differences(copy: &Document, present: &Document) -> Vec<String> {
    let mut lines = Vec::new();
    secrets(copy, present, &mut lines);
    for (name, principal) in &copy.principals {
        let now = present.principals.get(name);
        let is_good = now.is_some_and(|now| now.status == Status::Active);
        match principal.status {
            Status::Active if !is_good => {
                lines.push(again("principal", name, now.map(|_| "which was revoked")));
            }
            Status::Revoked if is_good => lines.push(revoked("principal", name)),
            Status::Active | Status::Revoked => {}
        }
        if now.is_some_and(|now| now.kind != principal.kind) {
            let kind = principal.kind;
            lines.push(format!("  of the kind {kind}: the principal {name}"));
        }
    }
    for (name, token) in &copy.tokens {
        let same = present.tokens.get(name).map(|it| it.blake3 == token.blake3);
        match same {
            Some(true) => scopes(name, token, present, &mut lines),
            Some(false) => lines.push(format!("  good again: an earlier API token {name}")),
            None => lines.push(again("API token", name, None)),
        }
    }
    for key in copy.recipients.keys() {
        if !present.recipients.contains_key(key) {
            lines.push(format!("  can open the vault again: {key}"));
        }
    }
    lost("secret", &present.secrets, &copy.secrets, &mut lines);
    lost(
        "principal",
        &present.principals,
        &copy.principals,
        &mut lines,
    );
    lost("API token", &present.tokens, &copy.tokens, &mut lines);
    lost(
        "recipient",
        &present.recipients,
        &copy.recipients,
        &mut lines,
    );
    if copy.nonce != present.nonce {
        lines.push("  with another nonce: every plugin must be locked anew".into());
    }
    lines
}

/// The same token may have others.
fn scopes(name: &TokenName, token: &Token, present: &Document, lines: &mut Vec<String>) {
    let now = present.tokens.get(name);
    if now.is_none_or(|now| now.scopes == token.scopes) {
        return;
    }
    let scopes: Vec<_> = token.scopes.iter().map(ToString::to_string).collect();
    let scopes = scopes.join(" ");
    lines.push(format!(
        "  with other scopes: the API token {name}: {scopes}"
    ));
}

fn secrets(copy: &Document, present: &Document, lines: &mut Vec<String>) {
    for (name, secret) in &copy.secrets {
        let now = present.secrets.get(name);
        if secret.status == Status::Revoked {
            if now.is_some_and(|now| now.status == Status::Active) {
                lines.push(revoked("secret", name));
            }
            continue;
        }
        match now {
            None => lines.push(again("secret", name, None)),
            Some(now) if now.status == Status::Revoked => {
                let on = now.revoked_at.map(day).unwrap_or_default();
                lines.push(again(
                    "secret",
                    name,
                    Some(&format!("which was revoked{on}")),
                ));
            }
            Some(now) => {
                if now.value != secret.value {
                    lines.push(format!("  with another value: the secret {name}"));
                }
                let taken_back = &secret.authorized_principals - &now.authorized_principals;
                for principal in taken_back {
                    lines.push(format!("  granted again: the secret {name} to {principal}"));
                }
                let lost = &now.authorized_principals - &secret.authorized_principals;
                for principal in lost {
                    lines.push(format!(
                        "  not granted any more: the secret {name} to {principal}"
                    ));
                }
                if (now.pattern, now.recipe) != (secret.pattern, secret.recipe) {
                    let made = secret.pattern;
                    lines.push(format!("  made otherwise ({made}): the secret {name}"));
                }
            }
        }
    }
}

fn again(what: &str, name: impl Display, why: Option<&str>) -> String {
    let why = why.unwrap_or("which is not there any more");
    format!("  good again: the {what} {name}, {why}")
}

fn revoked(what: &str, name: impl Display) -> String {
    format!("  revoked, for ever: the {what} {name}")
}

fn lost<N: Display + Ord, T>(
    what: &str,
    present: &BTreeMap<N, T>,
    copy: &BTreeMap<N, T>,
    lines: &mut Vec<String>,
) {
    for name in present.keys().filter(|name| !copy.contains_key(name)) {
        lines.push(format!("  lost: the {what} {name}"));
    }
}

fn granted(secret: &Secret) -> String {
    let names: Vec<_> = secret
        .authorized_principals
        .iter()
        .map(ToString::to_string)
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!(" for {}", names.join(" "))
}

fn day(at: Timestamp) -> String {
    format!(" on {}", at.to_utc().format("%Y-%m-%d"))
}
