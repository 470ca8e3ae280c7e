//! What the proxy knows of its containers stays right, whoever goes away in the middle.

use std::time::Duration;

use bailey_cell::launch::Control;
use bailey_types::JobId;
use bollard::query_parameters::ListContainersOptionsBuilder;
use http::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{interval, timeout};

use crate::stand::{Relay, Stand, args, engine};

const PATIENCE: Duration = Duration::from_secs(10);

/// A stand whose engine is late with some answers, and keeps one warm cell.
async fn stand(held: &'static str) -> (Stand, Relay) {
    let relay = Relay::new(held);
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| locked.proposed.walls.warm = 1);
    stand
        .restart_with(socket_proxy::Args {
            docker_socket: relay.socket.clone(),
            ..args()
        })
        .await;
    (stand, relay)
}

/// Writes a request and is gone before its answer.
async fn ask_and_leave(stand: &Stand, relay: &mut Relay, request: &str) {
    let mut runner = UnixStream::connect(stand.socket()).await.unwrap();
    runner.write_all(request.as_bytes()).await.unwrap();
    let held = timeout(PATIENCE, relay.held()).await.unwrap();
    drop(runner);
    held.release().await;
}

async fn granted(stand: &Stand) -> Control {
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(1)).await;
    cell.control().await
}

#[tokio::test]
async fn a_removal_is_booked_although_the_runner_has_left() {
    let (stand, mut relay) = stand("DELETE /containers/").await;
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(1)).await;
    assert_eq!(cell.control().await, Control::Granted(true));

    let path = format!("/containers/{}?force=1&v=1", cell.id);
    let request = format!("DELETE {path} HTTP/1.1\r\nHost: docker\r\n\r\n");
    ask_and_leave(&stand, &mut relay, &request).await;

    let mut ticks = interval(Duration::from_millis(20));
    let booked = async {
        while granted(&stand).await != Control::Granted(true) {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, booked).await.unwrap();
}

#[tokio::test]
async fn what_was_made_is_booked_although_the_runner_has_left() {
    let (stand, mut relay) = stand("POST /containers/create").await;
    let (name, body) = stand.derived(JobId::new());
    let body = serde_json::to_string(&body).unwrap();
    let length = body.len();
    let head = format!("POST /containers/create?name={name} HTTP/1.1\r\nHost: docker");
    let request = format!(
        "{head}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    ask_and_leave(&stand, &mut relay, &request).await;

    let made: Value = engine()
        .json(Method::GET, &format!("/containers/{name}/json"), None)
        .await
        .unwrap();
    let id = made["Id"].as_str().unwrap();
    // What is only found in a list later cannot be attached to.
    let mut ticks = interval(Duration::from_millis(20));
    let booked = async {
        while stand.attach(id).await.is_err() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, booked).await.unwrap();
}

#[tokio::test]
async fn what_others_removed_is_forgotten_with_the_next_list() {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| locked.proposed.walls.warm = 1);
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(1)).await;
    assert_eq!(cell.control().await, Control::Granted(true));
    let path = format!("/containers/{}?force=1", cell.id);
    engine().call(Method::DELETE, &path, None).await.unwrap();

    let options = ListContainersOptionsBuilder::new().all(true).build();
    let listed = stand.docker.list_containers(Some(options)).await.unwrap();

    assert!(listed.is_empty(), "{listed:?}");
    assert_eq!(granted(&stand).await, Control::Granted(true));
}

#[tokio::test]
async fn bodies_that_do_not_end_keep_the_others_waiting_outside() {
    const CREATES: usize = 16;
    let stand = Stand::start().await;
    let (name, _) = stand.derived(JobId::new());
    let head = format!(
        "POST /containers/create?name={name} HTTP/1.1\r\nHost: docker\r\nConnection: close"
    );
    let create = |length| format!("{head}\r\nContent-Length: {length}\r\n\r\n{{}}");
    let mut unfinished = Vec::new();
    for _ in 0..CREATES {
        let mut stream = UnixStream::connect(stand.socket()).await.unwrap();
        let request = create(3);
        stream.write_all(request.as_bytes()).await.unwrap();
        unfinished.push(stream);
    }
    // Connections are taken in their order: these are, once a later one is.
    assert!(
        stand
            .raw("GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            .await
            .contains("200")
    );

    let mut another = UnixStream::connect(stand.socket()).await.unwrap();
    another.write_all(create(2).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let early = timeout(Duration::from_millis(500), another.read_to_end(&mut answer)).await;
    assert!(early.is_err(), "{}", String::from_utf8_lossy(&answer));

    unfinished.pop();
    let read = timeout(PATIENCE, another.read_to_end(&mut answer)).await;
    read.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403"));
}
