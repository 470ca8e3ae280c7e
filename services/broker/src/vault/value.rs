//! Memory that is wiped: secret values, the nonce, and the buffers they pass through.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

/// A secret's value. Wiped on drop; `Debug` shows its size only; there is no `Display`.
///
/// It is UTF-8, for it reaches a plugin as a JSON string. In the document it is base64: such a string has no escapes, so the JSON
/// parser lends it out of the wiped buffer instead of unescaping it into one of its own.
#[derive(Clone, Default)]
pub struct Value(Zeroizing<String>);

impl Value {
    /// Largest value, bytes.
    pub const LIMIT_BYTES: usize = 64 << 10;

    /// The value for delivery. Whoever calls this says where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Value {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.as_bytes())))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = decode(deserializer)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong::<D::Error>())?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

/// The vault's nonce: keys the MACs of plugin trees. Never leaves the broker.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Nonce([u8; 32]);

impl Nonce {
    /// A new one from the operating system's randomness.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// The key of the MACs.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(…)")
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0)))
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A short nonce is an error, never a weaker hash.
        let bytes = decode(deserializer)?;
        bytes
            .as_slice()
            .try_into()
            .map(Self)
            .map_err(|_| wrong::<D::Error>())
    }
}

fn wrong<E: serde::de::Error>() -> E {
    // The text that is wrong is secret: it is not quoted.
    E::custom("a value is not what the broker wrote")
}

fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    struct Base64;

    impl serde::de::Visitor<'_> for Base64 {
        type Value = Zeroizing<Vec<u8>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            STANDARD
                .decode(text)
                .map(Zeroizing::new)
                .map_err(|_| wrong())
        }
    }

    deserializer.deserialize_str(Base64)
}

/// A buffer that leaves no copy behind when it grows, and wipes itself on drop.
#[derive(Default)]
pub struct WipingBuffer(Zeroizing<Vec<u8>>);

impl WipingBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that need not grow before it has so many bytes.
    pub fn with_capacity(size_bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(size_bytes)))
    }

    /// What was written.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl WipingBuffer {
    /// Writes `bytes` behind what is there.
    pub fn push(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            // `Vec` would free its old memory as it is.
            let mut larger =
                Zeroizing::new(Vec::with_capacity(needed.next_power_of_two().max(4096)));
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
    }
}

impl io::Write for WipingBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_value_survives_the_document_and_shows_in_no_debug() {
        let value = Value::from(Zeroizing::new("hünter\"2\n".to_owned()));
        let text = serde_json::to_string(&value).unwrap();
        assert!(!text.contains("nter"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(format!("{value:?}"), "Value(10 bytes)");
    }

    #[test]
    fn a_malformed_value_is_refused_without_being_quoted() {
        let error = serde_json::from_str::<Value>("\"hunter2!\"")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_short_nonce_is_an_error() {
        let short = format!("\"{}\"", STANDARD.encode([7; 31]));
        assert!(serde_json::from_str::<Nonce>(&short).is_err());
        let nonce = Nonce::generate();
        let text = serde_json::to_string(&nonce).unwrap();
        assert_eq!(serde_json::from_str::<Nonce>(&text).unwrap(), nonce);
        assert!(!format!("{nonce:?}").contains(&text));
    }

    #[test]
    fn a_buffer_keeps_what_was_written_while_it_grows() {
        let mut buffer = WipingBuffer::new();
        let mut expected = Vec::new();
        for i in 0..1000_u32 {
            buffer.write_all(&i.to_be_bytes()).unwrap();
            expected.extend_from_slice(&i.to_be_bytes());
        }
        assert_eq!(buffer.as_slice(), expected);
    }
}
