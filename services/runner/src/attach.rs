//! What comes out of an attached cell: its own output, and what socket-proxy says about its launch.

use bailey_cell::launch::Control;
use bollard::container::LogOutput;
use bytes::Bytes;

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
}

impl Collector {
    /// Takes one frame.
    pub fn take(&mut self, frame: LogOutput) -> Result<(), BadFrame> {
        match frame {
            LogOutput::StdOut { message } => {
                // One byte more than allowed tells that there was more.
                keep(&mut self.stdout, &message, STDOUT_LIMIT_BYTES + 1);
            }
            LogOutput::StdErr { message } => {
                keep(&mut self.stderr, &message, STDERR_LIMIT_BYTES);
            }
            LogOutput::StdIn { message } if self.control.is_none() => {
                self.control = Some(control(&message)?);
            }
            LogOutput::StdIn { .. } | LogOutput::Console { .. } => return Err(BadFrame),
        }
        Ok(())
    }

    /// Whether the cell printed more than it may.
    pub fn overflowed(&self) -> bool {
        self.stdout.len() > STDOUT_LIMIT_BYTES
    }

    /// What socket-proxy said, if it has.
    pub fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// Standard output and standard error, as far as they were kept.
    pub fn into_output(self) -> (Bytes, Bytes) {
        (self.stdout.into(), self.stderr.into())
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
        Ok(Control::Launched(false)) | Err(_) => Err(BadFrame),
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
        assert_eq!(collector.into_output().0.len(), STDOUT_LIMIT_BYTES + 1);
    }

    #[test]
    fn standard_error_is_cut_but_never_overflows() {
        let mut collector = Collector::default();
        for _ in 0..3 {
            let message = vec![b'e'; 40_000].into();
            collector.take(LogOutput::StdErr { message }).unwrap();
        }
        assert!(!collector.overflowed());
        assert_eq!(collector.into_output().1.len(), STDERR_LIMIT_BYTES);
    }

    #[test]
    fn output_before_the_launch_is_kept() {
        let mut collector = Collector::default();
        collector.take(stdout(2)).unwrap();
        collector.take(said(r#"{"launched":true}"#)).unwrap();
        collector.take(stdout(1)).unwrap();
        assert_eq!(collector.control(), Some(&Control::Launched(true)));
        assert_eq!(collector.into_output().0.len(), 3);
    }

    #[test]
    fn a_refusal_carries_its_reason() {
        let mut collector = Collector::default();
        collector
            .take(said(r#"{"refused":"the ticket is for another container"}"#))
            .unwrap();
        let reason = "the ticket is for another container".to_owned();
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
    fn socket_proxy_speaks_once() {
        let mut collector = Collector::default();
        collector.take(said(r#"{"launched":true}"#)).unwrap();
        assert!(collector.take(said(r#"{"refused":"late"}"#)).is_err());
    }
}
