//! Takes delivered secrets out of a stream of bytes, wherever the reads happen to cut it.

use std::fmt;

use zeroize::Zeroizing;

/// Shorter secrets are left alone: a value like `1` or `yes` would tear up every output, and hides nothing.
pub const MIN_SECRET_BYTES: usize = 6;

/// A secret as it may appear, and what is written in its place.
#[derive(Clone)]
struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    replacement: Vec<u8>,
}

/// What to look for: every delivered secret in every spelling that is known.
#[derive(Clone, Default)]
pub struct Patterns {
    /// Longest first: where one is the beginning of another, the longer one is taken.
    patterns: Vec<Pattern>,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patterns({})", self.patterns.len())
    }
}

impl Patterns {
    /// Patterns for these secrets: each raw, and as a JSON string holds it (with and without `\u` for what is not ASCII).
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut patterns: Vec<Pattern> = Vec::new();
        for (name, value) in secrets {
            if value.len() < MIN_SECRET_BYTES {
                continue;
            }
            // A secret from a file ends in a line break, which whoever uses it takes off.
            let bare = value.trim();
            let bare = (bare != value && bare.len() >= MIN_SECRET_BYTES).then(|| spellings(bare));
            for bytes in spellings(value)
                .into_iter()
                .chain(bare.into_iter().flatten())
            {
                if patterns.iter().all(|known| *known.bytes != *bytes) {
                    let replacement = format!("[secret:{name}]").into_bytes();
                    patterns.push(Pattern { bytes, replacement });
                }
            }
        }
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.bytes.len()));
        Self { patterns }
    }

    fn longest(&self) -> usize {
        self.patterns
            .first()
            .map_or(0, |pattern| pattern.bytes.len())
    }

    /// What to do at the beginning of `rest`, which further bytes may follow unless it is `last`.
    fn look(&self, rest: &[u8], last: bool) -> Found<'_> {
        for pattern in &self.patterns {
            if rest.starts_with(&pattern.bytes) {
                return Found::Secret(pattern);
            }
            // Longer ones come first, so a shorter match waits for a longer one that may still complete.
            if !last && pattern.bytes.starts_with(rest) {
                return Found::Perhaps;
            }
        }
        Found::Nothing
    }
}

enum Found<'a> {
    Nothing,
    Perhaps,
    Secret(&'a Pattern),
}

fn spellings(value: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let mut json = Zeroizing::new(Vec::new());
    let mut ascii = Zeroizing::new(Vec::new());
    for character in value.chars() {
        match character {
            '"' | '\\' => json.extend([b'\\', u8::try_from(character).unwrap_or(b'\\')]),
            '\n' => json.extend(b"\\n"),
            '\r' => json.extend(b"\\r"),
            '\t' => json.extend(b"\\t"),
            '\u{8}' => json.extend(b"\\b"),
            '\u{c}' => json.extend(b"\\f"),
            '\0'..='\x1f' => json.extend(format!("\\u{:04x}", u32::from(character)).bytes()),
            _ => json.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    for character in String::from_utf8_lossy(&json).chars() {
        if character.is_ascii() && character != '\x7f' {
            ascii.extend(character.encode_utf8(&mut [0; 4]).bytes());
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                ascii.extend(format!("\\u{unit:04x}").bytes());
            }
        }
    }
    // PHP and some others write `\/`.
    let slashes: Vec<u8> = ascii
        .iter()
        .flat_map(|&b| {
            if b == b'/' {
                vec![b'\\', b'/']
            } else {
                vec![b]
            }
        })
        .collect();
    vec![
        Zeroizing::new(value.as_bytes().to_vec()),
        json,
        ascii,
        Zeroizing::new(slashes),
    ]
}

/// One stream being scrubbed.
pub struct Scrubber {
    patterns: Patterns,
    /// The end of what came, where it may be the beginning of a secret. Invariant: shorter than the longest pattern.
    held: Zeroizing<Vec<u8>>,
}

impl Scrubber {
    /// A scrubber at the beginning of its stream.
    pub fn new(patterns: Patterns) -> Self {
        Self {
            patterns,
            held: Zeroizing::new(Vec::new()),
        }
    }

    /// Takes the next bytes; answers what is certain to hold no secret.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.scrub(bytes, false)
    }

    /// The end of the stream: what was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        self.scrub(&[], true)
    }

    fn scrub(&mut self, bytes: &[u8], last: bool) -> Vec<u8> {
        if self.patterns.longest() == 0 {
            return bytes.to_vec();
        }
        let mut all = std::mem::take(&mut *self.held);
        all.extend_from_slice(bytes);
        let all = Zeroizing::new(all);
        let mut clean = Vec::with_capacity(all.len());
        let mut rest: &[u8] = &all;
        while let Some((first, after)) = rest.split_first() {
            match self.patterns.look(rest, last) {
                Found::Nothing => {
                    clean.push(*first);
                    rest = after;
                }
                Found::Secret(pattern) => {
                    clean.extend_from_slice(&pattern.replacement);
                    rest = rest.get(pattern.bytes.len()..).unwrap_or_default();
                }
                Found::Perhaps => {
                    self.held.extend_from_slice(rest);
                    break;
                }
            }
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrub(secrets: &[(&str, &str)], pieces: &[&[u8]]) -> String {
        let mut scrubber = Scrubber::new(Patterns::new(secrets.iter().copied()));
        let mut clean: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| scrubber.push(piece))
            .collect();
        clean.extend(scrubber.finish());
        String::from_utf8(clean).unwrap()
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
    }

    #[test]
    fn the_beginning_of_a_secret_at_the_end_is_given_out() {
        assert_eq!(scrub(&[("token", "hunter2!")], &[b"hunter"]), "hunter");
    }

    #[test]
    fn json_spellings_are_found() {
        let secrets = [("pem", "line \"one\"\nzw\u{f6}lf/\u{1f600}")];
        let python = br#"{"x": "line \"one\"\nzw\u00f6lf/\ud83d\ude00"}"#;
        assert_eq!(scrub(&secrets, &[python]), r#"{"x": "[secret:pem]"}"#);
        let serde = serde_json::to_string(secrets[0].1).unwrap();
        assert_eq!(scrub(&secrets, &[serde.as_bytes()]), r#""[secret:pem]""#);
        let php = br#""line \"one\"\nzw\u00f6lf\/\ud83d\ude00""#;
        assert_eq!(scrub(&secrets, &[php]), r#""[secret:pem]""#);
    }

    #[test]
    fn a_secret_from_a_file_is_found_without_its_line_break() {
        let secrets = [("token", "hunter2!\n")];
        assert_eq!(scrub(&secrets, &[b"a hunter2! b"]), "a [secret:token] b");
        assert_eq!(scrub(&secrets, &[b"hunter2!\n"]), "[secret:token]");
        assert_eq!(scrub(&[("pin", "12345\n")], &[b"12345"]), "12345");
    }

    #[test]
    fn of_two_secrets_that_begin_alike_the_longer_is_taken() {
        let secrets = [("short", "abcdef"), ("long", "abcdefghi")];
        assert_eq!(scrub(&secrets, &[b"abcdef", b"ghi"]), "[secret:long]");
        assert_eq!(scrub(&secrets, &[b"abcdef", b"gh"]), "[secret:short]gh");
    }

    #[test]
    fn what_is_too_short_to_hide_stays() {
        assert_eq!(scrub(&[("pin", "12345")], &[b"12345"]), "12345");
        assert_eq!(scrub(&[("none", "")], &[b"x"]), "x");
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_makes_no_difference(
            secrets in prop::collection::vec("[ab]{6,9}", 1..4),
            text in "[abc]{0,80}",
            cuts in prop::collection::vec(0_usize..80, 0..6),
        ) {
            let named: Vec<_> = secrets.iter().map(|secret| ("s", secret.as_str())).collect();
            let whole = scrub(&named, &[text.as_bytes()]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(&whole, &scrub(&named, &pieces));
            for secret in &secrets {
                prop_assert!(!whole.contains(secret.as_str()), "{} in {}", secret, whole);
            }
        }

        #[test]
        fn bytes_without_secrets_pass_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 1_usize..50) {
            let mut scrubber = Scrubber::new(Patterns::new([("token", "this is not in there")]));
            let mut clean = Vec::new();
            for piece in bytes.chunks(size) {
                clean.extend(scrubber.push(piece));
            }
            clean.extend(scrubber.finish());
            prop_assert_eq!(clean, bytes);
        }
    }
}
