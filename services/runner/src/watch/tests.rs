use std::sync::{Arc, Mutex};

use futures::{FutureExt as _, stream};

use super::*;
use crate::attach::STDOUT_LIMIT_BYTES;

const TIME: Duration = Duration::from_mins(1);

/// A container that does what the test says when it is signalled.
#[derive(Default)]
struct Puppet {
    ignores_sigterm: bool,
    ended_unseen: bool,
    signals: Mutex<Vec<(Signal, Duration)>>,
    started: Option<Instant>,
    dead: tokio::sync::Notify,
}

impl Puppet {
    fn new() -> Arc<Self> {
        Self::that(|_| {})
    }

    fn that(change: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut puppet = Self {
            started: Some(Instant::now()),
            ..Self::default()
        };
        change(&mut puppet);
        Arc::new(puppet)
    }

    fn signals(&self) -> Vec<(Signal, Duration)> {
        self.signals.lock().unwrap().clone()
    }
}

impl Hands for Arc<Puppet> {
    async fn kill(&self, signal: Signal) -> Result<(), Error> {
        let at = self.started.unwrap().elapsed();
        self.signals.lock().unwrap().push((signal, at));
        if signal == Signal::Kill || !self.ignores_sigterm {
            self.dead.notify_one();
        }
        Ok(())
    }

    async fn is_running(&self) -> Result<bool, Error> {
        if self.ended_unseen {
            self.dead.notify_one();
        }
        Ok(!self.ended_unseen)
    }
}

fn out(text: &'static str) -> LogOutput {
    LogOutput::StdOut {
        message: text.into(),
    }
}

fn said(text: &'static str) -> LogOutput {
    LogOutput::StdIn {
        message: text.into(),
    }
}

fn launched() -> LogOutput {
    said(r#"{"launched":true}"#)
}

const OK: &str = r#"{"status":"ok","result":"done"}"#;
const ERROR: &str = r#"{"status":"error","error":"no"}"#;

/// What comes on a stream, each so long after the one before.
fn later(frames: Vec<(u64, LogOutput)>) -> Output {
    let each = |(wait, frame)| async move {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        Ok(frame)
    };
    stream::iter(frames).then(each).boxed()
}

/// A stream that stays open after what comes on it.
fn open(frames: Vec<(u64, LogOutput)>) -> Output {
    later(frames).chain(stream::pending()).boxed()
}

/// A watch over a started container that ends as `exit` says.
fn watching(
    puppet: &Arc<Puppet>,
    output: Output,
    exit: impl Future<Output = i64> + Send + 'static,
) -> Watch<Arc<Puppet>> {
    let mut watch = Watch::new(Arc::clone(puppet), output);
    watch.started(exit.map(Ok).boxed());
    watch
}

/// The end of a container that is ended by signals alone.
fn killed(puppet: &Arc<Puppet>) -> impl Future<Output = i64> + Send + 'static {
    let puppet = Arc::clone(puppet);
    async move {
        puppet.dead.notified().await;
        137
    }
}

fn frames(frames: Vec<LogOutput>) -> Output {
    later(frames.into_iter().map(|frame| (0, frame)).collect())
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_prints_and_exits_is_done() {
    let puppet = Puppet::new();
    let output = frames(vec![launched(), out("{}")]);
    let mut watch = watching(&puppet, output, std::future::ready(3));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(3));
    assert_eq!(&watch.collector.take_output().0[..], b"{}");
    assert!(puppet.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_before_the_cell_ends() {
    let puppet = Puppet::new();
    let begun = Instant::now();
    let output = open(vec![(0, launched()), (5, out(OK))]);
    let mut watch = watching(&puppet, output, killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Answered);
    assert_eq!(begun.elapsed(), Duration::from_millis(5));
    assert_eq!(&watch.collector.take_output().0[..], OK.as_bytes());
    // It may go on for a while; nobody waits for longer.
    watch.part(TIME).await;
    assert_eq!(begun.elapsed(), TIME + Duration::from_millis(5));
    assert_eq!(watch.collector.late_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_an_answer_already_fails_it_and_what_comes_later_is_only_late() {
    let puppet = Puppet::new();
    let in_one = format!("{OK} x");
    let message = in_one.into();
    let output = open(vec![(0, launched()), (5, LogOutput::StdOut { message })]);
    let mut watch = watching(&puppet, output, killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Failed);

    let output = open(vec![(0, launched()), (5, out(OK)), (5, out("late "))]);
    let mut watch = watching(&puppet, output, killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Answered);
    watch.collector.take_output();
    watch.part(TIME).await;
    assert_eq!(watch.collector.late_bytes(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_error_waits_a_second_for_the_exit_code() {
    let puppet = Puppet::new();
    let half = Duration::from_millis(500);
    let output = later(vec![(0, launched()), (0, out(ERROR))]);
    let exit = tokio::time::sleep(half).map(|()| 78);
    let mut watch = watching(&puppet, output, exit);
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(78));

    let begun = Instant::now();
    let output = open(vec![(0, launched()), (0, out(ERROR))]);
    let mut watch = watching(&puppet, output, killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Failed);
    assert_eq!(begun.elapsed(), LAST_WORDS);
}

#[tokio::test(start_paused = true)]
async fn output_that_arrives_after_the_exit_still_counts() {
    let puppet = Puppet::new();
    let output = later(vec![(0, launched()), (20, out("late"))]);
    let mut watch = watching(&puppet, output, std::future::ready(0));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(0));
    assert_eq!(&watch.collector.take_output().0[..], b"late");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_cell_gets_sigterm_at_its_deadline() {
    let puppet = Puppet::new();
    let mut watch = watching(&puppet, open(vec![(0, launched())]), killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::TimedOut { killed: false });
    assert_eq!(puppet.signals(), [(Signal::Terminate, TIME)]);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_ignores_sigterm_is_killed_five_seconds_later() {
    let puppet = Puppet::that(|puppet| puppet.ignores_sigterm = true);
    let mut watch = watching(&puppet, open(vec![(0, launched())]), killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::TimedOut { killed: true });
    let expected = [(Signal::Terminate, TIME), (Signal::Kill, TIME + GRACE)];
    assert_eq!(puppet.signals(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_answer_during_the_grace_still_counts_as_timeout() {
    let puppet = Puppet::new();
    let dying = Arc::clone(&puppet);
    let answer = stream::once(async move {
        dying.dead.notified().await;
        dying.dead.notify_one();
        Ok(out(OK))
    });
    let output = frames(vec![launched()]).chain(answer).boxed();
    let mut watch = watching(&puppet, output, killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::TimedOut { killed: false });
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_has_ended_by_its_deadline_is_not_timed_out() {
    let puppet = Puppet::that(|puppet| puppet.ended_unseen = true);
    let exit = killed(&puppet).map(|_| 0);
    let output = frames(vec![launched(), out("{}")]);
    let mut watch = watching(&puppet, output, exit);
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(0));
    assert!(puppet.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_killed() {
    let puppet = Puppet::that(|puppet| puppet.ignores_sigterm = true);
    let flood = (0..400).map(|_| LogOutput::StdOut {
        message: vec![b'x'; 32 << 10].into(),
    });
    let output = frames(std::iter::once(launched()).chain(flood).collect());
    let mut watch = watching(&puppet, output, killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Overflowed);
    let signals = puppet.signals();
    assert_eq!((signals.len(), signals[0].0), (1, Signal::Kill));
    assert_eq!(
        watch.collector.take_output().0.len(),
        STDOUT_LIMIT_BYTES + 1
    );
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_writes_before_it_is_fed_is_killed() {
    let puppet = Puppet::new();
    let early = || open(vec![(0, said(r#"{"granted":true}"#)), (1, out("x"))]);
    let mut watch = watching(&puppet, early(), killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.told(TIME).await, Some(Ending::Early));
    assert_eq!(puppet.signals().len(), 1);

    let mut watch = watching(&puppet, early(), killed(&puppet));
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.idle().await, Idled::Spoke);
}

#[tokio::test(start_paused = true)]
async fn a_cell_may_warn_before_it_is_fed() {
    let puppet = Puppet::new();
    let message = "x".into();
    let output = open(vec![
        (0, said(r#"{"granted":true}"#)),
        (1, LogOutput::StdErr { message }),
    ]);
    let mut watch = watching(&puppet, output, tokio::time::sleep(TIME).map(|()| 0));
    assert_eq!(watch.told(TIME).await, None);
    assert_ne!(watch.idle().await, Idled::Spoke);
    assert!(puppet.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idle_cell_is_watched_until_it_ends_or_its_stream_breaks() {
    let puppet = Puppet::new();
    let exit = tokio::time::sleep(10 * TIME).map(|()| 1);
    let mut watch = watching(&puppet, later(vec![]), exit);
    assert_eq!(watch.idle().await, Idled::Broke);
    let exit = tokio::time::sleep(TIME).map(|()| 1);
    let output = stream::once(tokio::time::sleep(TIME)).filter_map(|()| std::future::ready(None));
    let mut watch = watching(&puppet, output.boxed(), exit);
    assert_eq!(watch.idle().await, Idled::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_ends_before_its_request_has_ended_by_itself() {
    let puppet = Puppet::new();
    let mut watch = watching(&puppet, frames(vec![]), std::future::ready(1));
    assert_eq!(watch.told(TIME).await, Some(Ending::Exited(1)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_socket_proxy_is_not_waited_for_forever() {
    let puppet = Puppet::new();
    let mut watch = watching(&puppet, open(vec![]), killed(&puppet));
    assert!(matches!(watch.told(TIME).await, Some(Ending::Lost(_))));
    assert_eq!(puppet.signals(), [(Signal::Kill, TIME)]);
    // What is not started has nothing to be killed in it; a stream that is closed is not waited for as long.
    let begun = Instant::now();
    let mut watch = Watch::new(Arc::clone(&puppet), frames(vec![]));
    assert!(matches!(watch.told(TIME).await, Some(Ending::Lost(_))));
    assert_eq!(begun.elapsed(), DRAIN);
    assert_eq!(puppet.signals().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_cell_is_killed_at_once() {
    let puppet = Puppet::that(|puppet| puppet.ignores_sigterm = true);
    let seven = Duration::from_secs(7);
    let mut watch = watching(&puppet, open(vec![(0, launched())]), killed(&puppet));
    watch.stopped_by(tokio::time::sleep(seven).map(|()| Stop::Cancelled).boxed());
    assert_eq!(watch.told(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Stopped(Stop::Cancelled));
    assert_eq!(puppet.signals(), [(Signal::Kill, seven)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_say_the_end_of_is_lost() {
    let puppet = Puppet::new();
    let mut watch = Watch::new(Arc::clone(&puppet), open(vec![(0, launched())]));
    let gone = Error::for_test(500, "the engine is gone");
    watch.started(tokio::time::sleep(TIME / 2).map(|()| Err(gone)).boxed());
    assert_eq!(watch.told(TIME).await, None);
    assert!(matches!(watch.ended(TIME).await, Ending::Lost(why) if why.contains("gone")));
}
