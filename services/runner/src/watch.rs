//! Watches one running cell: reads what it says, keeps its time, ends it where it must be ended.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bailey_cell::launch::Control;
use bollard::container::LogOutput;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use crate::attach::Collector;
use crate::docker::{Error, Signal};

/// Between SIGTERM and SIGKILL (reference: ductile 1.6).
const GRACE: Duration = Duration::from_secs(5);
/// How long a killed container may take to be reported as ended.
const DEATH: Duration = Duration::from_secs(10);
/// The engine closes the stream soon after the container has ended, but not at once.
const DRAIN: Duration = Duration::from_secs(2);

/// What the watcher may do to the container.
pub trait Hands {
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
}

/// How the watch ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(i64),
    /// It printed more than it may, and was killed.
    Overflowed,
    /// Its time was over; whether SIGKILL was needed.
    TimedOut { killed: bool },
    /// It was killed because somebody stopped it.
    Stopped(Stop),
    /// Nobody can say what became of it.
    Lost(String),
}

/// What happened first.
enum Step {
    Ended(i64),
    Spoken,
    Overflowed,
    TimeUp,
    Stopped(Stop),
    Broken(String),
}

/// Frames of a cell.
pub type Output<'a> = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send + 'a>>;
/// The end of a cell.
pub type Exit<'a> = Pin<Box<dyn Future<Output = Result<i64, Error>> + Send + 'a>>;
/// A wish to stop it.
pub type Stopped<'a> = Pin<Box<dyn Future<Output = Stop> + Send + 'a>>;
/// The writing of an envelope.
pub type Feed<'a> = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + 'a>>;

/// What can happen to a cell.
pub struct Events<'a> {
    /// Its frames.
    pub output: Output<'a>,
    /// Its end.
    pub exit: Exit<'a>,
    /// Whatever makes it end before its time.
    pub stop: Stopped<'a>,
    /// The writing of its envelope. It goes on beside the reading: neither side may wait for the other's pipe.
    pub feed: Feed<'a>,
}

/// One cell under watch.
pub struct Watch<'a, H> {
    hands: &'a H,
    output: Option<Output<'a>>,
    exit: Option<Exit<'a>>,
    exit_code: Option<i64>,
    /// Until when the output of an ended container is read.
    drained: Option<Instant>,
    stop: Option<Stopped<'a>>,
    feed: Option<Feed<'a>>,
    /// What it said.
    pub collector: Collector,
}

impl<'a, H: Hands> Watch<'a, H> {
    /// Watches the container that these are the `events` of.
    pub fn new(hands: &'a H, events: Events<'a>) -> Self {
        Self {
            hands,
            output: Some(events.output),
            exit: Some(events.exit),
            exit_code: None,
            drained: None,
            stop: Some(events.stop),
            feed: Some(events.feed),
            collector: Collector::default(),
        }
    }

    /// Waits until socket-proxy has said whether the cell has its request. `None`: it has. A cell that ended before that has ended
    /// by itself: a plugin need not read its request.
    pub async fn launched(&mut self, within: Duration) -> Option<Ending> {
        match self.step(Instant::now() + within).await {
            Step::Spoken => None,
            Step::Ended(code) => Some(Ending::Exited(code)),
            Step::Overflowed => Some(self.overflowed().await),
            Step::TimeUp => Some(
                self.lost("socket-proxy did not say whether it launched")
                    .await,
            ),
            Step::Stopped(stop) => Some(self.stopped(stop).await),
            Step::Broken(why) => Some(self.lost(&why).await),
        }
    }

    /// Waits until the cell ends, and ends it when its `time` is over.
    pub async fn ended(&mut self, time: Duration) -> Ending {
        let until = Instant::now() + time;
        loop {
            match self.step(until).await {
                Step::Spoken => {}
                Step::Ended(code) => return Ending::Exited(code),
                Step::Overflowed => return self.overflowed().await,
                Step::TimeUp => return self.time_up().await,
                Step::Stopped(stop) => return self.stopped(stop).await,
                Step::Broken(why) => return self.lost(&why).await,
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
                () = tokio::time::sleep_until(until) => {
                    return self.exit_code.map_or(Step::TimeUp, Step::Ended);
                }
                fed = ready(&mut self.feed) => {
                    self.feed = None;
                    if let Err(error) = fed {
                        // The other side is gone; output and exit tell why.
                        tracing::debug!(%error, "the envelope could not be written");
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
            return None;
        };
        if let Err(bad) = self.collector.take(frame) {
            return Some(Step::Broken(bad.to_string()));
        }
        if self.exit_code.is_some() {
            return None;
        }
        if self.collector.overflowed() {
            return Some(Step::Overflowed);
        }
        self.spoken().then_some(Step::Spoken)
    }

    fn spoken(&self) -> bool {
        matches!(
            self.collector.control(),
            Some(Control::Launched(_) | Control::Refused(_))
        )
    }

    async fn time_up(&mut self) -> Ending {
        // It may have ended while nobody looked: then its answer counts.
        if let Ok(false) = self.hands.is_running().await {
            let until = Instant::now() + DEATH;
            while let step @ (Step::Ended(_) | Step::Spoken) = self.step(until).await {
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
                Step::Spoken => {}
                Step::Ended(_) => return Ending::TimedOut { killed: false },
                Step::Broken(why) => return self.lost(&why).await,
                Step::Overflowed | Step::TimeUp | Step::Stopped(_) => {
                    self.kill().await;
                    return Ending::TimedOut { killed: true };
                }
            }
        }
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
        let hands = self.hands;
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
                    Step::Spoken | Step::Overflowed | Step::Stopped(_) => {}
                    Step::Ended(_) | Step::TimeUp | Step::Broken(_) => return,
                },
            }
        }
    }
}

async fn next(output: &mut Option<Output<'_>>) -> Option<Result<LogOutput, Error>> {
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
