//! Reads text through what programs put around a value when they print it: backslash escapes, at most twice, and percent signs.

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// How often backslash escapes were put around it: as JSON has them, and what Python, shells and C add.
    pub escapes: Escapes,
    /// Whether `%41` means `A`.
    pub percent: bool,
}

/// How often a text was escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escapes {
    /// A backslash is a backslash.
    None,
    /// As in a JSON string.
    Once,
    /// As in a JSON string that holds JSON. Reads what was escaped once as well, if there is no backslash in it.
    Twice,
}

/// The least that can be read: a byte, or the bytes of a character where that was escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    bytes: [u8; 4],
    count: usize,
    /// How many bytes of the text it takes.
    pub used: usize,
}

impl Unit {
    const fn byte(byte: u8, used: usize) -> Self {
        Self {
            bytes: [byte, 0, 0, 0],
            count: 1,
            used,
        }
    }

    fn character(character: char, used: usize) -> Self {
        let mut bytes = [0; 4];
        let count = character.encode_utf8(&mut bytes).len();
        Self { bytes, count, used }
    }

    /// What was read.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.count).unwrap_or_default()
    }

    /// What was read, if that is one byte.
    pub fn only(&self) -> Option<u8> {
        match self.bytes() {
            [byte] => Some(*byte),
            _ => None,
        }
    }
}

/// The unit at the beginning of `text`; `None` where the text ends within it.
pub fn read(mode: Mode, text: &[u8]) -> Option<Unit> {
    let first = *text.first()?;
    if first != b'\\' && first != b'%' {
        return Some(Unit::byte(first, 1));
    }
    let unit = unescape(mode.escapes, text)?;
    if !mode.percent || unit.only() != Some(b'%') {
        return Some(unit);
    }
    let digits = digits(mode.escapes, text.get(unit.used..)?, 2);
    match digits {
        Ok((value, used)) => Some(Unit::byte(low_byte(value), unit.used + used)),
        Err(Miss::Other) => Some(unit),
        Err(Miss::Short) => None,
    }
}

/// Why there is no number.
enum Miss {
    /// Something else is there.
    Other,
    /// The text ends within it.
    Short,
}

fn unescape(escapes: Escapes, text: &[u8]) -> Option<Unit> {
    let first = *text.first()?;
    let below = match escapes {
        Escapes::Once if first == b'\\' => Escapes::None,
        Escapes::Twice if first == b'\\' => Escapes::Once,
        Escapes::None | Escapes::Once | Escapes::Twice => return Some(Unit::byte(first, 1)),
    };
    let backslash = unescape(below, text)?;
    if backslash.only() != Some(b'\\') {
        return Some(backslash);
    }
    let rest = text.get(backslash.used..)?;
    let kind = unescape(below, rest)?;
    let used = backslash.used + kind.used;
    let short = |byte| Some(Unit::byte(byte, used));
    match kind.only() {
        Some(b'n') => short(b'\n'),
        Some(b'r') => short(b'\r'),
        Some(b't') => short(b'\t'),
        Some(b'b') => short(8),
        Some(b'f') => short(12),
        // Of a space: shells.
        Some(other) if other.is_ascii_punctuation() || other == b' ' => short(other),
        Some(kind @ (b'u' | b'U' | b'x')) => {
            match numbered(below, kind, text.get(used..)?) {
                Ok(unit) => Some(Unit {
                    used: used + unit.used,
                    ..unit
                }),
                // What only looks like an escape is a backslash.
                Err(Miss::Other) => Some(backslash),
                Err(Miss::Short) => None,
            }
        }
        _ => Some(backslash),
    }
}

/// What follows `\u`, `\U` or `\x`.
fn numbered(below: Escapes, kind: u8, text: &[u8]) -> Result<Unit, Miss> {
    let count = match kind {
        b'x' => 2,
        b'u' => 4,
        _ => 8,
    };
    let (value, used) = digits(below, text, count)?;
    if kind == b'x' {
        return Ok(Unit::byte(low_byte(value), used));
    }
    if let Some(character) = char::from_u32(value) {
        return Ok(Unit::character(character, used));
    }
    // The first of a pair of surrogates, RFC 8259 section 7.
    let high = value.checked_sub(0xd800).filter(|high| *high < 0x400);
    let high = high.ok_or(Miss::Other)?;
    let (low, more) = second(below, text.get(used..).unwrap_or_default())?;
    let character = char::from_u32(0x1_0000 + (high << 10) + low).ok_or(Miss::Other)?;
    Ok(Unit::character(character, used + more))
}

/// The second of a pair of surrogates: its ten bits, and how many bytes it takes.
fn second(below: Escapes, text: &[u8]) -> Result<(u32, usize), Miss> {
    let mut used = 0;
    for wanted in *b"\\u" {
        let rest = text.get(used..).unwrap_or_default();
        let unit = unescape(below, rest).ok_or(Miss::Short)?;
        if unit.only() != Some(wanted) {
            return Err(Miss::Other);
        }
        used += unit.used;
    }
    let (value, more) = digits(below, text.get(used..).unwrap_or_default(), 4)?;
    let low = value.checked_sub(0xdc00).filter(|low| *low < 0x400);
    Ok((low.ok_or(Miss::Other)?, used + more))
}

/// So many hexadecimal digits: their value, and how many bytes they take.
fn digits(escapes: Escapes, text: &[u8], count: u32) -> Result<(u32, usize), Miss> {
    let (mut value, mut used) = (0, 0);
    for _ in 0..count {
        let rest = text.get(used..).unwrap_or_default();
        let unit = unescape(escapes, rest).ok_or(Miss::Short)?;
        let digit = unit.only().and_then(hex_digit).ok_or(Miss::Other)?;
        value = value << 4 | u32::from(digit);
        used += unit.used;
    }
    Ok((value, used))
}

/// The value of a hexadecimal digit.
pub fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Two digits make one byte.
fn low_byte(value: u32) -> u8 {
    let [.., byte] = value.to_be_bytes();
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(escapes: Escapes, percent: bool, mut text: &[u8]) -> Vec<u8> {
        let mut read_bytes = Vec::new();
        while let Some(unit) = read(Mode { escapes, percent }, text) {
            read_bytes.extend_from_slice(unit.bytes());
            text = &text[unit.used..];
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
            assert_eq!(all(escapes, false, text.as_bytes()), value.as_bytes());
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
            all(Escapes::Once, false, text),
            expected.collect::<Vec<u8>>()
        );
        let twice = br"\\u00f6\u005cu00f6\\\u0075\u0030\u0030\u0034\u0031";
        assert_eq!(
            all(Escapes::Twice, false, twice),
            "\u{f6}\u{f6}A".as_bytes()
        );
        assert_eq!(
            all(Escapes::Twice, true, b"%41%c3%B6\\u002541\\\\u002541"),
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
            let read = all(Escapes::Once, false, text);
            assert_eq!(
                read,
                String::from_utf8_lossy(text)
                    .replace("\\u0041", "A")
                    .as_bytes()
            );
        }
        assert_eq!(all(Escapes::None, true, b"100% of %4g"), b"100% of %4g");
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
        ] {
            let mode = Mode {
                escapes: Escapes::Twice,
                percent: true,
            };
            assert_eq!(read(mode, text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
