//! Validated names. A value of one of these types has been checked; nothing downstream checks again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a string is not a name of the wanted kind.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a valid {what}: {rule}")]
pub struct BadName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl BadName {
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        // A name from outside may be megabytes long; the message need not be.
        Self {
            what,
            text: text.chars().take(80).collect(),
            rule,
        }
    }
}

macro_rules! name {
    ($(#[$meta:meta])* $type:ident, $what:literal, $max:literal, $rule:literal, $valid:expr) => {
        $(#[$meta])*
        #[doc = concat!("\n\nInvariant: ", $rule, "; at most ", stringify!($max), " bytes.")]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Box<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                let valid: fn(&str) -> bool = $valid;
                if text.len() <= $max && valid(text) {
                    return Ok(Self(text.into()));
                }
                Err(BadName::new($what, text, concat!($rule, ", at most ", stringify!($max), " bytes")))
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// First byte by `first`, the others by `rest`; never empty.
fn shaped(text: &str, first: fn(u8) -> bool, rest: fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(first) && bytes.all(rest)
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn lower_word(text: &str) -> bool {
    shaped(text, lower_or_digit, |b| {
        lower_or_digit(b) || b == b'_' || b == b'-'
    }) && text.bytes().last().is_some_and(lower_or_digit)
}

fn letter_word(text: &str) -> bool {
    shaped(text, |b| b.is_ascii_alphabetic(), word)
}

fn any_word(text: &str) -> bool {
    shaped(text, |b| b.is_ascii_alphanumeric(), word)
}

name!(
    /// A plugin, or an alias of one (`plugins.<name>` in the configuration).
    PluginName, "plugin name", 64, "letters, digits, '_' and '-', starting with a letter or digit", any_word
);
name!(
    /// A command of a plugin's manifest (reference: ductile 1.8).
    CommandName, "command name", 64, "letters, digits, '_' and '-', starting with a letter", letter_word
);
name!(
    /// An account under which plugins run (`accounts.<name>`).
    AccountName, "account name", 32, "lower-case letters, digits, '_' and '-', starting and ending with a letter or digit", lower_word
);
name!(
    /// A pipeline of the configuration.
    PipelineName, "pipeline name", 64, "letters, digits, '_' and '-', starting with a letter or digit", any_word
);
name!(
    /// A step within a pipeline.
    StepId, "step id", 64, "letters, digits, '_' and '-', starting with a letter or digit", any_word
);
name!(
    /// A schedule of a plugin.
    ScheduleId, "schedule id", 64, "letters, digits, '_' and '-', starting with a letter or digit", any_word
);
name!(
    /// A secret of the vault (reference: ductile 7.1).
    SecretName, "secret name", 64, "lower-case letters, digits, '_' and '-', starting and ending with a letter or digit", lower_word
);
name!(
    /// A principal of the vault: a plugin, a consumer or the gateway (reference: ductile 7.1).
    PrincipalName, "principal name", 64, "letters, digits, '_' and '-', starting with a letter or digit", any_word
);
name!(
    /// An API token's name (its value is never a name).
    TokenName, "token name", 64, "lower-case letters, digits, '_' and '-', starting and ending with a letter or digit", lower_word
);
name!(
    /// An HTTP service beyond the stack that its own services call (`upstreams.<name>`).
    UpstreamName, "upstream name", 32, "lower-case letters, digits, '_' and '-', starting and ending with a letter or digit", lower_word
);
name!(
    /// One Bailey installation: in every label, container, volume and network name, so that several can share an engine.
    StackId, "stack id", 32, "lower-case letters, digits, '_' and '-', starting and ending with a letter or digit", lower_word
);
name!(
    /// The type of an event: dot-separated words, matched exactly by pipelines.
    EventType, "event type", 128, "words of letters, digits, '_' and '-' separated by single dots",
    |text| !text.is_empty() && text.split('.').all(|w| !w.is_empty() && w.bytes().all(word))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_when_it_is_made() {
        assert!("py-greet".parse::<PluginName>().is_ok());
        assert!("".parse::<PluginName>().is_err());
        assert!("../etc".parse::<PluginName>().is_err());
        assert!("a".repeat(65).parse::<PluginName>().is_err());
        assert!("9lives".parse::<CommandName>().is_err());
        assert!("trailing-".parse::<SecretName>().is_err());
        assert!("github.push".parse::<EventType>().is_ok());
        assert!("github..push".parse::<EventType>().is_err());
        assert!("github.*".parse::<EventType>().is_err());
    }

    #[test]
    fn a_bad_name_says_which_rule_it_breaks() {
        let error = "a b".parse::<PluginName>().unwrap_err().to_string();
        assert!(
            error.contains("plugin name") && error.contains("letters, digits"),
            "{error}"
        );
    }
}
