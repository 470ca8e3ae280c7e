//! `{secret_ref: name}` in a plugin's `config`: the broker puts the value of that secret in its place, in the request alone.

use std::collections::BTreeSet;

use bailey_types::SecretName;
use bailey_yaml::Object;
use serde_json::Value as Json;

/// The one member of such an object.
pub const SECRET_REF: &str = "secret_ref";

/// The secrets that a checked `config` refers to.
pub(crate) fn names(config: &Object) -> BTreeSet<SecretName> {
    let mut found = Found::default();
    config.values().for_each(|value| found.look(value));
    found.names
}

/// What is wrong with the references in `config`, one sentence each.
pub(crate) fn problems(config: &Object) -> Vec<String> {
    let mut found = Found::default();
    if config.contains_key(SECRET_REF) {
        let problem = format!(
            "{SECRET_REF} stands for the value of a key: write `key: {{{SECRET_REF}: name}}`"
        );
        found.problems.push(problem);
    }
    config.values().for_each(|value| found.look(value));
    found.problems
}

#[derive(Default)]
struct Found {
    names: BTreeSet<SecretName>,
    problems: Vec<String>,
}

impl Found {
    /// Invariant: `value` nests at most 64 deep, as [`bailey_yaml::object_problem`] checks.
    fn look(&mut self, value: &Json) {
        match value {
            Json::Object(object) => match object.get(SECRET_REF) {
                Some(name) => self.reference(object.len(), name),
                None => object.values().for_each(|value| self.look(value)),
            },
            Json::Array(items) => items.iter().for_each(|value| self.look(value)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    fn reference(&mut self, members: usize, name: &Json) {
        if members != 1 {
            let problem = format!("{SECRET_REF} stands alone: what is beside it would get lost");
            self.problems.push(problem);
        }
        match name.as_str().map(str::parse) {
            Some(Ok(name)) => {
                self.names.insert(name);
            }
            Some(Err(e)) => self.problems.push(format!("{SECRET_REF}: {e}")),
            None => self.problems.push(format!("{SECRET_REF} names a secret")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        let config = object(
            r#"{"token":{"secret_ref":"a"},"list":[1,{"deep":[{"secret_ref":"b"}]}],"plain":{"secret":"c","ref":"d"}}"#,
        );
        assert_eq!(problems(&config), Vec::<String>::new());
        let names: Vec<_> = names(&config).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_looks_like_a_reference_and_is_none_is_refused() {
        for (text, wanted) in [
            (r#"{"x":{"secret_ref":"a","b":1}}"#, "stands alone"),
            (r#"{"x":[{"secret_ref":1}]}"#, "names a secret"),
            (r#"{"x":{"secret_ref":null}}"#, "names a secret"),
            (
                r#"{"x":{"secret_ref":"Not A Name"}}"#,
                "not a valid secret name",
            ),
            (r#"{"secret_ref":"a"}"#, "write `key:"),
        ] {
            let problems = problems(&object(text));
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].contains(wanted), "{text}: {problems:?}");
        }
    }
}
