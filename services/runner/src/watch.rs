//! Watches one running cell: reads what it says, keeps its time, ends it where it must be ended.

mod serve;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bailey_cell::launch::Control;
use bollard::container::LogOutput;
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::attach::Collector;
use crate::docker::{Error, Signal};

pub use serve::{Said, Served};

/// Between SIGTERM and SIGKILL (reference: ductile 1.6).
const GRACE: Duration = Duration::from_secs(5);
/// How long a killed container may take to be reported as ended.
const DEATH: Duration = Duration::from_secs(10);
/// How long a cell may take to end after an answer that fails its job: its exit code may say how.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a cell that waits for its request is thought of; nothing comes of it.
const LOOK: Duration = Duration::from_hours(1);
/// The engine closes the stream soon after the container has ended, but not at once.
const DRAIN: Duration = Duration::from_secs(2);

/// What the watcher may do to the container.
pub trait Hands: Clone + Send + Sync + 'static {
    /// Sends a signal; one that comes too late is no error.
    fn kill(&self, signal: Signal) -> impl Future<Output = Result<(), Error>> + Send;
    /// Whether it runs.
    fn is_running(&self) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// Why a cell must end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The engine cancelled the job.
    Cancelled,
    /// The runner stops.
    Stopping,
    /// Its plugin keeps more than it may.
    OverLimit,
}

impl Stop {
    /// Why the job ends.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Stopping => "the runner was stopped",
            Self::OverLimit => "its plugin keeps more than it may",
        }
    }
}

/// How the watch ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(i64),
    /// It has answered `ok`, and may still run.
    Answered,
    /// It has answered what fails the job, has not ended since, and may still run.
    Failed,
    /// It printed more than it may, and was killed.
    Overflowed,
    /// Its time was over; whether SIGKILL was needed.
    TimedOut { killed: bool },
    /// It was killed because somebody stopped it.
    Stopped(Stop),
    /// It wrote before it had its request, and was killed.
    Early,
    /// Nobody can say what became of it.
    Lost(String),
}

/// What becomes of a cell that waits for its request.
#[derive(Debug, PartialEq, Eq)]
pub enum Idled {
    /// It wrote something.
    Spoke,
    /// It ended.
    Ended,
    /// Its stream broke.
    Broke,
}

/// What happened first.
enum Step {
    Ended(i64),
    Spoken,
    Answered(Answer),
    Early,
    Overflowed,
    /// Its stream is at its end, and nobody knows yet of its own.
    Closed,
    TimeUp,
    Stopped(Stop),
    Broken(String),
}

/// Frames of a cell.
pub type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
/// The end of a cell.
pub type Exit = Pin<Box<dyn Future<Output = Result<i64, Error>> + Send>>;
/// A wish to stop it.
pub type Stopped = Pin<Box<dyn Future<Output = Stop> + Send>>;
/// What its plugin keeps has become too much.
pub type Over = Pin<Box<dyn Future<Output = ()> + Send>>;
/// The writing of an envelope.
pub type Feed = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// One cell under watch.
pub struct Watch<H> {
    hands: H,
    output: Option<Output>,
    exit: Option<Exit>,
    exit_code: Option<i64>,
    /// Until when the output of an ended container is read.
    drained: Option<Instant>,
    stop: Option<Stopped>,
    over: Option<Over>,
    feed: Option<Feed>,
    /// The answer was told already.
    is_answered: bool,
    /// What it said.
    pub collector: Collector,
}

impl<H: Hands> Watch<H> {
    /// Watches an attached container that is not started.
    pub fn new(hands: H, output: Output) -> Self {
        Self {
            hands,
            output: Some(output),
            exit: None,
            exit_code: None,
            drained: None,
            stop: None,
            over: None,
            feed: None,
            is_answered: false,
            collector: Collector::default(),
        }
    }

    /// The container is started; `exit` is its end.
    pub fn started(&mut self, exit: Exit) {
        self.exit = Some(exit);
    }

    /// Whether the container was started.
    pub fn is_started(&self) -> bool {
        self.exit.is_some() || self.exit_code.is_some()
    }

    /// From now on this stops it.
    pub fn stopped_by(&mut self, stop: Stopped) {
        self.stop = Some(stop);
    }

    /// From now on the end of this stops it too.
    pub fn limited_by(&mut self, over: Over) {
        self.over = Some(over);
    }

    /// Writes a message to socket-proxy. That goes on beside the reading: neither side may wait for the other's pipe.
    pub fn feed(&mut self, feed: Feed) {
        self.feed = Some(feed);
    }

    /// Waits until socket-proxy answers the message that was fed; `None`: it has.
    pub async fn told(&mut self, within: Duration) -> Option<Ending> {
        let mut until = Instant::now() + within;
        loop {
            return match self.step(until).await {
                Step::Spoken => None,
                Step::Ended(code) => Some(Ending::Exited(code)),
                // A cell that runs may have ended: its exit is told in a moment.
                Step::Closed => {
                    until = until.min(Instant::now() + DRAIN);
                    continue;
                }
                Step::Early | Step::Answered(_) => Some(self.early().await),
                Step::Overflowed => Some(self.overflowed().await),
                Step::TimeUp => Some(
                    self.lost("socket-proxy did not say whether it launched")
                        .await,
                ),
                Step::Stopped(stop) => Some(self.stopped(stop).await),
                Step::Broken(why) => Some(self.lost(&why).await),
            };
        }
    }

    /// Waits until the cell has answered or ended, and ends it when its `time` is over.
    pub async fn ended(&mut self, time: Duration) -> Ending {
        let deadline = Instant::now() + time;
        let mut failed_at = None;
        loop {
            let until = failed_at.map_or(deadline, |at: Instant| deadline.min(at + LAST_WORDS));
            match self.step(until).await {
                Step::Spoken | Step::Closed | Step::Early => {}
                Step::Answered(Answer::Ok) => {
                    self.catch_up();
                    if self.collector.answer() == Some(Answer::Ok) {
                        return Ending::Answered;
                    }
                    failed_at = Some(Instant::now());
                }
                Step::Answered(Answer::Error) => failed_at = Some(Instant::now()),
                Step::Ended(code) => return Ending::Exited(code),
                Step::Overflowed => return self.overflowed().await,
                Step::TimeUp if failed_at.is_some() => return Ending::Failed,
                Step::TimeUp => return self.time_up().await,
                Step::Stopped(stop) => return self.stopped(stop).await,
                Step::Broken(why) => return self.lost(&why).await,
            }
        }
    }

    /// Waits while the cell has no request. It must neither write nor end.
    pub async fn idle(&mut self) -> Idled {
        let mut closed = None;
        loop {
            let until = closed.unwrap_or_else(|| Instant::now() + LOOK);
            match self.step(until).await {
                Step::TimeUp if closed.is_some() => return Idled::Broke,
                Step::TimeUp | Step::Spoken => {}
                // Its exit is told in a moment; where it is not, socket-proxy left it.
                Step::Closed => closed = Some(Instant::now() + DRAIN),
                Step::Early | Step::Answered(_) | Step::Overflowed => return Idled::Spoke,
                Step::Ended(_) => return Idled::Ended,
                Step::Stopped(_) | Step::Broken(_) => return Idled::Broke,
            }
        }
    }

    /// Lets a cell that has answered end by itself. Whatever it still writes is counted, not kept.
    pub async fn part(&mut self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            match self.step(until).await {
                Step::Spoken
                | Step::Answered(_)
                | Step::Early
                | Step::Overflowed
                | Step::Closed => {}
                Step::Ended(_) | Step::TimeUp | Step::Stopped(_) | Step::Broken(_) => return,
            }
        }
    }

    /// Takes the frames that are here already.
    fn catch_up(&mut self) {
        while let Some(frame) = next(&mut self.output).now_or_never() {
            if self.heard(frame).is_some() || self.output.is_none() {
                return;
            }
        }
    }

    /// The next thing that matters, at the latest `until`.
    async fn step(&mut self, until: Instant) -> Step {
        loop {
            if let (Some(code), None) = (self.exit_code, &self.output) {
                return Step::Ended(code);
            }
            let until = self.drained.unwrap_or(until);
            tokio::select! {
                // In this order: a flood must not keep its own end waiting, and what was said before the exit counts.
                biased;
                stop = ready(&mut self.stop) => {
                    self.stop = None;
                    return Step::Stopped(stop);
                }
                () = ready(&mut self.over) => {
                    self.over = None;
                    return Step::Stopped(Stop::OverLimit);
                }
                () = tokio::time::sleep_until(until) => {
                    return self.exit_code.map_or(Step::TimeUp, Step::Ended);
                }
                fed = ready(&mut self.feed) => {
                    self.feed = None;
                    if let Err(error) = fed {
                        // The other side is gone; output and exit tell why.
                        tracing::debug!(%error, "a message to socket-proxy could not be written");
                    }
                }
                frame = next(&mut self.output) => {
                    if let Some(step) = self.heard(frame) {
                        return step;
                    }
                }
                code = ready(&mut self.exit) => {
                    self.exit = None;
                    match code {
                        Ok(code) => self.exit_code = Some(code),
                        Err(error) => return Step::Broken(error.sentence()),
                    }
                    self.drained = Some(Instant::now() + DRAIN);
                }
            }
        }
    }

    /// Takes a frame, or the end of the stream; answers what matters about it.
    fn heard(&mut self, frame: Option<Result<LogOutput, Error>>) -> Option<Step> {
        let Some(Ok(frame)) = frame else {
            // Whether the container ended too is for `exit` to say.
            self.output = None;
            return self.exit_code.is_none().then_some(Step::Closed);
        };
        let is_control = matches!(frame, LogOutput::StdIn { .. });
        if let Err(bad) = self.collector.take(frame) {
            return Some(Step::Broken(bad.to_string()));
        }
        if is_control {
            return Some(Step::Spoken);
        }
        let is_fed = matches!(self.collector.control(), Some(Control::Launched(_)));
        if !is_fed && self.collector.has_spoken() {
            return Some(Step::Early);
        }
        if self.exit_code.is_some() {
            return None;
        }
        if self.collector.overflowed() {
            return Some(Step::Overflowed);
        }
        let answer = self.collector.answer().filter(|_| !self.is_answered)?;
        self.is_answered = true;
        Some(Step::Answered(answer))
    }

    async fn time_up(&mut self) -> Ending {
        // It may have ended while nobody looked: then its answer counts.
        if let Ok(false) = self.hands.is_running().await {
            let until = Instant::now() + DEATH;
            while let step @ (Step::Ended(_) | Step::Spoken | Step::Closed | Step::Answered(_)) =
                self.step(until).await
            {
                if let Step::Ended(code) = step {
                    return Ending::Exited(code);
                }
            }
        }
        if let Err(error) = self.hands.kill(Signal::Terminate).await {
            return self.lost(&error.sentence()).await;
        }
        let until = Instant::now() + GRACE;
        loop {
            match self.step(until).await {
                Step::Spoken | Step::Closed | Step::Answered(_) | Step::Early => {}
                Step::Ended(_) => return Ending::TimedOut { killed: false },
                Step::Broken(why) => return self.lost(&why).await,
                Step::Overflowed | Step::TimeUp | Step::Stopped(_) => {
                    self.kill().await;
                    return Ending::TimedOut { killed: true };
                }
            }
        }
    }

    async fn early(&mut self) -> Ending {
        self.kill().await;
        Ending::Early
    }

    async fn overflowed(&mut self) -> Ending {
        self.kill().await;
        Ending::Overflowed
    }

    async fn stopped(&mut self, stop: Stop) -> Ending {
        self.kill().await;
        Ending::Stopped(stop)
    }

    async fn lost(&mut self, why: &str) -> Ending {
        // Without its end known it must not go on; whoever removes the container makes sure of it.
        self.kill().await;
        Ending::Lost(why.to_owned())
    }

    /// Kills and waits for the end. Reads on meanwhile: the engine answers a kill only when the container's last output is taken from
    /// it. What fails here is mended by the removal, which is forced.
    async fn kill(&mut self) {
        if !self.is_started() {
            // It is not started, or nobody can tell its end.
            return;
        }
        let hands = self.hands.clone();
        let until = Instant::now() + DEATH;
        let mut kill = Some(Box::pin(hands.kill(Signal::Kill)));
        loop {
            tokio::select! {
                killed = ready(&mut kill) => {
                    kill = None;
                    if let Err(error) = killed {
                        let error = error.sentence();
                        tracing::warn!(error, "a cell could not be killed and will be removed as it is");
                        return;
                    }
                }
                step = self.step(until) => match step {
                    Step::Spoken
                    | Step::Answered(_)
                    | Step::Early
                    | Step::Closed
                    | Step::Overflowed
                    | Step::Stopped(_) => {}
                    Step::Ended(_) | Step::TimeUp | Step::Broken(_) => return,
                },
            }
        }
    }
}

async fn next(output: &mut Option<Output>) -> Option<Result<LogOutput, Error>> {
    match output {
        Some(output) => output.next().await,
        None => std::future::pending().await,
    }
}

async fn ready<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
