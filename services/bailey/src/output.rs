//! What is printed.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

use bailey_types::Timestamp;
use serde::Serialize;

use crate::home::Home;

/// How a command ended that has said everything itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Exit code 0.
    Well,
    /// Exit code 1: the job failed, the stack is not ready.
    Badly,
    /// Exit code 2: nothing is wrong with the question, but the vault is not open.
    Closed,
    /// Exit code 78: the operator must correct something, and was told what.
    Misconfigured,
}

/// Standard output, written in one go at the end.
#[derive(Debug, Default)]
pub(crate) struct Out(String);

impl Out {
    /// One line.
    pub(crate) fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    /// A sentence; with `--json` the same for programs.
    pub(crate) fn told(
        &mut self,
        home: &Home,
        json: &serde_json::Value,
        sentence: impl Display,
    ) -> anyhow::Result<()> {
        if home.json() {
            self.json(json)
        } else {
            self.line(sentence);
            Ok(())
        }
    }

    /// Indented JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string_pretty(value)?);
        Ok(())
    }

    /// Columns as wide as they need to be.
    pub(crate) fn table<const N: usize>(&mut self, head: [&str; N], rows: &[[String; N]]) {
        let mut widths = head.map(|cell| cell.chars().count());
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.row(head, widths);
        for row in rows {
            self.row(row.each_ref().map(String::as_str), widths);
        }
    }

    fn row<const N: usize>(&mut self, cells: [&str; N], widths: [usize; N]) {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        self.line(line.trim_end());
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Writes everything. A reader that went away is no error.
    pub(crate) fn finish(self) -> io::Result<()> {
        match io::stdout().write_all(self.0.as_bytes()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// What comes from outside, for a terminal: control characters could move its cursor or change its title.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// A number of things: `noun` is one of them.
pub(crate) fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    match (number == N::from(1), noun.strip_suffix("ry")) {
        (true, _) => format!("{number} {noun}"),
        (false, Some(stem)) => format!("{number} {stem}ries"),
        (false, None) => format!("{number} {noun}s"),
    }
}

/// A time as programs read it.
pub(crate) fn time(ms: i64) -> String {
    Timestamp(ms).to_rfc3339()
}

/// The day of a time, where that is enough for people.
pub(crate) fn day(ms: i64) -> String {
    Timestamp(ms).to_utc().format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_have_no_trailing_blanks() {
        let mut out = Out::default();
        out.table(
            ["NAME", "X"],
            &[["a".into(), "1".into()], ["länger".into(), String::new()]],
        );
        assert_eq!(out.text(), "NAME    X\na       1\nlänger\n");
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!(
            [0_u64, 1, 2].map(|number| count(number, "API token")),
            ["0 API tokens", "1 API token", "2 API tokens"]
        );
        assert_eq!(
            [1_u32, 2].map(|number| count(number, "entry")),
            ["1 entry", "2 entries"]
        );
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\nc");
    }
}
