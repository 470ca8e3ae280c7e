use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_glance_sees_what_a_closer_look_sees(text in prop::collection::vec(prop::sample::select(&b"\\\\\\\\%%%&&##;uuUxnrtbfamp\"/ 02456cdD8e3f\xf6z"[..]), 1..24)) {
        for escapes in [Escapes::None, Escapes::Once, Escapes::Twice] {
            for percent in [Percent::None, Percent::Once, Percent::Twice] {
                for entities in [false, true] {
                    let mode = Mode { escapes, entities, percent };
                    if let Some(unit) = quick(mode, &text) {
                        prop_assert_eq!(Some(unit), careful(mode, &text), "{:?}", mode);
                    }
                }
            }
        }
    }
}

fn all(escapes: Escapes, percent: Percent, text: &[u8]) -> Vec<u8> {
    let entities = false;
    read_all(
        Mode {
            escapes,
            entities,
            percent,
        },
        text,
    )
}

fn read_all(mode: Mode, mut text: &[u8]) -> Vec<u8> {
    let mut read_bytes = Vec::new();
    while let Some(unit) = read(mode, text) {
        read_bytes.extend_from_slice(unit.bytes());
        text = &text[unit.used()..];
    }
    read_bytes
}

#[test]
fn escapes_are_read_as_often_as_they_were_made() {
    let value = "q\" b\\ n\n t\t c\u{1} \u{f6} \u{1f600} /";
    let escape = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let (once, twice) = (escape(value), escape(&escape(value)));
    for (escapes, text) in [
        (Escapes::None, value),
        (Escapes::Once, &once),
        (Escapes::Twice, &twice),
    ] {
        assert_eq!(
            all(escapes, Percent::None, text.as_bytes()),
            value.as_bytes()
        );
    }
}

#[test]
fn numbers_are_read_in_either_case() {
    let text = br"\u00F6\u00f6\xf6\xF6\ud83D\uDE00\U0001f600\/\'";
    let expected = "\u{f6}\u{f6}"
        .bytes()
        .chain([0xf6, 0xf6])
        .chain("\u{1f600}\u{1f600}/'".bytes());
    assert_eq!(
        all(Escapes::Once, Percent::None, text),
        expected.collect::<Vec<u8>>()
    );
    let twice = br"\\u00f6\u005cu00f6\\\u0075\u0030\u0030\u0034\u0031";
    assert_eq!(
        all(Escapes::Twice, Percent::None, twice),
        "\u{f6}\u{f6}A".as_bytes()
    );
    assert_eq!(
        all(
            Escapes::Twice,
            Percent::Once,
            b"%41%c3%B6\\u002541\\\\u002541"
        ),
        "A\u{f6}AA".as_bytes()
    );
}

#[test]
fn what_only_looks_like_an_escape_is_itself() {
    for text in [
        &br"\q \u12g4 \xg1"[..],
        br"\ud800x \ud800\u0041",
        br"\udc00 \U00110000",
    ] {
        let read = all(Escapes::Once, Percent::None, text);
        assert_eq!(
            read,
            String::from_utf8_lossy(text)
                .replace("\\u0041", "A")
                .as_bytes()
        );
    }
    assert_eq!(
        all(Escapes::None, Percent::Once, b"100% of %4g"),
        b"100% of %4g"
    );
}

#[test]
fn entities_and_two_layers_of_percent_signs_are_read() {
    for (text, expected) in [
        (
            &b"&amp;&lt;&gt;&quot;&apos;&#x2F;&#x2f;&#X3D;&#43;&#0000043;&#246;."[..],
            "&<>\"'//=++\u{f6}.",
        ),
        // What only looks like an entity is itself.
        (
            b"&&amp;a&;&#;&#x;&#xzz;&unknown;&#99999999;&averylongname;&a b;.",
            "&&a&;&#;&#x;&#xzz;&unknown;&#99999999;&averylongname;&a b;.",
        ),
        (br"\u0026#x2F;\u0026amp\u003b\\u0026lt;.", "/&<."),
        (b"%252F%2f%25%32%46%253d&#37;2F&amp;%26.", "///=/&&."),
        (b"100%25 %25zz %zz.", "100% %zz %zz."),
    ] {
        let read = read_all(Mode::ALL, text);
        assert_eq!(String::from_utf8_lossy(&read), expected);
    }
    let once = Mode {
        percent: Percent::Once,
        ..Mode::ALL
    };
    assert_eq!(read_all(once, b"%252F."), b"%2F.");
    let none = Mode {
        entities: false,
        ..Mode::ALL
    };
    assert_eq!(read_all(none, b"&amp;."), b"&amp;.");
}

#[test]
fn what_ends_early_is_not_read() {
    for text in [
        &br"\"[..],
        br"\u",
        br"\u00f",
        br"\ud83d",
        br"\ud83d\ude0",
        br"\\",
        br"\\u00f",
        b"%",
        b"%4",
        b"%25",
        b"%254",
        b"&",
        b"&am",
        b"&#x2F",
        br"\u0026#4",
    ] {
        assert_eq!(
            read(Mode::ALL, text),
            None,
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}
