//! What a value is, and whose.

use super::*;

#[test]
fn a_value_that_is_base64_itself_is_found_without_its_padding_and_in_the_other_alphabet() {
    let value = "dGhpcyBpcyBhIGtleS8rKys9PQ/+xyz==";
    let bare = value.trim_end_matches('=');
    for (text, clean) in [
        (value.to_owned(), "[secret:k]=="),
        (bare.to_owned(), "[secret:k]"),
        (value.replace('+', "-").replace('/', "_"), "[secret:k]=="),
        (
            value.replace('/', "%2F").replace('=', "%3D"),
            "[secret:k]%3D%3D",
        ),
        (
            value.replace('/', "%252F").replace('+', "%252b"),
            "[secret:k]==",
        ),
        (
            value.replace('/', "&#x2F;").replace('+', "&#43;"),
            "[secret:k]==",
        ),
        (value.replace('/', r"\u0026#x2F;"), "[secret:k]=="),
        (STANDARD.encode(bare), "[secret:k]=="),
    ] {
        assert_eq!(scrub(&[("k", value)], &[text.as_bytes()]), clean, "{text}");
    }
    let url = "dGhpcyBpcyBhIGtl_-xyz";
    let standard = url.replace('-', "+").replace('_', "/");
    assert_eq!(scrub(&[("k", url)], &[standard.as_bytes()]), "[secret:k]");
    // What is no base64 has its own characters only, and all of them.
    let other = "pass-word: one+two";
    let text = other.replace('-', "+");
    assert_eq!(scrub(&[("k", other)], &[text.as_bytes()]), text);
    assert_eq!(scrub(&[("k", "pass word==")], &[b"pass word"]), "pass word");
    assert_eq!(scrub(&[("k", "abcde=")], &[b"abcde="]), "[secret:k]");
}

#[test]
fn values_of_one_name_are_counted_together() {
    let name: SecretName = "basic".parse().unwrap();
    let patterns = Patterns::new([
        (&name, "dXNlcjpodW50ZXIyIQ=="),
        (&name, "user:hunter2!"),
        (&name, "hunter2!"),
    ]);
    assert_eq!(format!("{patterns:?}"), "Patterns(1)");
    let (clean, found) = patterns.scrub(b"dXNlcjpodW50ZXIyIQ== user:hunter2! hunter2! user:x");
    assert_eq!(
        String::from_utf8(clean).unwrap(),
        "[secret:basic]== [secret:basic] [secret:basic] user:x"
    );
    assert_eq!(
        found,
        [Found {
            secret: name,
            count: 3
        }]
    );
}
