//! What comes out of an attached cell: its own output, and what socket-proxy says about its launch.

use std::collections::BTreeMap;

use bailey_cell::launch::{Control, OutputStream, Returned};
use bailey_types::SecretName;
use bollard::container::LogOutput;
use bytes::Bytes;

use crate::answer::{self, Answer, Scanner};

/// What a plugin may print, bytes (reference: ductile 1.6).
pub const STDOUT_LIMIT_BYTES: usize = 10 << 20;
/// What is kept of its standard error, bytes; the rest is read and dropped.
pub const STDERR_LIMIT_BYTES: usize = 64 << 10;
/// socket-proxy's own frames are one short sentence.
const CONTROL_LIMIT_BYTES: usize = 4 << 10;

/// Something on the stream that neither a cell nor socket-proxy sends.
#[derive(Debug, thiserror::Error)]
#[error("socket-proxy sent what is no frame of its own or of a cell")]
pub struct BadFrame;

/// What a cell has said so far.
#[derive(Debug, Default)]
pub struct Collector {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    control: Option<Control>,
    returned: BTreeMap<(SecretName, OutputStream), Count>,
    scanner: Scanner,
    /// What the whole document is, once there is one that is an answer.
    answer: Option<Answer>,
    /// How much of standard error was reported; `None` until the output is taken.
    reported_stderr: Option<usize>,
    late_bytes: usize,
}

/// How often a secret was printed, and how often as far as the engine was told.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    printed: u64,
    told: u64,
}

/// What a cell said after its answer was taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Late {
    /// All of it, what was taken with the answer included; at most what is kept.
    pub stderr: Bytes,
    /// The secrets that were printed since, or more often since, each with how often in all.
    pub returned: Vec<Returned>,
}

impl Collector {
    /// Takes one frame.
    pub fn take(&mut self, frame: LogOutput) -> Result<(), BadFrame> {
        match frame {
            LogOutput::StdOut { message } if self.reported_stderr.is_some() => {
                let meant = message.iter().filter(|byte| !byte.is_ascii_whitespace());
                self.late_bytes = self.late_bytes.saturating_add(meant.count());
            }
            LogOutput::StdOut { message } => self.hear(&message),
            LogOutput::StdErr { message } => {
                keep(&mut self.stderr, &message, STDERR_LIMIT_BYTES);
            }
            LogOutput::StdIn { message } => {
                let said = control(&message)?;
                match (&self.control, said) {
                    (Some(Control::Launched(_)), Control::Returned(returned)) => {
                        let printed = (returned.secret, returned.stream);
                        let count = self.returned.entry(printed).or_default();
                        count.printed = count.printed.max(returned.count);
                    }
                    (_, Control::Returned(_)) => return Err(BadFrame),
                    (None, said)
                    | (
                        Some(Control::Granted(_)),
                        said @ (Control::Launched(_) | Control::Refused(_) | Control::NotNow(_)),
                    ) => self.control = Some(said),
                    (Some(_), _) => return Err(BadFrame),
                }
            }
            LogOutput::Console { .. } => return Err(BadFrame),
        }
        Ok(())
    }

    fn hear(&mut self, message: &[u8]) {
        // One byte more than allowed tells that there was more.
        keep(&mut self.stdout, message, STDOUT_LIMIT_BYTES + 1);
        let was_whole = self.scanner.end().is_some();
        self.scanner.push(message);
        if let (false, Some(end)) = (was_whole, self.scanner.end()) {
            self.answer = self.stdout.get(..end).and_then(answer::read);
        }
    }

    /// Whether the cell printed more than it may.
    pub fn overflowed(&self) -> bool {
        self.stdout.len() > STDOUT_LIMIT_BYTES
    }

    /// Whether the cell has begun to answer. What it writes to standard error is no answer: many warn about something while they start.
    pub fn has_spoken(&self) -> bool {
        !self.stdout.is_empty()
    }

    /// The secrets that the cell has printed, and socket-proxy took out of its output, as far as the engine was not told.
    pub fn untold(&self) -> Vec<Returned> {
        let counts = self.returned.iter();
        counts
            .filter(|(_, count)| count.printed > count.told)
            .map(|((secret, stream), count)| Returned {
                secret: secret.clone(),
                stream: *stream,
                count: count.printed,
            })
            .collect()
    }

    /// The engine is told of these.
    pub fn tell(&mut self, told: &[Returned]) {
        for returned in told {
            let printed = (returned.secret.clone(), returned.stream);
            if let Some(count) = self.returned.get_mut(&printed) {
                count.told = count.told.max(returned.count);
            }
        }
    }

    /// What socket-proxy said last of its launch, if it has.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// What the cell answered, once that is whole. More behind it than white space makes any answer a failure.
    pub fn answer(&self) -> Option<Answer> {
        match self.answer {
            Some(Answer::Ok) if self.scanner.has_trailing() => Some(Answer::Error),
            answer => answer,
        }
    }

    /// Standard output and standard error, as far as they were kept. What comes from now on is late.
    pub fn take_output(&mut self) -> (Bytes, Bytes) {
        self.reported_stderr = Some(self.stderr.len());
        let stdout = std::mem::take(&mut self.stdout).into();
        (stdout, Bytes::copy_from_slice(&self.stderr))
    }

    /// What came on standard error, or which secrets came back, since the answer was taken; `None`: neither.
    pub fn late(&self) -> Option<Late> {
        let returned = self.untold();
        if self.stderr.len() == self.reported_stderr? && returned.is_empty() {
            return None;
        }
        Some(Late {
            stderr: Bytes::copy_from_slice(&self.stderr),
            returned,
        })
    }

    /// Bytes on standard output after its answer was taken, white space not counted.
    pub fn late_bytes(&self) -> usize {
        self.late_bytes
    }
}

fn keep(kept: &mut Vec<u8>, more: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len()).min(more.len());
    kept.extend_from_slice(more.get(..room).unwrap_or_default());
}

fn control(message: &[u8]) -> Result<Control, BadFrame> {
    if message.len() > CONTROL_LIMIT_BYTES {
        return Err(BadFrame);
    }
    match Control::from_json(message) {
        Ok(Control::Launched(false) | Control::Granted(false)) | Err(_) => Err(BadFrame),
        Ok(control) => Ok(control),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stdout(bytes: usize) -> LogOutput {
        LogOutput::StdOut {
            message: vec![b'x'; bytes].into(),
        }
    }

    fn said(text: &'static str) -> LogOutput {
        LogOutput::StdIn {
            message: text.into(),
        }
    }

    #[test]
    fn exactly_the_limit_is_allowed_and_one_byte_more_is_kept_as_proof() {
        let mut collector = Collector::default();
        collector.take(stdout(STDOUT_LIMIT_BYTES)).unwrap();
        assert!(!collector.overflowed());
        collector.take(stdout(70_000)).unwrap();
        assert!(collector.overflowed());
        assert_eq!(collector.take_output().0.len(), STDOUT_LIMIT_BYTES + 1);
    }

    #[test]
    fn standard_error_is_cut_but_never_overflows() {
        let mut collector = Collector::default();
        for _ in 0..3 {
            let message = vec![b'e'; 40_000].into();
            collector.take(LogOutput::StdErr { message }).unwrap();
        }
        assert!(!collector.overflowed());
        assert_eq!(collector.take_output().1.len(), STDERR_LIMIT_BYTES);
    }

    #[test]
    fn output_before_the_launch_is_kept() {
        let mut collector = Collector::default();
        collector.take(stdout(2)).unwrap();
        collector.take(said(r#"{"launched":true}"#)).unwrap();
        collector.take(stdout(1)).unwrap();
        assert_eq!(collector.control(), Some(&Control::Launched(true)));
        assert_eq!(collector.take_output().0.len(), 3);
    }

    #[test]
    fn a_refusal_carries_its_reason() {
        let mut collector = Collector::default();
        collector
            .take(said(r#"{"refused":"the ticket is for another plugin"}"#))
            .unwrap();
        let reason = "the ticket is for another plugin".to_owned();
        assert_eq!(collector.control(), Some(&Control::Refused(reason)));
    }

    #[test]
    fn frames_that_mean_nothing_are_refused() {
        for text in [
            "",
            "{}",
            r#"{"launched":false}"#,
            r#"{"launched":true,"x":1}"#,
            "true",
            r#"{"granted":false}"#,
        ] {
            assert!(Collector::default().take(said(text)).is_err(), "{text}");
        }
        let long = LogOutput::StdIn {
            message: vec![b' '; CONTROL_LIMIT_BYTES + 1].into(),
        };
        assert!(Collector::default().take(long).is_err());
        let console = LogOutput::Console {
            message: Bytes::from_static(b"x"),
        };
        assert!(Collector::default().take(console).is_err());
    }

    #[test]
    fn socket_proxy_speaks_once_and_once_more_where_it_granted_first() {
        let mut collector = Collector::default();
        collector.take(said(r#"{"granted":true}"#)).unwrap();
        collector.take(said(r#"{"launched":true}"#)).unwrap();
        assert_eq!(collector.control(), Some(&Control::Launched(true)));
        assert!(collector.take(said(r#"{"refused":"late"}"#)).is_err());
        assert!(collector.take(said(r#"{"granted":true}"#)).is_err());
    }

    #[test]
    fn secrets_that_came_back_are_counted_for_each_stream_and_only_of_a_cell_that_was_launched() {
        let mut collector = Collector::default();
        assert!(collector.take(printed("stderr", 1)).is_err());
        collector.take(said(r#"{"launched":true}"#)).unwrap();
        assert_eq!(collector.untold(), []);
        for count in [1, 4, 2] {
            collector.take(printed("stderr", count)).unwrap();
        }
        collector.take(printed("stdout", 1)).unwrap();
        let told = collector.untold();
        let counts: Vec<_> = told.iter().map(|it| (it.stream, it.count)).collect();
        assert_eq!(
            counts,
            [(OutputStream::Stdout, 1), (OutputStream::Stderr, 4)]
        );
        assert_eq!(collector.control(), Some(&Control::Launched(true)));

        // What the engine was told of is told again only when there is more of it.
        collector.tell(&told);
        assert_eq!(collector.untold(), []);
        collector.take(printed("stderr", 8)).unwrap();
        assert_eq!(collector.untold()[0].count, 8);
        assert_eq!(collector.untold().len(), 1);
    }

    fn printed(stream: &str, count: u64) -> LogOutput {
        let returned = Returned {
            secret: "token".parse().unwrap(),
            stream: match stream {
                "stdout" => OutputStream::Stdout,
                _ => OutputStream::Stderr,
            },
            count,
        };
        LogOutput::StdIn {
            message: Control::Returned(returned).to_json().into(),
        }
    }

    fn answered(pieces: &[&'static str]) -> Collector {
        let mut collector = Collector::default();
        for piece in pieces {
            let message = Bytes::from_static(piece.as_bytes());
            collector.take(LogOutput::StdOut { message }).unwrap();
        }
        collector
    }

    #[test]
    fn an_answer_counts_when_it_is_whole_and_nothing_is_behind_it() {
        let ok = r#"{"status":"ok","result":"x"}"#;
        assert_eq!(answered(&[ok, "\n"]).answer(), Some(Answer::Ok));
        assert_eq!(answered(&[ok, " {"]).answer(), Some(Answer::Error));
        assert_eq!(answered(&[r#"{"status":"#]).answer(), None);
        assert_eq!(answered(&["{}"]).answer(), None);
    }

    #[test]
    fn standard_error_after_the_answer_is_kept_with_what_was_before_and_no_further_than_the_limit()
    {
        let stderr = |text: Vec<u8>| LogOutput::StdErr {
            message: text.into(),
        };
        let mut collector = answered(&[r#"{"status":"ok","result":"x"}"#]);
        collector.take(stderr(b"one ".to_vec())).unwrap();
        assert_eq!(collector.take_output().1, "one ");
        assert_eq!(collector.late(), None);
        collector.take(stderr(b"two".to_vec())).unwrap();
        let late = collector.late().unwrap();
        assert_eq!(
            (&late.stderr[..], late.returned.len()),
            (&b"one two"[..], 0)
        );
        collector
            .take(stderr(vec![b'e'; STDERR_LIMIT_BYTES]))
            .unwrap();
        assert_eq!(collector.late().unwrap().stderr.len(), STDERR_LIMIT_BYTES);
    }

    #[test]
    fn a_secret_that_comes_back_after_the_answer_is_told_without_standard_error_too() {
        let mut collector = answered(&[]);
        collector.take(said(r#"{"launched":true}"#)).unwrap();
        collector.take(printed("stderr", 1)).unwrap();
        collector.take_output();
        // The report has this one.
        let reported = collector.untold();
        collector.tell(&reported);
        assert_eq!(collector.late(), None);
        for (stream, count) in [("stdout", 1), ("stderr", 3)] {
            collector.take(printed(stream, count)).unwrap();
        }
        let late = collector.late().unwrap();
        let counts: Vec<_> = late.returned.iter().map(|it| it.count).collect();
        assert_eq!((late.stderr.len(), counts), (0, vec![1, 3]));
    }

    #[test]
    fn nothing_is_late_where_the_output_was_never_taken() {
        let mut collector = answered(&[]);
        let message = Bytes::from_static(b"one ");
        collector.take(LogOutput::StdErr { message }).unwrap();
        assert_eq!(collector.late(), None);
    }

    #[test]
    fn what_comes_after_the_answer_was_taken_is_late_and_not_kept() {
        let mut collector = answered(&[r#"{"status":"ok","result":"x"}"#]);
        assert!(!collector.take_output().0.is_empty());
        collector.take(stdout(3)).unwrap();
        let message = Bytes::from_static(b" \n");
        collector.take(LogOutput::StdOut { message }).unwrap();
        assert_eq!(collector.late_bytes(), 3);
        assert!(collector.take_output().0.is_empty());
    }
}
