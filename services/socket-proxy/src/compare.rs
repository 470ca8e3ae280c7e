//! Whether what was asked for is what the lock says, field by field.

use bailey_trust::strict_json;
use serde_json::Value;

/// Reads a body that every parser reads the same way.
pub fn read(body: &[u8]) -> Result<Value, String> {
    // The engine merges duplicate names and ignores their case; neither reaches it, but neither is a create body of ours.
    strict_json::check(body).map_err(|e| format!("the body is not strict JSON: {e}"))?;
    serde_json::from_slice(body).map_err(|e| format!("the body is not JSON: {e}"))
}

/// The first field in which `received` is not `derived`, with what is wrong about it.
pub fn first_difference(derived: &Value, received: &Value) -> Option<String> {
    differ("", derived, received)
}

fn differ(at: &str, derived: &Value, received: &Value) -> Option<String> {
    match (derived, received) {
        (Value::Object(derived), Value::Object(received)) => {
            let unexpected = received.keys().find(|name| !derived.contains_key(*name));
            if let Some(name) = unexpected {
                return Some(format!("{} is not a field of it", join(at, name)));
            }
            derived
                .iter()
                .find_map(|(name, value)| match received.get(name) {
                    Some(received) => differ(&join(at, name), value, received),
                    None => Some(format!("{} is missing", join(at, name))),
                })
        }
        (Value::Array(derived), Value::Array(received)) if derived.len() == received.len() => {
            let pairs = derived.iter().zip(received).enumerate();
            let mut pairs = pairs.map(|(i, (d, r))| differ(&join(at, &i.to_string()), d, r));
            pairs.find_map(|difference| difference)
        }
        _ if derived == received => None,
        _ => Some(format!("{at} is another")),
    }
}

fn join(at: &str, name: &str) -> String {
    let name: String = name.chars().take(80).collect();
    if at.is_empty() {
        name
    } else {
        format!("{at}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_field_that_differs_is_named() {
        let derived =
            json!({ "HostConfig": { "Privileged": false, "Binds": [], "CapDrop": ["ALL"] } });
        for (pointer, value, field) in [
            (
                "/HostConfig/Privileged",
                json!(true),
                "HostConfig.Privileged is another",
            ),
            (
                "/HostConfig/Binds",
                json!(["/:/host"]),
                "HostConfig.Binds is another",
            ),
            (
                "/HostConfig/CapDrop",
                json!(["NONE"]),
                "HostConfig.CapDrop.0 is another",
            ),
            ("/HostConfig", json!({}), "HostConfig.Binds is missing"),
        ] {
            let mut received = derived.clone();
            *received.pointer_mut(pointer).unwrap() = value;
            assert_eq!(
                first_difference(&derived, &received).as_deref(),
                Some(field)
            );
        }
        let mut received = derived.clone();
        received["hostconfig"] = json!({});
        let found = first_difference(&derived, &received);
        assert_eq!(found.as_deref(), Some("hostconfig is not a field of it"));
        assert_eq!(first_difference(&derived, &derived), None);
    }

    #[test]
    fn numbers_and_their_spellings_are_not_the_same() {
        assert!(first_difference(&json!({ "a": 1 }), &json!({ "a": 1.0 })).is_some());
        assert!(first_difference(&json!({ "a": 1 }), &json!({ "a": "1" })).is_some());
        assert!(first_difference(&json!({ "a": null }), &json!({})).is_some());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            (0..3).prop_map(|n| json!(n))
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|v| json!(v)),
                prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_difference_means_equal(a in any_json(), b in any_json()) {
            prop_assert_eq!(first_difference(&a, &b).is_none(), a == b);
            prop_assert_eq!(first_difference(&a, &a), None);
        }
    }
}
