//! The ways in which a value may be spelled, and how one of them is followed through a text.

use super::unit::{self, Escapes, Mode, Percent, hex_digit};

/// How many bytes every spelling of a value begins with when it is looked for.
pub const KEY_BYTES: usize = 3;
/// So many bytes of its beginning are as good as a value. That bounds what is read twice, and whoever prints so much prints too much.
pub const ENOUGH_BYTES: usize = 256;
/// Longest white space between two digits: a line break and what indents the next line.
const MAX_GAP: u8 = 32;

/// One way to spell a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Itself, with or without escapes; where it is base64, in either alphabet.
    Plain(Mode, Alphabet),
    /// Hexadecimal, in either case, with separators between the bytes or without.
    Hex,
    /// Base64 (RFC 4648 sections 4 and 5) of something that the value begins in, so many bytes behind a multiple of three.
    Base64(Offset),
}

/// What a value's characters may be exchanged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Nothing.
    Own,
    /// `+` and `/` for `-` and `_`, and the other way round: it may be base64.
    Base64,
}

/// Where base64 digits begin that tell of the value alone, or nearly so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// The first digit is the value's first six bits.
    None,
    /// The first digit ends in the value's first four bits.
    One,
    /// The digit before the first ends in the value's first two bits, which tell nothing.
    Two,
}

/// What following a spelling through a text has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It ends here.
    Whole,
    /// The text is another.
    Other,
    /// The text ended first.
    Open,
}

/// How far a spelling was followed through a text. It is taken up again when there is more of the text.
#[derive(Clone, Copy, Debug)]
pub struct Trail {
    /// Where in the text the next unit begins.
    pub at: usize,
    /// How much of the value was found: bytes, or digits of its encoding.
    found: usize,
    /// How long the white space before the next digit is so far.
    gap: u8,
}

impl Trail {
    /// At the beginning of a spelling.
    pub const fn new(at: usize) -> Self {
        Self {
            at,
            found: 0,
            gap: 0,
        }
    }
}

impl Spelling {
    /// All that `value` is looked for in.
    pub fn of(value: &[u8]) -> Vec<Self> {
        let escapes: &[_] = if value.contains(&b'\\') {
            &[Escapes::Twice, Escapes::Once, Escapes::None]
        } else {
            &[Escapes::Twice]
        };
        let percents: &[_] = if value.contains(&b'%') {
            &[Percent::Twice, Percent::Once, Percent::None]
        } else {
            &[Percent::Twice]
        };
        let entities: &[_] = if value.contains(&b'&') {
            &[true, false]
        } else {
            &[true]
        };
        let alphabet = if is_base64(value) {
            Alphabet::Base64
        } else {
            Alphabet::Own
        };
        let mut plain = Vec::new();
        for &escapes in escapes {
            for &entities in entities {
                plain.extend(percents.iter().map(|&percent| {
                    let mode = Mode {
                        escapes,
                        entities,
                        percent,
                    };
                    Self::Plain(mode, alphabet)
                }));
            }
        }
        let offsets = [Offset::None, Offset::One, Offset::Two];
        plain.push(Self::Hex);
        plain.extend(offsets.map(Self::Base64));
        plain
    }

    /// How the text around it is read.
    pub const fn mode(self) -> Mode {
        match self {
            Self::Plain(mode, _) => mode,
            // They have no backslashes, ampersands or percent signs of their own.
            Self::Hex | Self::Base64(_) => Mode::ALL,
        }
    }

    /// Everything that it may begin with.
    pub fn keys(self, value: &[u8], add: &mut impl FnMut([u8; KEY_BYTES])) {
        let from = Trail::new(0);
        self.nexts(value, from, &mut |first| {
            let from = self.after(value, from, first);
            self.nexts(value, from, &mut |second| {
                let from = self.after(value, from, second);
                self.nexts(value, from, &mut |third| add([first, second, third]));
            });
        });
    }

    fn after(self, value: &[u8], mut trail: Trail, byte: u8) -> Trail {
        self.take(value, &mut trail, &[byte]);
        trail
    }

    /// Follows it through `text` from where `trail` ended.
    pub fn follow(self, value: &[u8], trail: &mut Trail, text: &[u8]) -> Step {
        let mode = self.mode();
        loop {
            if self.is_whole(value, trail) {
                return Step::Whole;
            }
            let rest = text.get(trail.at..).unwrap_or_default();
            let Some(unit) = unit::read(mode, rest) else {
                return Step::Open;
            };
            if !self.take(value, trail, unit.bytes()) {
                return Step::Other;
            }
            trail.at += unit.used();
        }
    }

    fn is_whole(self, value: &[u8], trail: &Trail) -> bool {
        let bits = 8 * value.len();
        trail.found
            >= match self {
                Self::Plain(..) => value.len(),
                Self::Hex => 2 * value.len(),
                Self::Base64(Offset::None) => bits.div_ceil(6),
                Self::Base64(Offset::One) => (bits + 2).div_ceil(6),
                Self::Base64(Offset::Two) => (bits - 2).div_ceil(6),
            }
    }

    /// Whether so much was found that it counts without the rest.
    pub fn is_enough(self, trail: &Trail) -> bool {
        let bits = match self {
            Self::Plain(..) => 8,
            Self::Hex => 4,
            Self::Base64(_) => 6,
        };
        bits * trail.found >= 8 * ENOUGH_BYTES
    }

    /// Takes what was read next; whether the spelling goes on like that.
    fn take(self, value: &[u8], trail: &mut Trail, unit: &[u8]) -> bool {
        let is_next = match (self, unit) {
            (Self::Plain(mode, alphabet), unit) => {
                let rest = value.get(trail.found..).unwrap_or_default();
                let is_next = rest.starts_with(unit)
                    || match (alphabet, unit, rest) {
                        (Alphabet::Base64, [byte], [next, ..]) => digit(*byte) == digit(*next),
                        (Alphabet::Own, b"+", [b' ', ..]) => mode.percent != Percent::None,
                        _ => false,
                    };
                if !is_next {
                    return false;
                }
                trail.found += unit.len();
                return true;
            }
            (Self::Hex | Self::Base64(_), &[byte]) if self.separates(*trail, byte) => {
                trail.gap += 1;
                return true;
            }
            (Self::Hex, &[byte]) => {
                hex_digit(byte).is_some() && hex_digit(byte) == nibble(value, trail.found)
            }
            (Self::Base64(offset), &[byte]) => {
                let (bits, mask) = sextet(value, offset, trail.found);
                digit(byte).is_some_and(|digit| digit & mask == bits)
            }
            (Self::Hex | Self::Base64(_), _) => false,
        };
        if is_next {
            trail.found += 1;
            trail.gap = 0;
        }
        is_next
    }

    /// Whether `byte` may stand between what was found and the next digit.
    fn separates(self, trail: Trail, byte: u8) -> bool {
        let breaks = matches!(byte, b'\r' | b'\n');
        let fits = trail.found > 0 && trail.gap < MAX_GAP;
        fits && match self {
            Self::Plain(..) => false,
            Self::Hex => {
                trail.found.is_multiple_of(2)
                    && (breaks || matches!(byte, b' ' | b'\t' | b':' | b'-'))
            }
            // A line that is wrapped, not words.
            Self::Base64(_) => breaks || (trail.gap > 0 && matches!(byte, b' ' | b'\t')),
        }
    }

    /// The bytes that may come next.
    fn nexts(self, value: &[u8], trail: Trail, add: &mut impl FnMut(u8)) {
        let separators = b"\r\n \t:-";
        separators
            .iter()
            .filter(|byte| self.separates(trail, **byte))
            .for_each(|byte| add(*byte));
        match self {
            Self::Plain(mode, alphabet) => {
                let byte = value.get(trail.found).copied().unwrap_or_default();
                match digit(byte) {
                    Some(digit) if alphabet == Alphabet::Base64 => add_digit(digit, add),
                    _ => add(byte),
                }
                if mode.percent != Percent::None && byte == b' ' {
                    add(b'+');
                }
            }
            Self::Hex => {
                let nibble = nibble(value, trail.found).unwrap_or_default();
                add(HEX_DIGITS
                    .get(usize::from(nibble))
                    .copied()
                    .unwrap_or_default());
                if nibble > 9 {
                    add(b'A' + nibble - 10);
                }
            }
            Self::Base64(offset) => {
                let (bits, mask) = sextet(value, offset, trail.found);
                let all = (0..64).filter(|value| value & mask == bits);
                let one = (mask == 63).then_some(bits);
                match one {
                    Some(value) => add_digit(value, add),
                    None => all.for_each(|value| add_digit(value, add)),
                }
            }
        }
    }
}

/// Half of a byte of `value`.
fn nibble(value: &[u8], index: usize) -> Option<u8> {
    let byte = value.get(index / 2)?;
    Some(if index.is_multiple_of(2) {
        byte >> 4
    } else {
        byte & 15
    })
}

/// The six bits of a base64 digit: which are known, and what they are.
fn sextet(value: &[u8], offset: Offset, index: usize) -> (u8, u8) {
    let (mut bits, mut mask) = (0, 0);
    for place in 6 * index..6 * index + 6 {
        let place = match offset {
            Offset::None => Some(place),
            Offset::One => place.checked_sub(2),
            Offset::Two => Some(place + 2),
        };
        let byte = place.and_then(|place| value.get(place / 8).map(|byte| (byte, place % 8)));
        bits <<= 1;
        mask <<= 1;
        if let Some((byte, place)) = byte {
            bits |= byte >> (7 - place) & 1;
            mask |= 1;
        }
    }
    (bits, mask)
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
const BASE64_DIGITS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whether `value` may be base64, its padding left out.
pub fn is_base64(value: &[u8]) -> bool {
    value.iter().all(|byte| digit(*byte).is_some())
}

/// The value of a base64 digit, of either alphabet.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

fn add_digit(value: u8, add: &mut impl FnMut(u8)) {
    add(BASE64_DIGITS
        .get(usize::from(value))
        .copied()
        .unwrap_or_default());
    match value {
        62 => add(b'-'),
        63 => add(b'_'),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_may_come_next_is_what_is_taken(value in "[ -~]{6,9}|[A-Za-z0-9+/_-]{6,9}", follow in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
            for spelling in Spelling::of(value.as_bytes()) {
                let mut trail = Trail::new(0);
                for choice in &follow {
                    if spelling.is_whole(value.as_bytes(), &trail) {
                        break;
                    }
                    let mut nexts = Vec::new();
                    spelling.nexts(value.as_bytes(), trail, &mut |byte| nexts.push(byte));
                    let taken = |byte: &u8| spelling.take(value.as_bytes(), &mut { trail }, &[*byte]);
                    let mut sorted = nexts.clone();
                    sorted.sort_unstable();
                    prop_assert_eq!(sorted, (0..=255).filter(taken).collect::<Vec<u8>>(), "{:?} {:?}", spelling, trail);
                    spelling.take(value.as_bytes(), &mut trail, &[*choice.get(&nexts)]);
                }
            }
        }
    }
}
