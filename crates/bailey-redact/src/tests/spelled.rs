//! Spells values as programs do.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

/// A value as some program might spell it: every character as `choices` say.
pub fn escaped(value: &str, choices: &[u8]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut text = String::new();
    for character in value.chars() {
        let numbers = |text: &mut String, upper: bool| {
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.extend([if upper {
                    format!("\\u{unit:04X}")
                } else {
                    format!("\\u{unit:04x}")
                }]);
            }
        };
        match (choices.next().unwrap_or_default() % 4, character) {
            (0, _) => numbers(&mut text, true),
            (1, _) => numbers(&mut text, false),
            (2, '/') => text.push_str("\\/"),
            (_, '\n') => text.push_str("\\n"),
            (_, '\t') => text.push_str("\\t"),
            (_, '"' | '\\') => text.extend(['\\', character]),
            (_, '\0'..='\x1f') => numbers(&mut text, false),
            _ => text.push(character),
        }
    }
    text
}

/// The same with percent signs.
pub fn percented(value: &str, choices: &[u8]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut text = String::new();
    for byte in value.bytes() {
        match (choices.next().unwrap_or_default() % 3, byte) {
            (0, _) => text.extend([format!("%{byte:02X}")]),
            (1, _) => text.extend([format!("%{byte:02x}")]),
            (_, b' ') => text.push('+'),
            (_, byte) if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            _ => text.extend([format!("%{byte:02x}")]),
        }
    }
    text
}

/// The same as HTML.
pub fn marked_up(value: &str, choices: &[u8]) -> String {
    let mut choices = choices.iter().copied().cycle();
    let mut text = String::new();
    for character in value.chars() {
        let number = u32::from(character);
        let name = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&apos;",
            _ => "",
        };
        match choices.next().unwrap_or_default() % 5 {
            0 => text.extend([format!("&#{number};")]),
            1 => text.extend([format!("&#x{number:X};")]),
            2 => text.extend([format!("&#x{number:04x};")]),
            _ if name.is_empty() => text.push(character),
            _ => text.push_str(name),
        }
    }
    text
}

/// Base64 in the other alphabet.
fn in_other_alphabet(value: &str) -> String {
    let other = |character| match character {
        '+' => '-',
        '/' => '_',
        '-' => '+',
        '_' => '/',
        character => character,
    };
    value.chars().map(other).collect()
}

/// How a value is encoded, and what is put around that.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    code: Code,
    wrap: Wrap,
}

#[derive(Clone, Copy, Debug)]
enum Code {
    Raw,
    /// Where it is base64 itself.
    OtherAlphabet,
    Hex {
        upper: bool,
    },
    Base64 {
        offset: usize,
        url: bool,
        padded: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Wrap {
    None,
    Json,
    JsonInJson,
    Url,
    UrlInJson,
    UrlInUrl,
    Html,
    UrlInHtml,
    HtmlInJson,
}

impl Arbitrary for Way {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let base64 = (0..3_usize, any::<bool>(), any::<bool>());
        let code = prop_oneof![
            Just(Code::Raw),
            Just(Code::OtherAlphabet),
            any::<bool>().prop_map(|upper| Code::Hex { upper }),
            base64.prop_map(|(offset, url, padded)| Code::Base64 {
                offset,
                url,
                padded
            }),
        ];
        let wraps = vec![
            Wrap::None,
            Wrap::Json,
            Wrap::JsonInJson,
            Wrap::Url,
            Wrap::UrlInJson,
            Wrap::UrlInUrl,
            Wrap::Html,
            Wrap::UrlInHtml,
            Wrap::HtmlInJson,
        ];
        let wrap = prop::sample::select(wraps);
        (code, wrap)
            .prop_map(|(code, wrap)| Self { code, wrap })
            .boxed()
    }
}

impl Way {
    /// The value so spelled, and what stands before and behind it.
    pub fn spell(self, value: &str, choices: &[u8]) -> (String, String, String) {
        // The padding of what is base64 itself stays, where it is there at all.
        let whole = value;
        let digits = value.trim_end_matches('=');
        let is_base64 = digits
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+/-_".contains(c));
        let (value, pad) = if is_base64 {
            (digits, whole.trim_start_matches(digits))
        } else {
            (whole, "")
        };
        let pad = if choices.len().is_multiple_of(2) {
            pad
        } else {
            ""
        };
        let (before, digits, behind) = match self.code {
            Code::OtherAlphabet if is_base64 => {
                (String::new(), in_other_alphabet(value), pad.to_owned())
            }
            Code::Raw | Code::OtherAlphabet => (String::new(), value.to_owned(), pad.to_owned()),
            Code::Hex { upper: true } => (String::new(), hex::encode_upper(value), String::new()),
            Code::Hex { upper: false } => (String::new(), hex::encode(value), String::new()),
            Code::Base64 {
                offset,
                url,
                padded,
            } => {
                let all = [&b"~~"[..offset], value.as_bytes()].concat();
                let encoded = match (url, padded) {
                    (false, true) => STANDARD.encode(&all),
                    (false, false) => STANDARD_NO_PAD.encode(&all),
                    (true, true) => URL_SAFE.encode(&all),
                    (true, false) => URL_SAFE_NO_PAD.encode(&all),
                };
                let digits = encoded.trim_end_matches('=').len();
                // A digit that tells no more than two bits of the value stays.
                let first = (8 * offset + 3) / 6;
                let (before, rest) = encoded.split_at(first);
                let (inner, pad) = rest.split_at(digits - first);
                (before.to_owned(), inner.to_owned(), pad.to_owned())
            }
        };
        let spelled = match self.wrap {
            Wrap::None => digits,
            Wrap::Json => escaped(&digits, choices),
            Wrap::JsonInJson => escaped(&escaped(&digits, choices), choices),
            Wrap::Url => percented(&digits, choices),
            Wrap::UrlInJson => escaped(&percented(&digits, choices), choices),
            Wrap::UrlInUrl => percented(&percented(&digits, choices), choices),
            Wrap::Html => marked_up(&digits, choices),
            Wrap::UrlInHtml => marked_up(&percented(&digits, choices), choices),
            Wrap::HtmlInJson => escaped(&marked_up(&digits, choices), choices),
        };
        (before, spelled, behind)
    }
}
