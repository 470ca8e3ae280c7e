mod naive;
mod spelled;
mod values;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use spelled::{Way, escaped, marked_up, percented};

fn scrubber(secrets: &[(&str, &str)]) -> Scrubber {
    let named = |(name, value): &(&str, &str)| (name.parse().unwrap(), (*value).to_owned());
    let secrets: Vec<(SecretName, String)> = secrets.iter().map(named).collect();
    let pairs = secrets.iter().map(|(name, value)| (name, value.as_str()));
    Scrubber::new(Patterns::new(pairs))
}

fn scrub_bytes(secrets: &[(&str, &str)], pieces: &[&[u8]]) -> Vec<u8> {
    let mut scrubber = scrubber(secrets);
    let mut clean: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| scrubber.push(piece))
        .collect();
    clean.extend(scrubber.finish());
    clean
}

fn scrub(secrets: &[(&str, &str)], pieces: &[&[u8]]) -> String {
    String::from_utf8(scrub_bytes(secrets, pieces)).unwrap()
}

/// `text` in pieces.
fn cut<'a>(text: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    places.sort_unstable();
    places.push(text.len());
    let from = std::iter::once(0).chain(places.clone());
    from.zip(places).map(|(from, to)| &text[from..to]).collect()
}

#[test]
fn a_secret_is_replaced_by_its_name() {
    let secrets = [("token", "hunter2!")];
    assert_eq!(scrub(&secrets, &[b"a hunter2! b"]), "a [secret:token] b");
    assert_eq!(
        scrub(&secrets, &[b"hunter2!hunter2!"]),
        "[secret:token][secret:token]"
    );
}

#[test]
fn a_secret_cut_by_reads_is_replaced_too() {
    let secrets = [("token", "hunter2!")];
    assert_eq!(
        scrub(&secrets, &[b"a hun", b"ter", b"2! b"]),
        "a [secret:token] b"
    );
    assert_eq!(scrub(&secrets, &[b"a hun", b"ger"]), "a hunger");
    assert_eq!(scrub(&secrets, &[b"hhhunter2", b"!"]), "hh[secret:token]");
    assert_eq!(scrub(&secrets, &[b"hunter"]), "hunter");
}

fn each(value: &str, spell: impl Fn(u8) -> String) -> String {
    let bytes: Vec<_> = value.bytes().map(spell).collect();
    bytes.concat()
}

#[test]
fn every_known_spelling_is_found() {
    let value = "p w/\u{f6}+\"\\%7\u{1f600}";
    let spelled = [
        value.to_owned(),
        r#"p w/ö+\"\\%7😀"#.into(),
        // Python's json, PHP's, .NET's, Go's.
        r#"p w/\u00f6+\"\\%7\ud83d\ude00"#.into(),
        r#"p w\/\u00F6+\"\\%7\uD83D\uDE00"#.into(),
        r"p w/\u00F6\u002B\u0022\\%7\uD83D\uDE00".into(),
        // JSON within JSON.
        r#"p w/\\u00f6+\\\"\\\\%7\\ud83d\\ude00"#.into(),
        // Python's repr of text and of bytes, and what a shell quotes.
        r#"p w/ö+"\\%7\U0001f600"#.into(),
        r#"p w/\xc3\xb6+"\\%7\xf0\x9f\x98\x80"#.into(),
        r#"p\ w/ö\+\"\\%7😀"#.into(),
        // Percent signs: all, only where needed, a form's.
        each(value, |byte| format!("%{byte:02X}")),
        each(value, |byte| format!("%{byte:02x}")),
        "p%20w%2F%C3%B6%2B%22%5C%257%F0%9F%98%80".into(),
        "p+w%2f%c3%b6%2b%22%5c%257%f0%9f%98%80".into(),
        "p w/%C3%B6+%22%5C%257%F0%9F%98%80".into(),
        hex::encode(value),
        hex::encode_upper(value),
        each(value, |byte| format!(":{byte:02x}"))[1..].to_owned(),
        each(value, |byte| format!("\\x{byte:02x}")),
        hex::encode(value).replace("c3b6", "c3b6\n    "),
    ];
    for text in spelled {
        let around = format!("{{\"x\": <{text}>}}");
        let clean = scrub(&[("pw", value)], &[around.as_bytes()]);
        assert_eq!(clean, "{\"x\": <[secret:pw]>}", "{text}");
    }
}

#[test]
fn base64_is_found_however_it_is_wrapped() {
    let value = "correct>>horse??battery>>staple";
    let encoded = STANDARD.encode(value);
    let wrapped = [
        encoded.clone(),
        URL_SAFE_NO_PAD.encode(value),
        encoded.replace('/', r"\/").replace('+', r"\u002b"),
        encoded.replace('/', "%2F").replace('+', "%2b"),
        encoded.split_at(10).0.to_owned() + "\r\n    " + encoded.split_at(10).1,
        encoded.split_at(1).0.to_owned() + r"\n" + encoded.split_at(1).1,
        encoded.split_at(2).0.to_owned() + r"\\n" + encoded.split_at(2).1,
    ];
    for text in wrapped {
        let text = text.trim_end_matches('=');
        let clean = scrub(&[("pw", value)], &[b"<", text.as_bytes(), b">"]);
        assert_eq!(clean, "<[secret:pw]>", "{text}");
    }
    // Words are no wrapped base64.
    let words = encoded.split_at(10).0.to_owned() + " " + encoded.split_at(10).1;
    assert_eq!(scrub(&[("pw", value)], &[words.as_bytes()]), words);
}

#[test]
fn white_space_around_a_value_is_not_looked_for() {
    let secrets = [("token", "hunter2!\n")];
    assert_eq!(scrub(&secrets, &[b"a hunter2! b"]), "a [secret:token] b");
    assert_eq!(scrub(&secrets, &[b"hunter2!\n"]), "[secret:token]\n");
    assert_eq!(scrub(&[("pin", " 12345\n")], &[b"12345"]), "12345");
}

#[test]
fn of_two_secrets_that_begin_alike_the_longer_is_taken() {
    let secrets = [("short", "abcdef"), ("long", "abcdefghi")];
    assert_eq!(scrub(&secrets, &[b"abcdef", b"ghi"]), "[secret:long]");
    assert_eq!(scrub(&secrets, &[b"abcdef", b"gh"]), "[secret:short]gh");
    // A backslash at its end must not be left half of an escape.
    assert_eq!(
        scrub(&[("path", r"C:\dir\")], &[br#""C:\\dir\\""#]),
        r#""[secret:path]""#
    );
}

#[test]
fn what_is_too_short_to_hide_stays() {
    assert_eq!(scrub(&[("pin", "12345")], &[b"12345"]), "12345");
    assert_eq!(scrub(&[("none", "")], &[b"x"]), "x");
    assert_eq!(scrub(&[], &[b"x", b"y"]), "xy");
}

#[test]
fn the_end_of_an_answer_is_never_held_back() {
    let answer = br#"{"status":"ok","result":"done"}"#;
    for value in [
        "}}}}}}-secret",
        "}\n}closing",
        "\n}newline",
        "\"}quoted",
        "hunter2!",
        "\u{2028}line",
    ] {
        let mut scrubber = scrubber(&[("token", value)]);
        assert_eq!(scrubber.push(answer), answer, "{value:?}");
        assert_eq!(scrubber.push(b"\n"), b"\n", "{value:?}");
    }
    // What is left of it is found all the same.
    let clean = scrub(&[("token", "}}-hunter2!")], &[b"<}}-hunter2!>"]);
    assert_eq!(clean, "<}}[secret:token]>");
}

#[test]
fn each_find_is_marked_and_counted() {
    let secrets = [("a", "hunter2!"), ("b", "correct"), ("c", "battery")];
    let mut scrubber = scrubber(&secrets);
    let found = |secret: &str, count| Found {
        secret: secret.parse().unwrap(),
        count,
    };
    assert_eq!(scrubber.news(), []);
    let mut clean = scrubber.push(b"hunter2! aHVudGVyMiE= battery 62617474657279 %62attery");
    clean.extend(scrubber.finish());
    assert_eq!(
        String::from_utf8(clean).unwrap(),
        "[secret:a] [secret:a]= [secret:c] [secret:c] [secret:c]"
    );
    assert_eq!(scrubber.news(), [found("a", 2), found("c", 3)]);
    assert_eq!(scrubber.news(), []);
    // What is found later is counted on.
    scrubber.push(b" battery and bat");
    assert_eq!(scrubber.news(), [found("c", 4)]);
    scrubber.push(b"tery");
    assert_eq!(scrubber.news(), [found("c", 5)]);
}

#[test]
fn what_is_there_as_a_whole_is_scrubbed_at_once() {
    let secrets: [(SecretName, &str); 1] = [("key".parse().unwrap(), "sk-12345678")];
    let patterns = Patterns::new(secrets.iter().map(|(name, value)| (name, *value)));
    let (clean, found) = patterns.scrub(b"Bearer sk-12345678");
    assert_eq!(clean, b"Bearer [secret:key]");
    assert_eq!(
        found.iter().map(|found| found.count).collect::<Vec<_>>(),
        [1]
    );
    // The beginning of a secret is none.
    assert_eq!(
        patterns.scrub(b"Bearer sk-"),
        (b"Bearer sk-".to_vec(), Vec::new())
    );
}

#[test]
fn the_largest_secret_is_found_byte_by_byte_and_what_is_held_is_bounded() {
    // Given a secret of 64 KiB and a text that is nearly it, which counts, then it
    let value: String = (0_u32..)
        .map(|i| char::from(b'!' + u8::try_from(i.wrapping_mul(i) / 7 % 90).unwrap()))
        .take(64 << 10)
        .collect();
    let (nearly, _) = value.split_at(value.len() - 1);
    let base64 = STANDARD.encode(&value);
    let text = [nearly, "|", &value, "|", &base64, "|", &hex::encode(&value)].concat();
    let mut scrubber = scrubber(&[("large", value.as_str())]);

    // When it comes byte by byte
    let mut clean = Vec::new();
    let mut held = 0;
    for byte in text.as_bytes() {
        clean.extend(scrubber.push(&[*byte]));
        held = held.max(scrubber.held.len());
    }
    clean.extend(scrubber.finish());

    // Then all of it is found, and no more was held than one spelling
    let clean = String::from_utf8(clean).unwrap();
    let (pad, end) = (base64.trim_start_matches(|c| c != '='), "[secret:large]");
    assert_eq!(clean, format!("{end}|{end}|{end}{pad}|{end}"));
    assert!(held <= 2 * value.len(), "{held}");
}

#[test]
fn a_long_beginning_of_a_value_counts_as_the_value_and_a_short_one_does_not() {
    let value: String = (b' '..=b'~')
        .chain(b' '..=b'~')
        .chain(b'a'..=b'z')
        .map(char::from)
        .collect();
    let value = format!("{value}{}", "0123456789".repeat(20));
    let secrets = [("large", value.as_str())];
    for (bytes, is_enough) in [(255, false), (256, true), (300, true)] {
        let beginning = value.trim().get(..bytes).unwrap();
        for spelled in [
            beginning.to_owned(),
            hex::encode(beginning),
            escaped(beginning, &[0]),
        ] {
            let expected = if is_enough {
                "[secret:large]"
            } else {
                &spelled
            };
            let end = scrub(&secrets, &[spelled.as_bytes()]);
            assert_eq!(end, expected, "{bytes}");
            let whole = format!("{spelled}<>");
            assert_eq!(
                scrub(&secrets, &[whole.as_bytes()]),
                format!("{expected}<>"),
                "{bytes}"
            );
        }
    }
}

#[test]
fn a_value_as_long_as_what_is_enough_hides_no_longer_one() {
    let (short, long) = ("a".repeat(256), "a".repeat(300));
    for secrets in [
        [("short", &*short), ("long", &*long)],
        [("long", &*long), ("short", &*short)],
    ] {
        for (text, expected) in [
            (long.clone(), "[secret:long]".to_owned()),
            // Longer than the shorter one, and enough of the longer one.
            (format!("{short}aab"), "[secret:long]b".to_owned()),
            (hex::encode(&long), "[secret:long]".to_owned()),
            (escaped(&long, &[0]), "[secret:long]".to_owned()),
        ] {
            let bytes = text.as_bytes();
            for size in [1, 256, 257, bytes.len()] {
                let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                assert_eq!(scrub(&secrets, &pieces), expected, "{size} of {text}");
            }
        }
    }
}

#[test]
fn a_value_that_repeats_its_beginning_is_not_followed_from_each_of_its_places() {
    // Given the worst there is: it begins wherever the text does, which never is it. Followed to its end from each place, that would take hours.
    let value = "a".repeat((64 << 10) - 1) + "b";
    let text = "a".repeat(1 << 20);
    let mut scrubber = scrubber(&[("large", value.as_str())]);
    let mut clean = Vec::new();
    for piece in text.as_bytes().chunks(1000) {
        clean.extend(scrubber.push(piece));
    }
    clean.extend(scrubber.finish());
    assert!(clean.starts_with(b"[secret:large][secret:large]"));
    assert!(clean.len() < 1000, "{}", clean.len());
}

fn values() -> impl Strategy<Value = String> {
    // What confuses a reader of escapes is more frequent than elsewhere.
    let odd = prop::sample::select(vec![
        '\\',
        '%',
        '&',
        '#',
        ';',
        '"',
        '/',
        '+',
        ' ',
        'u',
        'n',
        'x',
        '0',
        '4',
        'a',
        'F',
        '\n',
        '\u{e9}',
        '\u{1f600}',
    ]);
    let character = prop_oneof![odd, proptest::char::range('!', '~')];
    let bare = |value: &String| value.trim() == value && essence(value) == Some(value);
    prop::collection::vec(character, 6..24)
        .prop_map(String::from_iter)
        .prop_filter("white space around it", bare)
}

proptest! {
    #[test]
    fn no_spelling_comes_through(
        value in values(),
        choices in prop::collection::vec(any::<u8>(), 1..16),
        more in prop::collection::vec(any::<u8>(), 1..16),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let once = escaped(&value, &choices);
        let spelled = [
            value.clone(),
            once.clone(),
            escaped(&once, &more),
            percented(&value, &choices),
            escaped(&percented(&value, &choices), &more),
            percented(&percented(&value, &choices), &more),
            marked_up(&value, &choices),
            escaped(&marked_up(&value, &choices), &more),
            hex::encode(&value),
            hex::encode_upper(&value),
        ];
        for text in spelled {
            let text = format!("<{text}>");
            let clean = scrub(&[("pw", &value)], &cut(text.as_bytes(), &cuts));
            prop_assert_eq!(clean, "<[secret:pw]>", "{}", text);
        }
    }

    #[test]
    fn no_base64_comes_through(
        before in prop::collection::vec(any::<u8>(), 0..7),
        value in "[ -~\u{e9}]{4,20}[!-~]{2}",
        behind in prop::collection::vec(any::<u8>(), 0..7),
        line in 5_usize..80,
        choices in prop::collection::vec(any::<u8>(), 1..16),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        // Given a value somewhere within what is encoded
        prop_assume!(essence(&value) == Some(&*value));
        let all = [&before[..], value.as_bytes(), &behind].concat();
        let encoded = STANDARD.encode(&all);
        // When the digits that tell more than two bits of it are replaced
        let first = (8 * before.len() + 3) / 6;
        let last = (8 * (before.len() + value.len()) - 1) / 6;
        let clean_of = |encoded: &str| format!("<{}[secret:pw]{}>", &encoded[..first], &encoded[last + 1..]);
        let scrubbed = |text: &str| scrub(&[("pw", &value)], &cut(format!("<{text}>").as_bytes(), &cuts));
        // Then nothing else is, in either alphabet, and escaped
        prop_assert_eq!(scrubbed(&encoded), clean_of(&encoded));
        let url = URL_SAFE_NO_PAD.encode(&all);
        prop_assert_eq!(scrubbed(&url), clean_of(&url));
        let inner = escaped(&encoded[first..=last], &choices);
        prop_assert_eq!(scrubbed(&inner), "<[secret:pw]>");
        // And lines make no difference
        let lines: Vec<_> = encoded.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let unwrapped = scrubbed(&lines.join("\n")).replace('\n', "");
        prop_assert_eq!(unwrapped, clean_of(&encoded));
    }

    #[test]
    fn where_the_stream_is_cut_makes_no_difference(
        secrets in prop::collection::vec("[abn2u05\\\\%+&#; ]{6,9}", 1..4),
        text in "[abcn2u05\\\\%+&#; ]{0,80}",
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let named: Vec<_> = secrets.iter().map(|secret| ("s", secret.as_str())).collect();
        let whole = scrub(&named, &[text.as_bytes()]);
        prop_assert_eq!(&whole, &scrub(&named, &cut(text.as_bytes(), &cuts)));
        for secret in secrets.iter().filter_map(|secret| essence(secret)) {
            prop_assert!(!whole.contains(secret), "{} in {}", secret, whole);
        }
    }

    #[test]
    fn bytes_without_secrets_pass_unchanged(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\\%&#;u0thi \n"[..])], 0..400),
        size in 1_usize..50,
    ) {
        let secrets = [("token", "this is not in there"), ("odd", "\\u00%20 not")];
        let pieces: Vec<_> = bytes.chunks(size).collect();
        prop_assert_eq!(scrub_bytes(&secrets, &pieces), bytes);
    }

    #[test]
    fn a_document_stays_a_document(
        value in values(),
        before in "[ -Z^-~]{0,5}",
        behind in "[ -~]{0,5}",
        choices in prop::collection::vec(any::<u8>(), 1..16),
        more in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        let whole = format!("{before}{value}{behind}");
        let inner = format!("{{\"a\":\"{}\"}}", escaped(&whole, &choices));
        let document = format!("{{\"b\":\"{}\",\"c\":\"{}\"}}", escaped(&inner, &more), escaped(&whole, &more));
        let clean = scrub(&[("pw", &value)], &[document.as_bytes()]);
        let read: serde_json::Value = serde_json::from_str(&clean).map_err(|e| TestCaseError::fail(format!("{e}: {clean}")))?;
        let inner: serde_json::Value = serde_json::from_str(read["b"].as_str().unwrap()).map_err(|e| TestCaseError::fail(format!("{e}: {clean}")))?;
        for text in [&inner["a"], &read["c"]] {
            let text = text.as_str().unwrap();
            prop_assert!(text.contains("[secret:pw]") && !text.contains(&value), "{} of {}", text, document);
        }
    }
}

proptest! {
    // Each is scrubbed once for each of its bytes.
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The reference knows where the values are, since it put them there.
    #[test]
    fn each_value_is_found_in_each_spelling_wherever_the_stream_is_cut(
        values in prop::collection::btree_set(prop_oneof![2 => values(), 1 => "[A-Za-z0-9+/]{6,20}={0,2}", 1 => "[A-Za-z0-9_-]{6,20}"], 1..4),
        pieces in prop::collection::vec((any::<Index>(), any::<Way>(), prop::collection::vec(any::<u8>(), 1..9)), 1..5),
    ) {
        let values: Vec<String> = values.into_iter().collect();
        let names = ["a", "b", "c"];
        let secrets: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        let (mut text, mut expected) = (String::from("<"), String::from("<"));
        for (which, way, choices) in &pieces {
            let (name, value) = *which.get(&secrets);
            let (before, spelled, behind) = way.spell(value, choices);
            text.extend([&before, &spelled, &behind, "<|>"]);
            expected.extend([&before, &format!("[secret:{name}]"), &behind, "<|>"]);
        }
        let bytes = text.as_bytes();
        prop_assert_eq!(&scrub(&secrets, &[bytes]), &expected, "{}", text);
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&scrub(&secrets, &each), &expected, "{}", text);
        for cut in 1..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            prop_assert_eq!(&scrub(&secrets, &[head, tail]), &expected, "{} at {}", text, cut);
        }
    }
}
