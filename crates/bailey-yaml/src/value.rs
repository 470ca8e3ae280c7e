//! Free-form values: a plugin's `config`, a schedule's `payload`.

/// A JSON object written as YAML.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// Greatest magnitude of an integer that every JSON parser keeps (RFC 7493 section 2.2).
const MAX_INTEGER: u64 = 1 << 53;

/// Deepest nesting.
const MAX_DEPTH: u32 = 32;

/// Why the object cannot be sent to a plugin as JSON that every parser reads the same way, if it cannot.
pub fn object_problem(object: &Object) -> Option<String> {
    object
        .iter()
        .find_map(|(name, value)| problem(value, 1).map(|problem| format!("{name}: {problem}")))
}

fn problem(value: &serde_json::Value, depth: u32) -> Option<String> {
    if depth > MAX_DEPTH {
        return Some(format!("nested deeper than {MAX_DEPTH}"));
    }
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(_) => None,
        serde_json::Value::Number(number) => {
            let integer = number
                .as_i64()
                .map(i64::unsigned_abs)
                .or_else(|| number.as_u64());
            let large = match integer {
                Some(integer) => integer > MAX_INTEGER,
                // 2^53 as a float: an integer that does not fit 64 bits is read as a float.
                None => number
                    .as_f64()
                    .is_none_or(|float| float.abs() > 9_007_199_254_740_992.0),
            };
            large.then(|| format!("{number} is beyond ±2^53; write it as a string"))
        }
        serde_json::Value::String(text) => placeholder(text).map(|name| {
            format!("not supported yet: the placeholder {name}; a secret belongs into the vault")
        }),
        serde_json::Value::Array(items) => items.iter().find_map(|item| problem(item, depth + 1)),
        serde_json::Value::Object(object) => object
            .iter()
            .find_map(|(name, item)| problem(item, depth + 1).map(|p| format!("{name}: {p}"))),
    }
}

/// The first `${NAME}`: Ductile replaces it from the environment; sent as it stands it would be a silent change of meaning.
fn placeholder(text: &str) -> Option<&str> {
    text.match_indices("${").find_map(|(at, _)| {
        let rest = text.get(at..)?;
        let end = rest.find('}')?;
        let name = rest.get(2..end)?;
        let valid = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        valid.then(|| rest.get(..=end)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        config: Object,
    }

    fn problem_of(config: &str) -> Option<String> {
        object_problem(
            &crate::parse::<Sample>(&format!("config: {config}"))
                .unwrap()
                .config,
        )
    }

    #[test]
    fn what_json_parsers_read_differently_is_named() {
        assert_eq!(
            problem_of("{a: 1, b: [x, {c: 9007199254740992}], d: 1.5, e: null}"),
            None
        );
        assert!(
            problem_of("{a: {b: 9007199254740993}}")
                .unwrap()
                .contains("a: b: 9007199254740993")
        );
        assert!(problem_of("{a: 1e300}").unwrap().contains("beyond"));
    }

    #[test]
    fn placeholders_are_refused_and_shell_syntax_is_not() {
        assert!(
            problem_of("{a: [\"key=${API_KEY}\"]}")
                .unwrap()
                .contains("${API_KEY}")
        );
        assert_eq!(problem_of("{a: \"echo $HOME ${1} ${x:-y}\"}"), None);
    }
}
