//! Tells at once of nearly every place in a text that no secret begins there.

use zeroize::Zeroize;

use super::spelling::KEY_BYTES;

/// How many chains the keys are spread over.
const CHAINS: usize = 1024;
/// The end of a chain.
const END: u32 = u32::MAX;

/// A set of 16-bit numbers.
struct Bits(Box<[u64; 1024]>);

impl Bits {
    fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    fn add(&mut self, number: u16) {
        if let Some(word) = self.0.get_mut(usize::from(number >> 6)) {
            *word |= 1 << (number & 63);
        }
    }

    fn has(&self, number: u16) -> bool {
        let word = self.0.get(usize::from(number >> 6));
        word.is_some_and(|word| word >> (number & 63) & 1 == 1)
    }
}

/// A key, and one of those whom it may begin.
struct Entry {
    key: [u8; KEY_BYTES],
    whose: u32,
    next: u32,
}

/// The beginning of a key. A number and no slice: one is made for each byte of an escaped text.
#[derive(Clone, Copy, Default)]
pub struct Begun {
    /// Little-endian.
    bytes: u32,
    count: usize,
}

impl Begun {
    /// Adds a byte, as long as there is room.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        if self.count < KEY_BYTES {
            self.bytes |= u32::from(byte) << (8 * self.count);
            self.count += 1;
        }
    }

    /// The whole key, once it is.
    pub fn key(self) -> Option<[u8; KEY_BYTES]> {
        let [first, second, third, _] = self.bytes.to_le_bytes();
        (self.count == KEY_BYTES).then_some([first, second, third])
    }
}

/// Keys, found by their bytes.
pub struct Table {
    firsts: Bits,
    pairs: Bits,
    hashes: Bits,
    chains: Box<[u32; CHAINS]>,
    entries: Vec<Entry>,
}

impl Table {
    /// No keys.
    pub fn new() -> Self {
        Self {
            firsts: Bits::new(),
            pairs: Bits::new(),
            hashes: Bits::new(),
            chains: Box::new([END; CHAINS]),
            entries: Vec::new(),
        }
    }

    /// Adds a key of `whose`.
    pub fn add(&mut self, key: [u8; KEY_BYTES], whose: u32) {
        let [first, second, _] = key;
        self.firsts.add(first.into());
        self.pairs.add(u16::from_le_bytes([first, second]));
        self.hashes.add(hash(key));
        let number = u32::try_from(self.entries.len()).unwrap_or(END);
        if let Some(head) = self.chains.get_mut(chain(key)) {
            let next = std::mem::replace(head, number);
            self.entries.push(Entry { key, whose, next });
        }
    }

    /// Where in `text` something may begin of which three bytes are there.
    pub fn seek(&self, text: &[u8]) -> Option<usize> {
        text.windows(KEY_BYTES).position(|window| match *window {
            [a, b, c] => self.hashes.has(hash([a, b, c])),
            _ => false,
        })
    }

    /// Whether a key may begin so.
    pub fn begins(&self, begun: Begun) -> bool {
        let [first, second, third, _] = begun.bytes.to_le_bytes();
        match begun.count {
            0 => true,
            1 => self.firsts.has(first.into()),
            2 => self.pairs.has(u16::from_le_bytes([first, second])),
            _ => self.hashes.has(hash([first, second, third])),
        }
    }

    /// Everybody whose key this is.
    pub fn find(&self, key: [u8; KEY_BYTES]) -> impl Iterator<Item = u32> {
        let entry = |number: u32| self.entries.get(usize::try_from(number).ok()?);
        let first = self.chains.get(chain(key)).copied().and_then(entry);
        std::iter::successors(first, move |last| entry(last.next))
            .filter(move |entry| entry.key == key)
            .map(|entry| entry.whose)
    }
}

// It holds the beginnings of secrets.
impl Drop for Table {
    fn drop(&mut self) {
        for bits in [&mut self.firsts, &mut self.pairs, &mut self.hashes] {
            bits.0.zeroize();
        }
        for entry in &mut self.entries {
            entry.key.zeroize();
        }
    }
}

/// Spreads keys over 16 bits.
fn hash([a, b, c]: [u8; KEY_BYTES]) -> u16 {
    // A factor without pattern; the upper bits depend on all of the key.
    let mixed = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1);
    let [.., low, high] = mixed.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn chain(key: [u8; KEY_BYTES]) -> usize {
    usize::from(hash(key)) % CHAINS
}
