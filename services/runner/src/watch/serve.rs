//! Watches a cell that lasts. Each line that it writes is handed on before the next one is read: what it cannot get rid of it must keep.

use std::time::Duration;

use bailey_cell::launch::Returned;
use bollard::container::LogOutput;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{DRAIN, GRACE, Hands, Stop, Watch, next, ready};
use crate::attach::STDERR_LIMIT_BYTES;
use crate::docker::{Error, Signal};

/// Longest line, bytes.
const LINE_LIMIT_BYTES: usize = 1 << 20;
/// How long a cell may run on whose stream has ended: nobody hears it any more.
const UNHEARD: Duration = Duration::from_secs(30);
/// How long a cell may take to end when the runner stops.
const PARTING: Duration = Duration::from_secs(2);
/// So many lines may come at once, and so many each second from then on. More wait in the cell's pipe.
const BURST: u32 = 1000;
const PACE: Duration = Duration::from_millis(10);
/// A longer line counts as one for each of these that it begins.
const SHORT_BYTES: usize = 8 << 10;

/// How the watch over a cell that lasts ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// By itself, with this exit code.
    Exited(i64),
    /// It wrote no line for this long, and was killed.
    Silent(Duration),
    /// It wrote a line longer than any may be, and was killed.
    LongLine,
    /// It was ended because somebody stopped it.
    Stopped(Stop),
    /// Nobody can say what became of it, or nobody wants to hear it.
    Lost(String),
}

/// What is to be handed on.
#[derive(Debug)]
pub enum Said {
    /// A line, by its number.
    Line(u64, Bytes),
    /// Secrets that it has printed, which are told beside the lines: none of them waits for that.
    Returned(Vec<Returned>),
}

/// Where a watch is.
struct Hearing<'a> {
    lines: Lines,
    stderr: Tail,
    pace: Pace,
    number: u64,
    /// The line that is being handed on.
    sending: Option<BoxFuture<'a, Result<(), String>>>,
    /// Secrets that it has printed, being told of.
    telling: Option<BoxFuture<'a, Vec<Returned>>>,
    /// When the cell last wrote a line, or got rid of one.
    heard: Instant,
    /// Who wants it to end, and until when it may do so by itself.
    ending: Option<(Stop, Instant)>,
    /// When its stream ended.
    closed: Option<Instant>,
}

impl<H: Hands> Watch<H> {
    /// Hands on each line until the cell has ended; answers why it did, with the last of what it wrote to standard error. `deliver` ends when
    /// what it was given is taken, or with the reason why no line ever will be.
    pub async fn serve<'a>(
        &mut self,
        heartbeat: Option<Duration>,
        deliver: impl Fn(Said) -> BoxFuture<'a, Result<(), String>>,
    ) -> (Served, Bytes) {
        let (stdout, stderr) = self.collector.take_output();
        let mut hearing = Hearing {
            lines: Lines::default(),
            stderr: Tail::default(),
            pace: Pace::new(),
            number: 0,
            sending: None,
            telling: None,
            heard: Instant::now(),
            ending: None,
            closed: None,
        };
        hearing.lines.push(&stdout);
        hearing.stderr.push(&stderr);
        let served = self.hear(&mut hearing, heartbeat, deliver).await;
        let is_over = matches!(served, Served::Exited(_));
        if !is_over && self.exit_code.is_none() {
            // Whatever it was, nothing of it goes on.
            self.kill().await;
        }
        (served, hearing.stderr.finish())
    }

    async fn hear<'a>(
        &mut self,
        hearing: &mut Hearing<'a>,
        heartbeat: Option<Duration>,
        deliver: impl Fn(Said) -> BoxFuture<'a, Result<(), String>>,
    ) -> Served {
        loop {
            if hearing.telling.is_none() {
                hearing.tell(self.collector.untold(), &deliver);
            }
            if hearing.sending.is_none() {
                match hearing.lines.next(self.output.is_none()) {
                    Next::Line(line) => {
                        hearing.send(line, &deliver);
                        continue;
                    }
                    Next::TooLong => return Served::LongLine,
                    Next::Nothing => {}
                }
                if let (Some(code), None) = (self.exit_code, &self.output) {
                    let stop = hearing.ending.map(|(stop, _)| stop);
                    return stop.map_or(Served::Exited(code), Served::Stopped);
                }
            }
            let limit = hearing.limit(heartbeat, self.exit_code.is_some());
            let is_sending = hearing.sending.is_some();
            tokio::select! {
                biased;
                stop = ready(&mut self.stop) => {
                    self.stop = None;
                    if let Some(served) = self.ask_to_end(hearing, stop).await {
                        return served;
                    }
                }
                () = ready(&mut self.over) => {
                    self.over = None;
                    return Served::Stopped(Stop::OverLimit);
                }
                fed = ready(&mut self.feed) => {
                    self.feed = None;
                    if let Err(error) = fed {
                        tracing::debug!(%error, "a message to socket-proxy could not be written");
                    }
                }
                sent = ready(&mut hearing.sending) => {
                    hearing.sending = None;
                    hearing.heard = Instant::now();
                    if let Err(why) = sent {
                        return Served::Lost(why);
                    }
                    // Nobody read meanwhile what it had written before it ended.
                    self.drained = self.exit_code.map(|_| hearing.heard + DRAIN);
                }
                told = ready(&mut hearing.telling) => {
                    hearing.telling = None;
                    self.collector.tell(&told);
                }
                over = until(limit) => return over,
                () = sleep(self.drained), if !is_sending && self.output.is_some() => self.output = None,
                frame = next(&mut self.output), if !is_sending => {
                    if let Some(served) = self.frame(hearing, frame) {
                        return served;
                    }
                }
                code = ready(&mut self.exit) => {
                    self.exit = None;
                    match code {
                        Ok(code) => self.exit_code = Some(code),
                        Err(error) => return Served::Lost(error.sentence()),
                    }
                    self.drained = Some(Instant::now() + DRAIN);
                }
            }
        }
    }

    /// Takes a frame, or the end of the stream.
    fn frame(
        &mut self,
        hearing: &mut Hearing<'_>,
        frame: Option<Result<LogOutput, Error>>,
    ) -> Option<Served> {
        match frame {
            Some(Ok(LogOutput::StdOut { message })) => hearing.lines.push(&message),
            Some(Ok(LogOutput::StdErr { message })) => hearing.stderr.push(&message),
            Some(Ok(other)) => {
                if let Err(bad) = self.collector.take(other) {
                    return Some(Served::Lost(bad.to_string()));
                }
            }
            Some(Err(_)) | None => {
                self.output = None;
                hearing.closed = Some(Instant::now());
            }
        }
        None
    }

    /// Lets it end by itself, for a while.
    async fn ask_to_end(&mut self, hearing: &mut Hearing<'_>, stop: Stop) -> Option<Served> {
        let grace = match stop {
            Stop::Cancelled | Stop::OverLimit => GRACE,
            Stop::Stopping => PARTING,
        };
        if self.hands.kill(Signal::Terminate).await.is_err() {
            return Some(Served::Stopped(stop));
        }
        hearing.ending = Some((stop, Instant::now() + grace));
        None
    }
}

impl<'a> Hearing<'a> {
    /// Hands a line on. An empty one only says that the cell is well.
    fn send(&mut self, line: Bytes, deliver: &impl Fn(Said) -> BoxFuture<'a, Result<(), String>>) {
        self.heard = Instant::now();
        self.number += 1;
        let wait = self.pace.take(self.heard, line.len());
        if line.iter().all(u8::is_ascii_whitespace) {
            self.sending = Some(Box::pin(async move {
                tokio::time::sleep(wait).await;
                Ok(())
            }));
            return;
        }
        let sent = deliver(Said::Line(self.number, line));
        self.sending = Some(Box::pin(async move {
            tokio::time::sleep(wait).await;
            sent.await
        }));
    }

    /// Tells of these, if there are any.
    fn tell(
        &mut self,
        untold: Vec<Returned>,
        deliver: &impl Fn(Said) -> BoxFuture<'a, Result<(), String>>,
    ) {
        if untold.is_empty() {
            return;
        }
        let taken = deliver(Said::Returned(untold.clone()));
        self.telling = Some(Box::pin(async move {
            // An engine that does not want it is asked no more.
            taken.await.unwrap_or_default();
            untold
        }));
    }

    /// What ends the watch if nothing else happens, and when.
    fn limit(&self, heartbeat: Option<Duration>, has_ended: bool) -> Option<(Instant, Served)> {
        // Behind its end too: the line that still waits may wait for an engine that is gone.
        if let Some((stop, at)) = self.ending {
            return Some((at, Served::Stopped(stop)));
        }
        if has_ended {
            return None;
        }
        if let Some(closed) = self.closed {
            let why = "its output has ended, and it has not";
            return Some((closed + UNHEARD, Served::Lost(why.to_owned())));
        }
        // While a line waits for the engine, silence is not the cell's.
        let silent = heartbeat.filter(|_| self.sending.is_none())?;
        Some((self.heard + silent, Served::Silent(silent)))
    }
}

async fn until(limit: Option<(Instant, Served)>) -> Served {
    match limit {
        Some((at, served)) => {
            tokio::time::sleep_until(at).await;
            served
        }
        None => std::future::pending().await,
    }
}

async fn sleep(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What was read and not handed on. Nothing more is read while a whole line is in it, so it stays below two lines.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// How much of it holds no end of line.
    searched: usize,
}

enum Next {
    Line(Bytes),
    TooLong,
    Nothing,
}

impl Lines {
    fn push(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// The next line; behind the end of the stream what is left is one too.
    fn next(&mut self, at_end: bool) -> Next {
        let rest = self.bytes.get(self.searched..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.map(|end| self.searched + end);
        self.searched = self.bytes.len();
        if end.unwrap_or(self.bytes.len()) > LINE_LIMIT_BYTES {
            return Next::TooLong;
        }
        let line: Vec<u8> = match end {
            Some(end) => self.bytes.drain(..=end).take(end).collect(),
            None if at_end && !self.bytes.is_empty() => std::mem::take(&mut self.bytes),
            None => return Next::Nothing,
        };
        self.searched = 0;
        Next::Line(line.into())
    }
}

/// The last of what was written.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, more: &[u8]) {
        self.0.extend_from_slice(more);
        // Not at each piece: that would move everything again and again.
        if self.0.len() > 2 * STDERR_LIMIT_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let old = self.0.len().saturating_sub(STDERR_LIMIT_BYTES);
        self.0.drain(..old);
    }

    fn finish(mut self) -> Bytes {
        self.cut();
        self.0.into()
    }
}

/// Holds back whoever writes without end: each line is a commit of the engine's, and a long one a great one.
struct Pace {
    /// When the line would be due that comes next, had none come early.
    due: Instant,
}

impl Pace {
    fn new() -> Self {
        Self {
            due: Instant::now(),
        }
    }

    /// A line of so many bytes comes; answers how long it must wait.
    fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let lines = bytes.div_ceil(SHORT_BYTES).max(1);
        // None is longer than its limit.
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        self.due = self.due.max(now) + PACE * lines;
        self.due.saturating_duration_since(now + PACE * BURST)
    }
}

#[cfg(test)]
mod tests;
