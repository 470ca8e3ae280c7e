//! Which events a subscriber wants, in the wildcards of NATS: `*` is one token, `>` all the rest.

/// Most patterns of one subscription.
pub const MAX_PATTERNS: usize = 32;

/// Why a subscription is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None, or too many.
    #[error("a subscription needs 1 to {MAX_PATTERNS} patterns")]
    Count,
    /// A pattern that is none.
    #[error(
        "{0:?} is not a pattern: tokens of letters, digits, '_' and '-' joined by dots; `*` is one token, a final `>` the rest"
    )]
    Malformed(String),
}

/// The patterns of one subscription.
#[derive(Clone, Debug)]
pub struct Patterns(Vec<Vec<Token>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Box<str>),
    One,
    Rest,
}

impl Patterns {
    /// Reads patterns.
    pub fn parse(texts: &[String]) -> Result<Self, Error> {
        if texts.is_empty() || texts.len() > MAX_PATTERNS {
            return Err(Error::Count);
        }
        texts
            .iter()
            .map(|text| pattern(text))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether an event of this type is wanted.
    pub fn want(&self, event_type: &str) -> bool {
        self.0.iter().any(|pattern| fits(pattern, event_type))
    }
}

fn pattern(text: &str) -> Result<Vec<Token>, Error> {
    let malformed = || Error::Malformed(text.chars().take(80).collect());
    let words = text.split('.').count();
    let token = |(nth, word): (usize, &str)| match word {
        "*" => Ok(Token::One),
        ">" if nth + 1 == words => Ok(Token::Rest),
        word if is_word(word) => Ok(Token::Word(word.into())),
        _ => Err(malformed()),
    };
    if text.len() > 256 {
        Err(malformed())
    } else {
        text.split('.').enumerate().map(token).collect()
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn fits(pattern: &[Token], event_type: &str) -> bool {
    let mut words = event_type.split('.');
    for token in pattern {
        let word = words.next();
        let same = match token {
            Token::Rest => return word.is_some(),
            Token::One => word.is_some(),
            Token::Word(wanted) => word == Some(wanted),
        };
        if !same {
            return false;
        }
    }
    words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(pattern: &str, event_type: &str) -> bool {
        Patterns::parse(&[pattern.to_owned()])
            .unwrap()
            .want(event_type)
    }

    #[test]
    fn wildcards_mean_what_they_mean_in_nats() {
        // https://docs.nats.io/nats-concepts/subjects#wildcards
        assert!(want("time.us.east", "time.us.east"));
        assert!(want("time.*.east", "time.us.east"));
        assert!(!want("time.*", "time.us.east"));
        assert!(want("time.us.>", "time.us.east.atlanta"));
        assert!(!want("time.us.>", "time.us"), "`>` is one token at least");
        assert!(want(">", "anything.at.all"));
        assert!(!want("time.us", "time.us.east"));
        assert!(want("*.*.>", "a.b.c.d"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", ".", "a..b", "a.>.b", "a*", "a b", "a.>x"] {
            assert!(Patterns::parse(&[text.to_owned()]).is_err(), "{text:?}");
        }
        assert_eq!(Patterns::parse(&[]).unwrap_err(), Error::Count);
        assert_eq!(
            Patterns::parse(&vec!["a".to_owned(); 33]).unwrap_err(),
            Error::Count
        );
    }
}
