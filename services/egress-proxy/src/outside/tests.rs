use std::sync::Condvar;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// How many lookups of `slow` have begun, and whether they may end.
static SLOW: Mutex<(usize, bool)> = Mutex::new((0, false));
static CHANGED: Condvar = Condvar::new();

fn resolver(name: &str) -> io::Result<Vec<IpAddr>> {
    if name == "none" {
        return Err(io::ErrorKind::NotFound.into());
    }
    if name == "slow" {
        let mut slow = SLOW.lock().unwrap();
        slow.0 += 1;
        CHANGED.notify_all();
        drop(CHANGED.wait_while(slow, |(_, may_end)| !*may_end).unwrap());
    }
    Ok(vec![IpAddr::from([1, 1, 1, 1])])
}

/// Lets the slow ones end, also where the test fails: the runtime waits for its threads.
struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        SLOW.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        CHANGED.notify_all();
    }
}

fn begun(count: usize) {
    let slow = SLOW.lock().unwrap();
    let waited = CHANGED.wait_timeout_while(slow, LONG, |(begun, _)| *begun < count);
    assert!(!waited.unwrap().1.timed_out());
}

#[tokio::test]
async fn whoever_lets_lookups_hang_takes_them_from_nobody_else() {
    let release = Release;
    let internet = Arc::new(Internet::with(resolver));
    let mut hanging = JoinSet::new();
    for _ in 0..20 {
        let internet = Arc::clone(&internet);
        hanging.spawn(async move { internet.resolve(Asker::Holder(1), "slow".into()).await });
    }
    // All twenty have asked before this task goes on, as the runtime has one thread.
    tokio::task::yield_now().await;
    tokio::task::spawn_blocking(|| begun(2)).await.unwrap();
    let upstream = |name: &str| Asker::Upstream(name.parse().unwrap());
    for other in [Asker::Holder(2), upstream("a"), upstream("b")] {
        let quick = internet.resolve(other, "quick".into());
        assert!(timeout(LONG, quick).await.unwrap().is_ok());
    }

    // Nobody waits any more, but the threads are still there: the places are not free.
    hanging.shutdown().await;
    let third = internet.resolve(Asker::Holder(1), "quick".into());
    let third = timeout(Duration::from_millis(100), third).await;
    assert!(third.is_err());
    assert_eq!(SLOW.lock().unwrap().0, 2);

    drop(release);
    let own = internet.resolve(Asker::Holder(1), "quick".into());
    assert!(timeout(LONG, own).await.unwrap().is_ok());
    // Whoever asks nothing any more is forgotten. The other slow one may end a moment later.
    let forgotten = async {
        loop {
            let none = internet.resolve(Asker::Holder(3), "none".into()).await;
            assert!(none.is_err());
            if internet.of_asker.lock().unwrap().len() == 1 {
                return;
            }
        }
    };
    timeout(LONG, forgotten).await.unwrap();
}

#[tokio::test]
async fn the_kernel_holds_little_of_a_connection() {
    for to in ["127.0.0.1:1", "[::1]:1"] {
        let socket = socket(to.parse().unwrap()).unwrap();
        // Linux doubles what it is told.
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * BUFFER_BYTES, "{to}");
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * BUFFER_BYTES, "{to}");
    }
}
