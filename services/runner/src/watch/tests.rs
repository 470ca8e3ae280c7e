use std::sync::Mutex;

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
    fn new() -> Self {
        Self {
            started: Some(Instant::now()),
            ..Self::default()
        }
    }

    fn signals(&self) -> Vec<(Signal, Duration)> {
        self.signals.lock().unwrap().clone()
    }
}

impl Hands for Puppet {
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

fn launched() -> LogOutput {
    LogOutput::StdIn {
        message: r#"{"launched":true}"#.into(),
    }
}

/// The events of a container that prints `frames`, then stays silent, and ends as `exit` says.
fn events<'a>(frames: Vec<LogOutput>, exit: impl Future<Output = i64> + Send + 'a) -> Events<'a> {
    Events {
        output: stream::iter(frames).map(Ok).boxed(),
        exit: exit.map(Ok).boxed(),
        stop: std::future::pending().boxed(),
        feed: std::future::ready(Ok(())).boxed(),
    }
}

async fn killed(puppet: &Puppet) -> i64 {
    puppet.dead.notified().await;
    137
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_answers_and_exits_is_done() {
    let puppet = Puppet::new();
    let frames = vec![launched(), out("{}")];
    let mut watch = Watch::new(&puppet, events(frames, std::future::ready(3)));
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(3));
    assert_eq!(&watch.collector.into_output().0[..], b"{}");
    assert!(puppet.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn output_that_arrives_after_the_exit_still_counts() {
    let puppet = Puppet::new();
    let late = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        out("late")
    });
    let mut events = events(Vec::new(), std::future::ready(0));
    events.output = stream::iter([launched()]).chain(late).map(Ok).boxed();
    let mut watch = Watch::new(&puppet, events);
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(0));
    assert_eq!(&watch.collector.into_output().0[..], b"late");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_cell_gets_sigterm_at_its_deadline() {
    let puppet = Puppet::new();
    let mut watch = Watch::new(&puppet, events(vec![launched()], killed(&puppet)));
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::TimedOut { killed: false });
    assert_eq!(puppet.signals(), [(Signal::Terminate, TIME)]);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_ignores_sigterm_is_killed_five_seconds_later() {
    let puppet = Puppet {
        ignores_sigterm: true,
        ..Puppet::new()
    };
    let mut watch = Watch::new(&puppet, events(vec![launched()], killed(&puppet)));
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::TimedOut { killed: true });
    let expected = [(Signal::Terminate, TIME), (Signal::Kill, TIME + GRACE)];
    assert_eq!(puppet.signals(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_answer_during_the_grace_still_counts_as_timeout() {
    let puppet = Puppet::new();
    let answer = stream::once(async {
        puppet.dead.notified().await;
        puppet.dead.notify_one();
        out(r#"{"status":"ok"}"#)
    });
    let mut events = events(Vec::new(), killed(&puppet));
    events.output = stream::iter([launched()]).chain(answer).map(Ok).boxed();
    let mut watch = Watch::new(&puppet, events);
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::TimedOut { killed: false });
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_has_ended_by_its_deadline_is_not_timed_out() {
    let puppet = Puppet {
        ended_unseen: true,
        ..Puppet::new()
    };
    let exit = killed(&puppet).map(|_| 0);
    let mut watch = Watch::new(&puppet, events(vec![launched(), out("{}")], exit));
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Exited(0));
    assert!(puppet.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_killed() {
    let puppet = Puppet {
        ignores_sigterm: true,
        ..Puppet::new()
    };
    let flood = (0..400).map(|_| LogOutput::StdOut {
        message: vec![b'x'; 32 << 10].into(),
    });
    let frames = std::iter::once(launched()).chain(flood).collect();
    let mut watch = Watch::new(&puppet, events(frames, killed(&puppet)));
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Overflowed);
    assert_eq!(puppet.signals(), [(Signal::Kill, Duration::ZERO)]);
    assert_eq!(
        watch.collector.into_output().0.len(),
        STDOUT_LIMIT_BYTES + 1
    );
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_ends_before_its_request_has_ended_by_itself() {
    let puppet = Puppet::new();
    let mut watch = Watch::new(&puppet, events(vec![out("hi")], std::future::ready(1)));
    assert_eq!(watch.launched(TIME).await, Some(Ending::Exited(1)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_socket_proxy_is_not_waited_for_forever() {
    let puppet = Puppet::new();
    let mut watch = Watch::new(&puppet, events(Vec::new(), killed(&puppet)));
    assert!(matches!(watch.launched(TIME).await, Some(Ending::Lost(_))));
    assert_eq!(puppet.signals(), [(Signal::Kill, TIME)]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_cell_is_killed_at_once() {
    let puppet = Puppet {
        ignores_sigterm: true,
        ..Puppet::new()
    };
    let mut events = events(vec![launched()], killed(&puppet));
    let seven = Duration::from_secs(7);
    events.stop = tokio::time::sleep(seven).map(|()| Stop::Cancelled).boxed();
    let mut watch = Watch::new(&puppet, events);
    assert_eq!(watch.launched(TIME).await, None);
    assert_eq!(watch.ended(TIME).await, Ending::Stopped(Stop::Cancelled));
    assert_eq!(puppet.signals(), [(Signal::Kill, seven)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_say_the_end_of_is_lost() {
    let puppet = Puppet::new();
    let mut events = events(vec![launched()], std::future::ready(0));
    let gone = Error::for_test(500, "the engine is gone");
    events.exit = tokio::time::sleep(TIME / 2).map(|()| Err(gone)).boxed();
    let mut watch = Watch::new(&puppet, events);
    assert_eq!(watch.launched(TIME).await, None);
    assert!(matches!(watch.ended(TIME).await, Ending::Lost(why) if why.contains("gone")));
}
