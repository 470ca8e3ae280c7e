use std::sync::{Arc, Mutex};

use bailey_cell::launch::{Control, OutputStream};
use futures::{FutureExt as _, StreamExt as _, stream};

use super::super::Output;
use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// A container that ends on the signals that it minds.
struct Puppet {
    minds_sigterm: bool,
    signals: Mutex<Vec<Signal>>,
    dead: tokio::sync::Notify,
}

impl Puppet {
    fn that(minds_sigterm: bool) -> Arc<Self> {
        Arc::new(Self {
            minds_sigterm,
            signals: Mutex::default(),
            dead: tokio::sync::Notify::new(),
        })
    }

    fn signals(&self) -> Vec<Signal> {
        self.signals.lock().unwrap().clone()
    }
}

impl Hands for Arc<Puppet> {
    async fn kill(&self, signal: Signal) -> Result<(), Error> {
        self.signals.lock().unwrap().push(signal);
        if signal == Signal::Kill || self.minds_sigterm {
            self.dead.notify_one();
        }
        Ok(())
    }

    async fn is_running(&self) -> Result<bool, Error> {
        Ok(true)
    }
}

fn out(text: &str) -> LogOutput {
    LogOutput::StdOut {
        message: text.to_owned().into(),
    }
}

fn err(bytes: usize) -> LogOutput {
    LogOutput::StdErr {
        message: vec![b'e'; bytes].into(),
    }
}

/// What comes on a stream, each so many milliseconds after the one before.
fn later(frames: Vec<(u64, LogOutput)>) -> Output {
    let each = |(wait, frame)| async move {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        Ok(frame)
    };
    stream::iter(frames).then(each).boxed()
}

fn open(frames: Vec<(u64, LogOutput)>) -> Output {
    later(frames).chain(stream::pending()).boxed()
}

/// A started container that ends when it is signalled.
fn watching(puppet: &Arc<Puppet>, output: Output) -> Watch<Arc<Puppet>> {
    let mut watch = Watch::new(Arc::clone(puppet), output);
    let dead = Arc::clone(puppet);
    let exit = async move {
        dead.dead.notified().await;
        Ok(143)
    };
    watch.started(exit.boxed());
    watch
}

/// The same, that ends by itself after so many milliseconds.
fn ending(puppet: &Arc<Puppet>, output: Output, after: u64, code: i64) -> Watch<Arc<Puppet>> {
    let mut watch = Watch::new(Arc::clone(puppet), output);
    let exit = async move {
        tokio::time::sleep(Duration::from_millis(after)).await;
        Ok(code)
    };
    watch.started(exit.boxed());
    watch
}

/// Takes every line, each after so long.
#[derive(Clone, Default)]
struct Taker {
    wait: Duration,
    taken: Arc<Mutex<Vec<(u64, String)>>>,
    told: Arc<Mutex<Vec<u64>>>,
}

impl Taker {
    fn taken(&self) -> Vec<(u64, String)> {
        self.taken.lock().unwrap().clone()
    }

    async fn serve(
        &self,
        watch: &mut Watch<Arc<Puppet>>,
        heartbeat: Option<Duration>,
    ) -> (Served, Bytes) {
        let deliver = |said| {
            let taker = self.clone();
            async move {
                tokio::time::sleep(taker.wait).await;
                match said {
                    Said::Line(number, line) => {
                        let line = String::from_utf8(line.to_vec()).unwrap();
                        taker.taken.lock().unwrap().push((number, line));
                    }
                    Said::Returned(secrets) => {
                        let counts = secrets.iter().map(|returned| returned.count);
                        taker.told.lock().unwrap().extend(counts);
                    }
                }
                Ok(())
            }
            .boxed()
        };
        watch.serve(heartbeat, deliver).await
    }
}

fn lines(taken: &[(u64, &str)]) -> Vec<(u64, String)> {
    let line = |(number, line): &(u64, &str)| (*number, (*line).to_owned());
    taken.iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn lines_are_handed_on_in_order_however_they_are_cut_and_the_last_one_too() {
    let puppet = Puppet::that(true);
    let frames = vec![(0, out("on")), (5, out("e\n\n tw")), (5, out("o\nthree"))];
    let mut watch = ending(&puppet, later(frames), 20, 3);
    let taker = Taker::default();
    let (served, _) = taker.serve(&mut watch, None).await;
    assert_eq!(served, Served::Exited(3));
    // The empty one is a heartbeat: it has a number, and is nobody's to hear.
    assert_eq!(
        taker.taken(),
        lines(&[(1, "one"), (3, " two"), (4, "three")])
    );
    assert!(puppet.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_an_ended_one_has_written_is_heard_to_the_last_line_however_slow_the_engine_is() {
    // Whether or not its stream ends with it.
    for stream in [later, open] {
        let puppet = Puppet::that(true);
        let frames = vec![(0, out("one\n")), (1, out("two\n")), (1, out("three"))];
        let mut watch = ending(&puppet, stream(frames), 5, 0);
        let taker = Taker {
            wait: MINUTE,
            ..Taker::default()
        };
        let (served, _) = taker.serve(&mut watch, Some(MINUTE)).await;
        assert_eq!(served, Served::Exited(0));
        assert_eq!(
            taker.taken(),
            lines(&[(1, "one"), (2, "two"), (3, "three")])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_stops_does_not_wait_for_an_engine_that_is_gone() {
    let after = |wait| {
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            Stop::Stopping
        })
    };
    let away = Taker {
        wait: 60 * MINUTE,
        ..Taker::default()
    };
    let polite = Puppet::that(true);
    let mut watch = watching(&polite, later(vec![(0, out("x\n"))]));
    watch.stopped_by(after(Duration::ZERO));
    let begun = Instant::now();
    let (served, _) = away.serve(&mut watch, None).await;
    assert_eq!(served, Served::Stopped(Stop::Stopping));
    assert_eq!(begun.elapsed(), PARTING);
    assert_eq!(polite.signals(), [Signal::Terminate]);

    // One that had ended before anybody stopped it.
    let puppet = Puppet::that(true);
    let mut watch = ending(&puppet, later(vec![(0, out("x\n"))]), 1, 0);
    watch.stopped_by(after(MINUTE));
    let begun = Instant::now();
    let (served, _) = away.serve(&mut watch, None).await;
    assert_eq!(served, Served::Stopped(Stop::Stopping));
    assert_eq!(begun.elapsed(), MINUTE + PARTING);

    // The neighbour: an engine that answers within that time loses nothing.
    let puppet = Puppet::that(true);
    let mut watch = watching(&puppet, later(vec![(0, out("x\n"))]));
    watch.stopped_by(after(Duration::ZERO));
    let slow = Taker {
        wait: PARTING / 2,
        ..Taker::default()
    };
    slow.serve(&mut watch, None).await;
    assert_eq!(slow.taken(), lines(&[(1, "x")]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_a_line_waits_for_the_engine() {
    let puppet = Puppet::that(true);
    let read = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&read);
    let output = stream::iter(0..5).map(move |nth: u32| {
        *counted.lock().unwrap() += 1;
        Ok(out(&format!("{nth}\n")))
    });
    let mut watch = watching(&puppet, output.chain(stream::pending()).boxed());
    let taker = Taker {
        wait: MINUTE,
        ..Taker::default()
    };
    let serving = taker.serve(&mut watch, None);
    let soon = tokio::time::timeout(MINUTE + MINUTE / 2, serving).await;
    assert!(soon.is_err());
    assert_eq!(*read.lock().unwrap(), 2);
    assert_eq!(taker.taken(), lines(&[(1, "0")]));
}

#[tokio::test(start_paused = true)]
async fn a_silent_one_is_killed_and_one_that_beats_is_not() {
    let silent = Puppet::that(true);
    let frames = vec![(0, out("\n")), (30_000, err(3)), (20_000, err(3))];
    let mut watch = watching(&silent, open(frames));
    let begun = Instant::now();
    let (served, stderr) = Taker::default().serve(&mut watch, Some(MINUTE)).await;
    assert_eq!(served, Served::Silent(MINUTE));
    // Standard error is no heartbeat. What a killed one has written is read to its end.
    assert_eq!(begun.elapsed(), MINUTE + DRAIN);
    assert_eq!(silent.signals(), [Signal::Kill]);
    assert_eq!(stderr.len(), 6);

    let beating = Puppet::that(true);
    let beats = (0..10).map(|_| (50_000, out("\n"))).collect();
    let mut watch = ending(&beating, later(beats), 500_001, 0);
    let (served, _) = Taker::default().serve(&mut watch, Some(MINUTE)).await;
    assert_eq!(served, Served::Exited(0));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_not_the_services_silence() {
    let puppet = Puppet::that(true);
    let mut watch = ending(&puppet, open(vec![(0, out("x\n"))]), 3_650_000, 0);
    let taker = Taker {
        wait: 60 * MINUTE,
        ..Taker::default()
    };
    let (served, _) = taker.serve(&mut watch, Some(MINUTE)).await;
    assert_eq!(served, Served::Exited(0));
    assert_eq!(taker.taken().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_line_may_have_a_mebibyte_and_not_one_byte_more() {
    for (bytes, expected) in [
        (LINE_LIMIT_BYTES, Served::Exited(0)),
        (LINE_LIMIT_BYTES + 1, Served::LongLine),
    ] {
        let puppet = Puppet::that(true);
        let text = "x".repeat(bytes);
        let (first, last) = text.split_at(bytes / 2);
        let frames = vec![(0, out(first)), (0, out(last)), (0, out("\n"))];
        let mut watch = ending(&puppet, later(frames), 10, 0);
        let (served, _) = Taker::default().serve(&mut watch, None).await;
        assert_eq!(served, expected);
    }
    // Without any end of line it is noticed too.
    let puppet = Puppet::that(true);
    let flood = (0..20).map(|_| (0, out(&"x".repeat(65_536)))).collect();
    let mut watch = watching(&puppet, open(flood));
    let (served, _) = Taker::default().serve(&mut watch, None).await;
    assert_eq!(served, Served::LongLine);
    assert_eq!(puppet.signals(), [Signal::Kill]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stopped_may_end_by_itself_and_is_killed_if_it_does_not() {
    let stop = || Box::pin(async { Stop::Cancelled });
    let kind = Puppet::that(true);
    let mut watch = watching(&kind, later(vec![(0, out("bye\n"))]));
    watch.stopped_by(stop());
    let taker = Taker::default();
    let (served, _) = taker.serve(&mut watch, None).await;
    assert_eq!(served, Served::Stopped(Stop::Cancelled));
    assert_eq!(kind.signals(), [Signal::Terminate]);
    assert_eq!(taker.taken(), lines(&[(1, "bye")]));

    let deaf = Puppet::that(false);
    let mut watch = watching(&deaf, open(vec![]));
    watch.stopped_by(stop());
    let begun = Instant::now();
    let (served, _) = Taker::default().serve(&mut watch, None).await;
    assert_eq!(served, Served::Stopped(Stop::Cancelled));
    assert_eq!(deaf.signals(), [Signal::Terminate, Signal::Kill]);
    assert_eq!(begun.elapsed(), GRACE + DRAIN);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_to_hear_ends_it() {
    let puppet = Puppet::that(true);
    let mut watch = watching(&puppet, open(vec![(0, out("x\n"))]));
    let deliver = |_| async { Err("the attempt is over".to_owned()) }.boxed();
    let (served, _) = watch.serve(None, deliver).await;
    assert_eq!(served, Served::Lost("the attempt is over".to_owned()));
    assert_eq!(puppet.signals(), [Signal::Kill]);
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_on_behind_its_stream_is_lost() {
    let puppet = Puppet::that(true);
    let mut watch = watching(&puppet, later(vec![]));
    let begun = Instant::now();
    let (served, _) = Taker::default().serve(&mut watch, None).await;
    assert!(matches!(served, Served::Lost(_)), "{served:?}");
    assert_eq!(begun.elapsed(), UNHEARD);
}

#[tokio::test(start_paused = true)]
async fn the_last_of_standard_error_is_kept() {
    let puppet = Puppet::that(true);
    let mut frames: Vec<_> = (0..40).map(|_| (0, err(10_000))).collect();
    let message = Bytes::from_static(b"the end");
    frames.push((0, LogOutput::StdErr { message }));
    let mut watch = ending(&puppet, later(frames), 10, 1);
    let (served, stderr) = Taker::default().serve(&mut watch, None).await;
    assert_eq!(served, Served::Exited(1));
    assert_eq!(stderr.len(), STDERR_LIMIT_BYTES);
    assert!(stderr.ends_with(b"ethe end"));
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_slowed_down_behind_its_first_thousand_lines() {
    let puppet = Puppet::that(true);
    let text = "x\n".repeat(1500);
    let mut watch = watching(&puppet, open(vec![(0, out(&text))]));
    let taker = Taker::default();
    let serving = taker.serve(&mut watch, None);
    let second = Duration::from_millis(1005);
    assert!(tokio::time::timeout(second, serving).await.is_err());
    let count = taker.taken().len();
    assert!((1090..=1110).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_long_lines_is_slowed_down_behind_its_first_eight_mebibytes() {
    let puppet = Puppet::that(true);
    let text = "x".repeat(LINE_LIMIT_BYTES) + "\n";
    let frames = (0..20).map(|_| (0, out(&text))).collect();
    let mut watch = watching(&puppet, open(frames));
    let taker = Taker::default();
    let serving = taker.serve(&mut watch, None);
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, serving).await.is_err());
    assert_eq!(taker.taken().len(), 8);
}

fn control(control: &Control) -> LogOutput {
    LogOutput::StdIn {
        message: control.to_json().into(),
    }
}

fn returned(count: u64) -> LogOutput {
    control(&Control::Returned(Returned {
        secret: "token".parse().unwrap(),
        stream: OutputStream::Stderr,
        count,
    }))
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_came_back_is_told_while_it_runs_and_one_word_at_a_time() {
    // Given an engine that takes a minute for everything, and a service that prints its secret and no line
    let puppet = Puppet::that(true);
    let mut frames = vec![(0, control(&Control::Launched(true)))];
    frames.extend([(0, returned(1)), (1, returned(2)), (1, returned(4))]);
    frames.push((10 * 60_000, returned(8)));
    let mut watch = watching(&puppet, open(frames));
    let taker = Taker {
        wait: MINUTE,
        ..Taker::default()
    };

    // When it is heard for a while
    let serving = taker.serve(&mut watch, None);
    assert!(tokio::time::timeout(5 * MINUTE, serving).await.is_err());

    // Then the engine knows of it, of all that came meanwhile at once,
    assert_eq!(*taker.told.lock().unwrap(), [1, 4]);
    // and what it knows need not be reported.
    assert_eq!(watch.collector.untold(), []);

    // What it could not be told any more is left for the report.
    let mut watch = ending(
        &puppet,
        later(vec![
            (0, control(&Control::Launched(true))),
            (0, returned(3)),
        ]),
        5,
        0,
    );
    let (served, _) = taker.serve(&mut watch, None).await;
    assert_eq!(served, Served::Exited(0));
    assert_eq!(watch.collector.untold()[0].count, 3);
}
