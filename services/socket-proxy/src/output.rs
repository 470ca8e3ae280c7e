//! What a fed cell writes, on its way to the runner: without the secrets that it was given, and with a word about each that it wrote.

use std::collections::BTreeMap;

use bailey_cell::launch::{CONTROL_FRAME, Control, OutputStream, Returned};
use bailey_redact::{Found, Patterns, Scrubber};
use bailey_types::SecretName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::frames::{self, Stream, frame};

/// How much is scrubbed before others have their turn: at worst 40 ms.
const SLICE_BYTES: usize = 4 << 10;

/// Hands on what comes, each stream scrubbed by itself. `alarm` hears of each secret that comes back as the runner does, see [`Control`]; and
/// of what the runner was not told, however this ends.
pub async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut from: frames::Reader<R>,
    to: &mut W,
    patterns: Patterns,
    alarm: impl FnMut(&Returned),
) -> Result<(), frames::Error> {
    let mut lanes = Lanes {
        out: Lane::new(Stream::Out, patterns.clone()),
        err: Lane::new(Stream::Err, patterns),
        alarm,
    };
    let Lanes { out, err, alarm } = &mut lanes;
    while let Some((stream, piece)) = from.next().await? {
        let lane = match stream {
            Stream::Out => &mut *out,
            Stream::Err => &mut *err,
        };
        let clean = in_slices(&mut lane.scrubber, piece).await;
        lane.pass(to, &clean, alarm, Count::has_doubled).await?;
    }
    for lane in [out, err] {
        let clean = lane.scrubber.finish();
        lane.pass(to, &clean, alarm, Count::has_grown).await?;
    }
    Ok(())
}

/// Both streams of a cell. What was not told is when this goes: the runner may hang up, and must not hide it so.
struct Lanes<A: FnMut(&Returned)> {
    out: Lane,
    err: Lane,
    alarm: A,
}

impl<A: FnMut(&Returned)> Drop for Lanes<A> {
    fn drop(&mut self) {
        for lane in [&mut self.out, &mut self.err] {
            for returned in lane.due(Count::has_grown) {
                (self.alarm)(&returned);
            }
        }
    }
}

/// Scrubs a piece a little at a time: text that was made to be slow takes 0.3 s for all of it, and others wait meanwhile.
async fn in_slices(scrubber: &mut Scrubber, piece: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(piece.len());
    let mut slices = piece.chunks(SLICE_BYTES).peekable();
    while let Some(slice) = slices.next() {
        clean.extend_from_slice(&scrubber.push(slice));
        if slices.peek().is_some() {
            tokio::task::yield_now().await;
        }
    }
    clean
}

/// How often a secret came back.
#[derive(Clone, Copy, Default)]
struct Count {
    found: u64,
    told: u64,
}

impl Count {
    fn has_grown(self) -> bool {
        self.found > self.told
    }

    /// A plugin that prints nothing else must not fill the audit log.
    fn has_doubled(self) -> bool {
        self.has_grown() && self.found >= self.told.saturating_mul(2)
    }
}

/// One of a cell's streams.
struct Lane {
    stream: Stream,
    scrubber: Scrubber,
    counts: BTreeMap<SecretName, Count>,
}

impl Lane {
    fn new(stream: Stream, patterns: Patterns) -> Self {
        Self {
            stream,
            scrubber: Scrubber::new(patterns),
            counts: BTreeMap::new(),
        }
    }

    /// What is to be told now; it counts as told.
    fn due(&mut self, is_due: impl Fn(Count) -> bool) -> Vec<Returned> {
        for Found { secret, count } in self.scrubber.news() {
            self.counts.entry(secret).or_default().found = count;
        }
        let stream = match self.stream {
            Stream::Out => OutputStream::Stdout,
            Stream::Err => OutputStream::Stderr,
        };
        let due = self.counts.iter_mut().filter(|(_, count)| is_due(**count));
        due.map(|(secret, count)| {
            count.told = count.found;
            Returned {
                secret: secret.clone(),
                stream,
                count: count.found,
            }
        })
        .collect()
    }

    async fn pass(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        clean: &[u8],
        alarm: &mut impl FnMut(&Returned),
        is_due: impl Fn(Count) -> bool,
    ) -> Result<(), frames::Error> {
        let due = self.due(is_due);
        due.iter().for_each(alarm);
        // Before the marker: with it the runner may have all that it waits for.
        for returned in due {
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
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::FutureExt as _;

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
    async fn others_have_their_turn_while_a_long_piece_is_scrubbed() {
        let secrets: [(SecretName, &str); 1] = [("token".parse().unwrap(), "hunter2!")];
        let patterns = Patterns::new(secrets.iter().map(|(name, value)| (name, *value)));
        let mut scrubber = Scrubber::new(patterns);
        let text = [
            &b"x".repeat(SLICE_BYTES - 3)[..],
            b"hunter2!",
            &b"y".repeat(SLICE_BYTES),
        ]
        .concat();
        let mut scrubbing = Box::pin(in_slices(&mut scrubber, &text));
        let mut turns = 0;
        let clean = loop {
            let wait = futures::future::poll_immediate(&mut scrubbing).await;
            match wait {
                Some(clean) => break clean,
                None => turns += 1,
            }
        };
        assert_eq!(turns, 2);
        let clean = String::from_utf8(clean).unwrap();
        assert!(clean.ends_with('y') && clean.contains("x[secret:token]y"));
    }

    #[tokio::test]
    async fn each_secret_that_comes_back_is_told_for_each_stream_and_before_its_marker() {
        let secrets = [("token", "hunter2!"), ("other", "correct horse")];
        let frames = [
            frame(1, b"clean "),
            frame(1, b"hunter2! hunter2!"),
            frame(1, b" hunter2!"),
            frame(2, b"aHVudGVyMiE= hunte"),
        ];
        let (passed, alarms) = pumped(&frames, &secrets).await;
        let told = |stream: &str, count: u64| {
            let text = format!(
                r#"{{"returned":{{"count":{count},"secret":"token","stream":"{stream}"}}}}"#
            );
            (0, text)
        };
        assert_eq!(
            passed,
            [
                (1, "clean ".to_owned()),
                told("stdout", 2),
                (1, "[secret:token] [secret:token]".to_owned()),
                (1, " [secret:token]".to_owned()),
                told("stderr", 1),
                (2, "[secret:token]= ".to_owned()),
                // The end, and what was not worth a word of its own.
                told("stdout", 3),
                (2, "hunte".to_owned()),
            ]
        );
        let streams: Vec<_> = alarms.iter().map(|returned| returned.stream).collect();
        let [out, err] = [OutputStream::Stdout, OutputStream::Stderr];
        assert_eq!(streams, [out, err, out]);
        assert!(
            alarms
                .iter()
                .all(|returned| returned.secret.as_str() == "token")
        );

        // What is clean raises nothing.
        let (_, alarms) = pumped(&[frame(1, b"hunter"), frame(2, b"2!")], &secrets).await;
        assert_eq!(alarms, []);
    }

    #[tokio::test]
    async fn one_that_prints_a_secret_without_end_is_told_of_whenever_there_are_twice_as_many() {
        let frames = vec![frame(1, b"hunter2!\n"); 1000];
        let (_, alarms) = pumped(&frames, &[("token", "hunter2!")]).await;
        let counts: Vec<_> = alarms.iter().map(|returned| returned.count).collect();
        assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]);
    }

    /// Takes so many bytes, then breaks.
    struct Breaks(usize);

    impl AsyncWrite for Breaks {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            if self.0 == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_came_back_is_told_to_the_last_one_however_the_stream_ends() {
        let name: SecretName = "token".parse().unwrap();
        let frames = vec![frame(1, b"hunter2! "); 7].concat();
        let told = |alarms: &[Returned]| -> Vec<u64> { alarms.iter().map(|it| it.count).collect() };
        let patterns = || Patterns::new([(&name, "hunter2!")]);

        // By a runner that hangs up behind the fourth, while the last ones are handed on,
        let mut alarms = Vec::new();
        let alarm = |returned: &Returned| alarms.push(returned.clone());
        let reader = frames::Reader::new(&*frames);
        let whole = {
            let mut passed = Vec::new();
            pump(reader, &mut passed, patterns(), |_| {}).await.unwrap();
            passed.len()
        };
        // The last word of the end is left out, and the piece before it.
        let piece = frame(1, b"[secret:token] ").len();
        let last = frame(
            CONTROL_FRAME,
            &Control::Returned(Returned {
                secret: name.clone(),
                stream: OutputStream::Stdout,
                count: 7,
            })
            .to_json(),
        );
        let reader = frames::Reader::new(&*frames);
        let mut runner = Breaks(whole - last.len() - piece);
        pump(reader, &mut runner, patterns(), alarm)
            .await
            .unwrap_err();
        assert_eq!(told(&alarms), [1, 2, 4, 7]);

        // by a frame that Docker does not send,
        let mut alarms = Vec::new();
        let alarm = |returned: &Returned| alarms.push(returned.clone());
        let bad = [&*frames, &*frame(9, b"x")].concat();
        let reader = frames::Reader::new(&*bad);
        let mut passed = Vec::new();
        pump(reader, &mut passed, patterns(), alarm)
            .await
            .unwrap_err();
        assert_eq!(told(&alarms), [1, 2, 4, 7]);

        // and by a session that ends while it waits for either.
        let mut alarms = Vec::new();
        let alarm = |returned: &Returned| alarms.push(returned.clone());
        let (mut docker, from_docker) = tokio::io::duplex(4096);
        docker.write_all(&frames).await.unwrap();
        let mut passed = Vec::new();
        let reader = frames::Reader::new(from_docker);
        let pumping = pump(reader, &mut passed, patterns(), alarm);
        assert!(pumping.now_or_never().is_none());
        assert_eq!(told(&alarms), [1, 2, 4, 7]);
    }
}
