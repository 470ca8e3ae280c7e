//! Files of secrets from elsewhere: dotenv, YAML of names and values, Ductile's `tokens.yaml` and vault.

use std::collections::BTreeSet;

use bailey_types::{PrincipalName, SecretName};
use bailey_yaml::Object;
use clap::ValueEnum as _;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::vault::{Format, PrincipalKind};

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) secrets: Vec<Secret>,
    /// Name and kind.
    pub(super) principals: Vec<(PrincipalName, String)>,
    /// What cannot be taken over: its name in the file, and why.
    pub(super) left_out: Vec<(String, String)>,
}

/// A secret that can be taken over.
pub(super) struct Secret {
    /// What it is called in the file.
    pub(super) from: String,
    pub(super) name: SecretName,
    pub(super) value: Zeroizing<String>,
    pub(super) grants: BTreeSet<PrincipalName>,
    pub(super) description: String,
    /// What of it is not taken over, or looks as if it were not meant; empty where all of it is.
    pub(super) notes: String,
}

/// What a file says of a secret besides its value.
#[derive(Default)]
struct Known {
    grants: BTreeSet<PrincipalName>,
    description: String,
    notes: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} as {})", self.from, self.name)
    }
}

/// Reads a file. The error says where something is wrong, and never quotes what stands there.
pub(super) fn read(text: &str, format: Format) -> Result<Found, String> {
    let mut found = Found::default();
    match format {
        Format::Dotenv => dotenv(text, &mut found)?,
        Format::Auto if looks_like_dotenv(text) => dotenv(text, &mut found)?,
        Format::Yaml | Format::Auto => yaml(text, &mut found)?,
    }
    Ok(found)
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn looks_like_dotenv(text: &str) -> bool {
    let mut any = false;
    let all = lines(text).all(|(_, line)| {
        any = true;
        assignment(line).is_some()
    });
    any && all
}

/// The name and the value of `NAME=value`, with its quotes.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    plain.then(|| (name, value.trim()))
}

/// The value without its quotes (reference: ductile 2.2); `None` if it begins with one that it does not end with.
fn unquoted(value: &str) -> Option<&str> {
    let first = value.chars().next();
    match first.filter(|first| matches!(first, '"' | '\'')) {
        Some(quote) => value.strip_prefix(quote)?.strip_suffix(quote),
        None => Some(value),
    }
}

fn dotenv(text: &str, found: &mut Found) -> Result<(), String> {
    for (number, line) in lines(text) {
        let (name, value) =
            assignment(line).ok_or_else(|| format!("line {number} is not NAME=value"))?;
        match unquoted(value) {
            Some(plain) => found.add(
                name,
                plain,
                Known {
                    notes: if plain == value && value.contains(" #") {
                        "the value is everything behind `=`, with the ` #` in it".to_owned()
                    } else {
                        String::new()
                    },
                    ..Known::default()
                },
            ),
            None => found.leave_out(name, "it begins with a quote that it does not end with"),
        }
    }
    Ok(())
}

fn yaml(text: &str, found: &mut Found) -> Result<(), String> {
    let parsed: Value = bailey_yaml::parse(text).map_err(|e| {
        let (line, column) = (e.place.line, e.place.column);
        format!("it is neither NAME=value lines nor YAML: line {line}, column {column}")
    })?;
    match parsed {
        Value::Array(entries) => found.add_list(&entries),
        Value::Object(document) => found.add_document(&document),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err("it holds no names".to_owned());
        }
    }
    Ok(())
}

impl Found {
    fn add_document(&mut self, document: &Object) {
        let lists = ["secrets", "tokens"];
        let is_list = lists.iter().any(|name| {
            let held = document.get(*name);
            held.is_some_and(|held| held.is_object() || held.is_array())
        });
        if !is_list {
            return self.add_members(document);
        }
        if let Some(Value::Object(principals)) = document.get("principals") {
            self.add_principals(principals);
        }
        for name in lists {
            match document.get(name) {
                Some(Value::Object(members)) => self.add_members(members),
                Some(Value::Array(entries)) => self.add_list(entries),
                _ => {}
            }
        }
        let others = document.keys().map(String::as_str);
        for other in others.filter(|name| !lists.contains(name) && *name != "principals") {
            let why = "not a list of secrets or principals";
            self.left_out.push((other.to_owned(), why.to_owned()));
        }
    }

    fn add_members(&mut self, members: &Object) {
        for (name, held) in members {
            self.add_held(name, held);
        }
    }

    /// Entries that bring their name along.
    fn add_list(&mut self, entries: &[Value]) {
        for (number, entry) in (1..).zip(entries) {
            if let Some(name) = entry.get("name").and_then(Value::as_str) {
                self.add_held(name, entry);
            } else {
                let why = "it has no name";
                self.left_out
                    .push((format!("entry {number}"), why.to_owned()));
            }
        }
    }

    fn add_held(&mut self, name: &str, held: &Value) {
        let Value::Object(members) = held else {
            return match text(held) {
                Ok(value) => self.add(name, value, Known::default()),
                Err(why) => self.leave_out(name, why),
            };
        };
        if members.get("status").and_then(Value::as_str) == Some("revoked") {
            return self.leave_out(name, "it is revoked where it comes from");
        }
        let keys = ["value", "token", "key", "secret"];
        let value = keys.iter().find_map(|key| members.get(*key));
        let value = match value.map(text) {
            Some(Ok(value)) => value,
            Some(Err(why)) => return self.leave_out(name, why),
            None => return self.leave_out(name, "it has no value"),
        };
        let grants = ["authorized_principals", "grants"];
        let grants = grants.iter().find_map(|key| members.get(*key)?.as_array());
        let (mut named, mut notes) = (BTreeSet::new(), Vec::new());
        for grant in grants.into_iter().flatten() {
            match grant.as_str().and_then(|name| name.parse().ok()) {
                Some(name) => {
                    named.insert(name);
                }
                None => notes.push(format!("no grant to {grant}: not a principal's name")),
            }
        }
        let member = |key: &str| members.get(key).and_then(Value::as_str);
        if member("pattern") == Some("auto") {
            notes.push(
                "from now on its values are yours to make (`bailey vault set --keep-value --generate` changes that)".to_owned(),
            );
        }
        if members.contains_key("scopes") {
            notes.push(
                "its scopes are not: an API token is made by `bailey token create`".to_owned(),
            );
        }
        let known = Known {
            grants: named,
            description: member("description").unwrap_or_default().to_owned(),
            notes: notes.join("; "),
        };
        self.add(name, value, known);
    }

    fn add_principals(&mut self, principals: &Object) {
        for (name, principal) in principals {
            let text = |key: &str| principal.get(key).and_then(Value::as_str);
            let kind = text("kind").unwrap_or("plugin").to_owned();
            // Every vault has this one.
            if name == "core" {
                continue;
            }
            match name.parse::<PrincipalName>() {
                Ok(_) if text("status") == Some("revoked") => {
                    self.leave_out(name, "the principal is revoked where it comes from");
                }
                Ok(_) if PrincipalKind::from_str(&kind, false).is_err() => {
                    self.leave_out(name, "not a kind of principal that there is here");
                }
                Ok(name) => self.principals.push((name, kind)),
                Err(_) => self.leave_out(name, "not a name that a principal can have"),
            }
        }
    }

    fn add(&mut self, from: &str, value: &str, known: Known) {
        // Elsewhere names are in capitals; here they are not.
        let Ok(name) = from
            .to_ascii_lowercase()
            .replace('.', "-")
            .parse::<SecretName>()
        else {
            return self.leave_out(from, "not a name that a secret can have");
        };
        if value.is_empty() {
            return self.leave_out(from, "it has no value");
        }
        self.secrets.push(Secret {
            from: from.to_owned(),
            name,
            value: Zeroizing::new(value.to_owned()),
            grants: known.grants,
            description: known.description,
            notes: known.notes,
        });
    }

    fn leave_out(&mut self, from: &str, why: &str) {
        // A name from a file may be anything, a value too.
        let from: String = from.chars().take(64).collect();
        self.left_out.push((from, why.to_owned()));
    }
}

/// A value as it is written, or why it cannot be told: of a number it is no longer known how it was (`007`, `1.10`).
fn text(value: &Value) -> Result<&str, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(_) | Value::Bool(_) => Err("it is not a text: quote it in the file"),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("it is not one value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Found {
        read(text, Format::Auto).unwrap()
    }

    fn pairs(found: &Found) -> Vec<(&str, &str)> {
        let secrets = found.secrets.iter();
        secrets
            .map(|s| (s.name.as_str(), s.value.as_str()))
            .collect()
    }

    fn left_out(found: &Found) -> Vec<&str> {
        let names = found.left_out.iter().map(|(name, _)| name.as_str());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_dotenv_file_is_recognised_and_its_quotes_are_taken_off() {
        let text = "# keys\nexport API_KEY=\"abc=def#1\"\n\nOTHER='x y'\nPLAIN=z\nEMPTY=\n9-=x\n";
        let found = found(text);
        let expected = [("api_key", "abc=def#1"), ("other", "x y"), ("plain", "z")];
        assert_eq!(pairs(&found), expected);
        let left_out = [
            ("EMPTY".to_owned(), "it has no value".to_owned()),
            (
                "9-".to_owned(),
                "not a name that a secret can have".to_owned(),
            ),
        ];
        assert_eq!(found.left_out, left_out);
    }

    #[test]
    fn yaml_of_names_and_values_is_taken_as_it_is() {
        let found = found("github.token: abc\nport: 8080\nnested: [1]\nnothing: null\n");
        assert_eq!(pairs(&found), [("github-token", "abc")]);
        assert_eq!(left_out(&found), ["nested", "nothing", "port"]);
    }

    /// Another text than the file's would be kept without a word.
    #[test]
    fn what_yaml_takes_for_something_else_than_text_is_left_out_unless_it_is_quoted() {
        for written in ["007", "1.10", "8080", "1e3", "true"] {
            for file in [
                format!("pin: {written}\n"),
                format!("secrets:\n  pin: {{value: {written}}}\n"),
            ] {
                let found = found(&file);
                assert!(found.secrets.is_empty(), "{file}");
                let (name, why) = &found.left_out[0];
                assert!(name == "pin" && why.contains("quote it"), "{file}: {why}");
            }
            let quoted = found(&format!("pin: '{written}'\n"));
            assert_eq!(pairs(&quoted), [("pin", written)]);
        }
    }

    #[test]
    fn a_dotenv_value_whose_end_is_unclear_is_left_out_or_told() {
        let found = found("A=\"open\nB=\"x\" # of what\nC=x # of what\nD='\nE='x # y'\n");
        assert_eq!(pairs(&found), [("c", "x # of what"), ("e", "x # y")]);
        assert_eq!(left_out(&found), ["A", "B", "D"]);
        assert!(found.left_out[0].1.contains("quote"));
        assert!(found.secrets[0].notes.contains(" #"));
        assert_eq!(found.secrets[1].notes, "");
    }

    #[test]
    fn what_is_lost_of_a_secret_is_told() {
        let text = "secrets:\n  api: {value: abc, grants: [fetch, 'no name', 7], pattern: auto}\nprincipals:\n  fetch: {kind: plugin}\n  bot: {kind: robot}\n";
        let found = found(text);
        assert_eq!(
            found.secrets[0].grants,
            BTreeSet::from(["fetch".parse().unwrap()])
        );
        let notes = &found.secrets[0].notes;
        for lost in ["\"no name\"", "to 7", "yours to make"] {
            assert!(notes.contains(lost), "{notes}");
        }
        assert_eq!(found.principals.len(), 1);
        assert_eq!(left_out(&found), ["bot"]);
    }

    #[test]
    fn tokens_yaml_is_read_in_either_form() {
        for text in [
            "tokens:\n  - {name: ci, token: abc, scopes: ['*']}\n  - {name: none}\n",
            "tokens:\n  ci: {key: abc, scopes: []}\n  none: {scopes: []}\n",
        ] {
            let found = found(text);
            assert_eq!(pairs(&found), [("ci", "abc")], "{text}");
            assert!(found.secrets[0].notes.contains("bailey token create"));
            assert_eq!(found.left_out[0].0, "none");
        }
    }

    #[test]
    fn a_ductile_vault_brings_grants_and_principals_and_nothing_that_was_revoked() {
        let text = "secrets:\n  api: {value: abc, authorized_principals: [fetch], status: active, pattern: manual, description: for x}\n  old: {value: '', status: revoked}\nprincipals:\n  core: {kind: gateway, status: active, nonce: zzz}\n  fetch: {kind: plugin, status: active}\n  gone: {kind: plugin, status: revoked}\n";
        let found = found(text);
        assert_eq!(pairs(&found), [("api", "abc")]);
        let api = &found.secrets[0];
        assert_eq!(api.grants, BTreeSet::from(["fetch".parse().unwrap()]));
        assert_eq!(api.description, "for x");
        assert_eq!(
            found.principals,
            [("fetch".parse().unwrap(), "plugin".to_owned())]
        );
        let names: Vec<_> = found
            .left_out
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["gone", "old"]);
    }

    #[test]
    fn what_is_neither_is_refused_without_being_quoted() {
        for text in ["just hunter2", "a: b: hunter2", "[hunter2", ""] {
            let error = read(text, Format::Auto).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = read("A=1\nhunter2\n", Format::Dotenv).unwrap_err();
        assert_eq!(error, "line 2 is not NAME=value");
        assert!(!format!("{:?}", found("a: hunter2")).contains("hunter2"));
    }
}
