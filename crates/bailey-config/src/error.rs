//! Everything that is wrong with a configuration.

use std::fmt;

use bailey_yaml::Place;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct Error {
    /// The file, relative to `config/`.
    pub file: String,
    /// Where in it; unset if it is about the file as a whole.
    pub place: Option<Place>,
    /// What.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}:{place}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// All of them, one a line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors(pub Vec<Error>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, error) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

/// Collects what is wrong in one file.
pub(crate) struct Report<'a> {
    pub(crate) file: &'a str,
    pub(crate) errors: &'a mut Vec<Error>,
}

impl Report<'_> {
    pub(crate) fn push(&mut self, place: Place, message: impl Into<String>) {
        self.errors.push(Error {
            file: self.file.to_owned(),
            place: Some(place),
            message: message.into(),
        });
    }
}
