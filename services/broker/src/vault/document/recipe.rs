//! How the broker makes values.

use std::fmt;
use std::str::FromStr;

use rand::Rng as _;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::short;
use crate::vault::refused::Refused;
use crate::vault::value::Value;

/// How long a made value is, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Parts")]
pub struct Recipe {
    /// Characters. Invariant: [`Recipe::LENGTHS`].
    length: u32,
    alphabet: Alphabet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    length: u32,
    alphabet: Alphabet,
}

impl TryFrom<Parts> for Recipe {
    type Error = Refused;

    fn try_from(parts: Parts) -> Result<Self, Refused> {
        Self::new(parts.length, parts.alphabet)
    }
}

/// What is said of how values are made; of the rest nothing changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecipeChange {
    /// `None`: as it is. Invariant: [`Recipe::LENGTHS`].
    length: Option<u32>,
    alphabet: Option<Alphabet>,
}

impl RecipeChange {
    /// A change, if the length is one of [`Recipe::LENGTHS`].
    pub fn new(length: Option<u32>, alphabet: Option<Alphabet>) -> Result<Self, Refused> {
        match length.filter(|length| !Recipe::LENGTHS.contains(length)) {
            Some(length) => Err(Refused::BadLength(length)),
            None => Ok(Self { length, alphabet }),
        }
    }

    /// `recipe` with what was said of it.
    pub fn of(self, recipe: Recipe) -> Recipe {
        Recipe {
            length: self.length.unwrap_or(recipe.length),
            alphabet: self.alphabet.unwrap_or(recipe.alphabet),
        }
    }
}

/// What a made value consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alphabet {
    /// Letters and digits: 5.9 bits a character.
    Alphanumeric,
    /// Lower-case hexadecimal digits: 4 bits.
    Hex,
    /// Decimal digits: 3.3 bits.
    Digits,
    /// Letters, digits, `-` and `_`: 6 bits.
    Base64url,
    /// Letters, digits and the punctuation that no shell, URL or JSON text minds: 6.2 bits.
    Symbols,
}

impl Recipe {
    /// Shortest and longest value that is made.
    pub const LENGTHS: std::ops::RangeInclusive<u32> = 8..=1024;

    /// A recipe, if the length is one of [`Recipe::LENGTHS`].
    pub fn new(length: u32, alphabet: Alphabet) -> Result<Self, Refused> {
        if Self::LENGTHS.contains(&length) {
            Ok(Self { length, alphabet })
        } else {
            Err(Refused::BadLength(length))
        }
    }

    /// Characters.
    pub fn length(self) -> u32 {
        self.length
    }

    /// What it consists of.
    pub fn alphabet(self) -> Alphabet {
        self.alphabet
    }

    /// A new value, each character chosen alone and evenly from the operating system's randomness.
    pub fn make(self) -> Value {
        let characters = self.alphabet.characters();
        let length = usize::try_from(self.length).unwrap_or_default();
        let mut text = Zeroizing::new(String::with_capacity(length));
        for _ in 0..length {
            let index = OsRng.gen_range(0..characters.len());
            text.extend(characters.get(index).copied().map(char::from));
        }
        Value::from(text)
    }
}

impl Default for Recipe {
    /// 190 bits.
    fn default() -> Self {
        Self {
            length: 32,
            alphabet: Alphabet::Alphanumeric,
        }
    }
}

impl Alphabet {
    /// Every alphabet.
    pub const ALL: [Self; 5] = [
        Self::Alphanumeric,
        Self::Hex,
        Self::Digits,
        Self::Base64url,
        Self::Symbols,
    ];

    const fn characters(self) -> &'static [u8] {
        match self {
            Self::Alphanumeric => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::Hex => b"0123456789abcdef",
            Self::Digits => b"0123456789",
            Self::Base64url => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
            Self::Symbols => {
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:,+=@^~"
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Alphanumeric => "alphanumeric",
            Self::Hex => "hex",
            Self::Digits => "digits",
            Self::Base64url => "base64url",
            Self::Symbols => "symbols",
        }
    }
}

impl fmt::Display for Alphabet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Alphabet {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let known = Self::ALL
            .into_iter()
            .find(|alphabet| alphabet.name() == text);
        known.ok_or_else(|| Refused::NoSuchAlphabet(short(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_value_has_the_length_and_the_characters_that_were_asked_for() {
        for alphabet in Alphabet::ALL {
            for length in [8, 33, 1024] {
                let made = Recipe::new(length, alphabet).unwrap().make();
                assert_eq!(made.expose().len(), usize::try_from(length).unwrap());
                let known = made
                    .expose()
                    .bytes()
                    .all(|byte| alphabet.characters().contains(&byte));
                assert!(known, "{alphabet}");
            }
            assert_eq!(alphabet.to_string().parse(), Ok(alphabet));
        }
    }

    #[test]
    fn every_character_of_an_alphabet_is_used_and_no_two_values_are_equal() {
        for alphabet in Alphabet::ALL {
            let recipe = Recipe::new(1024, alphabet).unwrap();
            let values: Vec<_> = (0..4).map(|_| recipe.make()).collect();
            let used = |character: &u8| {
                values
                    .iter()
                    .any(|value| value.expose().as_bytes().contains(character))
            };
            assert!(alphabet.characters().iter().all(used), "{alphabet}");
            assert_ne!(values[0], values[1]);
        }
    }

    #[test]
    fn a_length_beyond_the_limits_is_refused_and_those_at_them_are_not() {
        for length in [0, 7, 1025, u32::MAX] {
            assert_eq!(
                Recipe::new(length, Alphabet::Hex),
                Err(Refused::BadLength(length))
            );
        }
        assert!(Recipe::new(8, Alphabet::Hex).is_ok() && Recipe::new(1024, Alphabet::Hex).is_ok());
        assert_eq!(
            "base32".parse::<Alphabet>(),
            Err(Refused::NoSuchAlphabet("base32".into()))
        );
        assert_eq!(RecipeChange::new(Some(7), None), Err(Refused::BadLength(7)));
        // Nor does one come in by the document.
        assert!(serde_json::from_str::<Recipe>(r#"{"length":4,"alphabet":"hex"}"#).is_err());
        assert!(serde_json::from_str::<Recipe>(r#"{"length":8,"alphabet":"hex"}"#).is_ok());
    }
}
