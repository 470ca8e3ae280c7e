//! What a fed cell writes, on its way to the runner: without the secrets that it was given, and with a word about each that it wrote.

use bailey_cell::launch::{CONTROL_FRAME, Control, OutputStream, Returned};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::frames::{self, Stream, frame};
use crate::scrub::{Patterns, Scrubber};

/// Hands on what comes, each stream scrubbed by itself. `alarm` hears of each secret that comes back, once for each stream.
pub async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut from: frames::Reader<R>,
    to: &mut W,
    patterns: Patterns,
    mut alarm: impl FnMut(&Returned),
) -> Result<(), frames::Error> {
    let mut out = Lane::new(Stream::Out, patterns.clone());
    let mut err = Lane::new(Stream::Err, patterns);
    while let Some((stream, piece)) = from.next().await? {
        let lane = match stream {
            Stream::Out => &mut out,
            Stream::Err => &mut err,
        };
        let clean = lane.scrubber.push(piece);
        lane.pass(to, &clean, &mut alarm).await?;
    }
    for lane in [&mut out, &mut err] {
        let clean = lane.scrubber.finish();
        lane.pass(to, &clean, &mut alarm).await?;
    }
    Ok(())
}

/// One of a cell's streams.
struct Lane {
    stream: Stream,
    scrubber: Scrubber,
}

impl Lane {
    fn new(stream: Stream, patterns: Patterns) -> Self {
        Self {
            stream,
            scrubber: Scrubber::new(patterns),
        }
    }

    async fn pass(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        clean: &[u8],
        alarm: &mut impl FnMut(&Returned),
    ) -> Result<(), frames::Error> {
        for secret in self.scrubber.news() {
            let stream = match self.stream {
                Stream::Out => OutputStream::Stdout,
                Stream::Err => OutputStream::Stderr,
            };
            let returned = Returned { secret, stream };
            alarm(&returned);
            // Before the marker: with it the runner may have all that it waits for.
            control(to, &Control::Returned(returned)).await?;
        }
        write(to, self.stream, clean).await?;
        Ok(())
    }
}

/// Writes a piece of a stream, if there is one.
pub async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    stream: Stream,
    clean: &[u8],
) -> std::io::Result<()> {
    if clean.is_empty() {
        return Ok(());
    }
    to.write_all(&frame(stream.code(), clean)).await?;
    to.flush().await
}

/// Says something to the runner.
pub async fn control(
    to: &mut (impl AsyncWrite + Unpin),
    control: &Control,
) -> Result<(), frames::Error> {
    to.write_all(&frame(CONTROL_FRAME, &control.to_json()))
        .await?;
    Ok(to.flush().await?)
}

#[cfg(test)]
mod tests {
    use bailey_types::SecretName;

    use super::*;

    /// Frames by type and payload.
    fn unframe(mut bytes: &[u8]) -> Vec<(u8, String)> {
        let mut frames = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
            let length = u32::from_be_bytes(header[4..].try_into().unwrap());
            let (payload, rest) = rest.split_at(usize::try_from(length).unwrap());
            frames.push((header[0], String::from_utf8(payload.to_vec()).unwrap()));
            bytes = rest;
        }
        frames
    }

    async fn pumped(
        frames: &[Vec<u8>],
        secrets: &[(&str, &str)],
    ) -> (Vec<(u8, String)>, Vec<Returned>) {
        let named = |(name, value): &(&str, &str)| (name.parse().unwrap(), (*value).to_owned());
        let secrets: Vec<(SecretName, String)> = secrets.iter().map(named).collect();
        let patterns = Patterns::new(secrets.iter().map(|(name, value)| (name, value.as_str())));
        let (mut passed, mut alarms) = (Vec::new(), Vec::new());
        let reader = frames::Reader::new(&*Box::leak(frames.concat().into_boxed_slice()));
        pump(reader, &mut passed, patterns, |returned| {
            alarms.push(returned.clone());
        })
        .await
        .unwrap();
        (unframe(&passed), alarms)
    }

    #[tokio::test]
    async fn each_stream_is_scrubbed_by_itself() {
        // Given a secret whose halves are split over frames of its stream, with the other stream in between
        let frames = [
            frame(1, b"out hunt"),
            frame(2, b"err er2! "),
            frame(1, b"er2! end"),
            frame(2, b"hunter2!"),
        ];

        // When they are pumped
        let (passed, _) = pumped(&frames, &[("token", "hunter2!")]).await;

        // Then each stream reads as if it had come alone
        let stream = |kind| {
            let of = passed.iter().filter(|frame| frame.0 == kind);
            of.map(|frame| frame.1.as_str()).collect::<String>()
        };
        assert_eq!(stream(1), "out [secret:token] end");
        assert_eq!(stream(2), "err er2! [secret:token]");
    }

    #[tokio::test]
    async fn each_secret_that_comes_back_is_told_once_for_each_stream_and_before_its_marker() {
        let secrets = [("token", "hunter2!"), ("other", "correct horse")];
        let frames = [
            frame(1, b"clean "),
            frame(1, b"hunter2! hunter2!"),
            frame(1, b" hunter2!"),
            frame(2, b"aHVudGVyMiE= hunte"),
        ];
        let (passed, alarms) = pumped(&frames, &secrets).await;
        let told = |stream: &str| {
            let text = format!(r#"{{"returned":{{"secret":"token","stream":"{stream}"}}}}"#);
            (0, text)
        };
        assert_eq!(
            passed,
            [
                (1, "clean ".to_owned()),
                told("stdout"),
                (1, "[secret:token] [secret:token]".to_owned()),
                (1, " [secret:token]".to_owned()),
                told("stderr"),
                (2, "[secret:token]= ".to_owned()),
                (2, "hunte".to_owned()),
            ]
        );
        let streams: Vec<_> = alarms.iter().map(|returned| returned.stream).collect();
        assert_eq!(streams, [OutputStream::Stdout, OutputStream::Stderr]);
        assert!(
            alarms
                .iter()
                .all(|returned| returned.secret.as_str() == "token")
        );

        // What is clean raises nothing.
        let (_, alarms) = pumped(&[frame(1, b"hunter"), frame(2, b"2!")], &secrets).await;
        assert_eq!(alarms, []);
    }
}
