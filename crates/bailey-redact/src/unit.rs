//! Reads text through what programs put around a value when they print it: backslash escapes, at most twice; within them HTML's entities;
//! within those percent signs, at most twice.

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// How often backslash escapes were put around it: as JSON has them, and what Python, shells and C add.
    pub escapes: Escapes,
    /// Whether `&#65;` means `A`.
    pub entities: bool,
    /// How often `%41` stands for `A`.
    pub percent: Percent,
}

impl Mode {
    /// Through everything that may stand around a value.
    pub const ALL: Self = Self {
        escapes: Escapes::Twice,
        entities: true,
        percent: Percent::Twice,
    };

    /// Whether more than a byte may begin with this one.
    #[inline]
    fn opens(self, byte: u8) -> bool {
        match byte {
            b'\\' => self.escapes != Escapes::None,
            b'&' => self.entities,
            b'%' => self.percent != Percent::None,
            _ => false,
        }
    }

    const fn escaped(escapes: Escapes) -> Self {
        Self {
            escapes,
            entities: false,
            percent: Percent::None,
        }
    }
}

/// How often a text was encoded with percent signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percent {
    /// A percent sign is a percent sign.
    None,
    /// As in a URL.
    Once,
    /// As in a URL that is part of another. Reads what was encoded once as well, if there is no percent sign in it.
    Twice,
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
    count: Count,
    used: u16,
}

/// How many bytes were read. No number, so that an optional unit still fits into a register: there is one for each byte of an escaped text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Count {
    One = 1,
    Two,
    Three,
    Four,
}

impl Unit {
    const fn byte(byte: u8, used: u16) -> Self {
        Self {
            bytes: [byte, 0, 0, 0],
            count: Count::One,
            used,
        }
    }

    fn character(character: char, used: u16) -> Self {
        let mut bytes = [0; 4];
        let count = match character.encode_utf8(&mut bytes).len() {
            1 => Count::One,
            2 => Count::Two,
            3 => Count::Three,
            _ => Count::Four,
        };
        Self { bytes, count, used }
    }

    /// What was read.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.count as usize).unwrap_or_default()
    }

    /// How many bytes of the text it takes.
    pub fn used(self) -> usize {
        self.used.into()
    }

    /// What was read, if that is one byte.
    pub fn only(self) -> Option<u8> {
        let [byte, ..] = self.bytes;
        (self.count == Count::One).then_some(byte)
    }
}

/// The unit at the beginning of `text`; `None` where the text ends within it.
#[inline]
pub fn read(mode: Mode, text: &[u8]) -> Option<Unit> {
    let first = *text.first()?;
    if !opens(first) {
        return Some(Unit::byte(first, 1));
    }
    quick(mode, text).or_else(|| careful(mode, text))
}

/// Whether more than a byte may begin with it.
#[inline]
pub const fn opens(byte: u8) -> bool {
    matches!(byte, b'\\' | b'%' | b'&')
}

/// Whether it may stand between `&` and `;`, or is the latter.
const fn in_entity(byte: u8) -> bool {
    matches!(byte, b'#' | b';') || byte.is_ascii_alphanumeric()
}

/// What nearly every escape is, at a glance; `None` where it takes a closer look.
#[inline]
fn quick(mode: Mode, text: &[u8]) -> Option<Unit> {
    match *text {
        [first, ..] if !mode.opens(first) => Some(Unit::byte(first, 1)),
        [b'&', next, ..] if next != b'\\' && !in_entity(next) => Some(Unit::byte(b'&', 1)),
        [b'%', b'&', next, ..] if !opens(next) && !in_entity(next) => Some(Unit::byte(b'%', 1)),
        [b'%', b'&', b'%', ..] => Some(Unit::byte(b'%', 1)),
        [b'%', high, low, ..] if mode.percent != Percent::None && !opens(high) && !opens(low) => {
            let escaped = hex_digit(high).zip(hex_digit(low));
            let byte = escaped.map(|(high, low)| high << 4 | low);
            // Another percent sign begins another escape.
            let is_plain = byte != Some(b'%') || mode.percent == Percent::Once;
            is_plain.then(|| byte.map_or(Unit::byte(b'%', 1), |byte| Unit::byte(byte, 3)))
        }
        [b'\\', b'\\', ..] if mode.escapes == Escapes::Once => Some(Unit::byte(b'\\', 2)),
        [b'\\', b'\\', ref rest @ ..] if mode.escapes == Escapes::Twice => match *rest {
            [b'u', a, b, c, d, ..] => numeral([a, b, c, d], 7),
            [] | [b'\\', b'%' | b'&', ..] => None,
            [b'\\', other, ..] if stands_for_itself(other) => Some(Unit::byte(other, 4)),
            [kind, ..] => letter(kind, 3).or_else(|| {
                // Nothing that can be escaped is escaped: that is a backslash, which was.
                let is_open = kind.is_ascii_punctuation() || matches!(kind, b'u' | b'U' | b'x');
                (!is_open).then_some(Unit::byte(b'\\', 2))
            }),
        },
        [b'\\', b'u', a, b, c, d, ..] if mode.escapes != Escapes::None => {
            // Another backslash begins another escape.
            numeral([a, b, c, d], 6).filter(|unit| unit.only() != Some(b'\\'))
        }
        [b'\\', kind, ..] if mode.escapes != Escapes::None => letter(kind, 2),
        _ => None,
    }
}

/// What a backslash and this byte are, where that is plain to see and begins nothing else.
fn letter(kind: u8, used: u16) -> Option<Unit> {
    let byte = match kind {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'f' => 12,
        b'\\' | b'%' | b'&' => return None,
        other if stands_for_itself(other) => other,
        _ => return None,
    };
    Some(Unit::byte(byte, used))
}

/// Whether a backslash before it means nothing else. Before a space: shells.
const fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_punctuation() || byte == b' '
}

/// A character by its number, unless that takes another, or it is one that may begin another escape.
fn numeral(digits: [u8; 4], used: u16) -> Option<Unit> {
    let mut value = 0;
    for digit in digits {
        value = value << 4 | u32::from(hex_digit(digit)?);
    }
    let character = char::from_u32(value).filter(|it| !matches!(it, '%' | '&'))?;
    Some(Unit::character(character, used))
}

/// The unit at the beginning of `text`, whatever it is.
#[cold]
fn careful(mode: Mode, text: &[u8]) -> Option<Unit> {
    let percent = match mode.percent {
        Percent::None if mode.entities => return entity(mode.escapes, text),
        Percent::None => return unescape(mode.escapes, text),
        Percent::Once => Percent::None,
        Percent::Twice => Percent::Once,
    };
    let below = Mode { percent, ..mode };
    let sign = careful(below, text)?;
    if sign.only() != Some(b'%') {
        return Some(sign);
    }
    match digits(below, text.get(sign.used()..)?, 2) {
        Ok((value, used)) => Some(Unit::byte(low_byte(value), sign.used + used)),
        Err(Miss::Other) => Some(sign),
        Err(Miss::Short) => None,
    }
}

/// The names of what must not stand in HTML as itself.
const NAMES: [(&[u8], char); 5] = [
    (b"amp", '&'),
    (b"lt", '<'),
    (b"gt", '>'),
    (b"quot", '"'),
    (b"apos", '\''),
];
/// Of all names and numbers between `&` and `;`; zeros may stand before a number.
const LONGEST_ENTITY: usize = 10;

/// What follows is read as HTML: an entity, or whatever it is.
fn entity(escapes: Escapes, text: &[u8]) -> Option<Unit> {
    let sign = unescape(escapes, text)?;
    if sign.only() != Some(b'&') {
        return Some(sign);
    }
    let (mut name, mut count, mut used) = ([0; LONGEST_ENTITY], 0, sign.used);
    loop {
        let unit = unescape(escapes, text.get(usize::from(used)..)?)?;
        used += unit.used;
        match unit.only() {
            Some(b';') => {
                let character = character(name.get(..count).unwrap_or_default());
                return Some(character.map_or(sign, |it| Unit::character(it, used)));
            }
            Some(byte) if in_entity(byte) => {
                let Some(place) = name.get_mut(count) else {
                    return Some(sign);
                };
                *place = byte;
                count += 1;
            }
            _ => return Some(sign),
        }
    }
}

fn character(name: &[u8]) -> Option<char> {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok()?;
        char::from_u32(u32::from_str_radix(digits, radix).ok()?)
    };
    match name {
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        name => NAMES
            .iter()
            .find(|known| known.0 == name)
            .map(|known| known.1),
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
    let rest = text.get(backslash.used()..)?;
    let kind = unescape(below, rest)?;
    let used = backslash.used + kind.used;
    let short = |byte| Some(Unit::byte(byte, used));
    match kind.only() {
        Some(b'n') => short(b'\n'),
        Some(b'r') => short(b'\r'),
        Some(b't') => short(b'\t'),
        Some(b'b') => short(8),
        Some(b'f') => short(12),
        Some(other) if stands_for_itself(other) => short(other),
        Some(kind @ (b'u' | b'U' | b'x')) => {
            match numbered(below, kind, text.get(usize::from(used)..)?) {
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
    let (value, used) = digits(Mode::escaped(below), text, count)?;
    if kind == b'x' {
        return Ok(Unit::byte(low_byte(value), used));
    }
    if let Some(character) = char::from_u32(value) {
        return Ok(Unit::character(character, used));
    }
    // The first of a pair of surrogates, RFC 8259 section 7.
    let high = value.checked_sub(0xd800).filter(|high| *high < 0x400);
    let high = high.ok_or(Miss::Other)?;
    let (low, more) = second(below, text.get(usize::from(used)..).unwrap_or_default())?;
    let character = char::from_u32(0x1_0000 + (high << 10) + low).ok_or(Miss::Other)?;
    Ok(Unit::character(character, used + more))
}

/// The second of a pair of surrogates: its ten bits, and how many bytes it takes.
fn second(below: Escapes, text: &[u8]) -> Result<(u32, u16), Miss> {
    let mut used = 0;
    for wanted in *b"\\u" {
        let rest = text.get(usize::from(used)..).unwrap_or_default();
        let unit = unescape(below, rest).ok_or(Miss::Short)?;
        if unit.only() != Some(wanted) {
            return Err(Miss::Other);
        }
        used += unit.used;
    }
    let rest = text.get(usize::from(used)..).unwrap_or_default();
    let (value, more) = digits(Mode::escaped(below), rest, 4)?;
    let low = value.checked_sub(0xdc00).filter(|low| *low < 0x400);
    Ok((low.ok_or(Miss::Other)?, used + more))
}

/// So many hexadecimal digits: their value, and how many bytes they take.
fn digits(mode: Mode, text: &[u8], count: u32) -> Result<(u32, u16), Miss> {
    let (mut value, mut used) = (0, 0);
    for _ in 0..count {
        let rest = text.get(usize::from(used)..).unwrap_or_default();
        let unit = careful(mode, rest).ok_or(Miss::Short)?;
        let digit = unit.only().and_then(hex_digit).ok_or(Miss::Other)?;
        value = value << 4 | u32::from(digit);
        used += unit.used;
    }
    Ok((value, used))
}

/// The value of a hexadecimal digit.
pub const fn hex_digit(byte: u8) -> Option<u8> {
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
mod tests;
