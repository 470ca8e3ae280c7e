//! Without an engine the proxy says so, and goes on by itself when there is one.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::ListContainersOptionsBuilder;

use crate::stand::{DOCKER, Stand, args};

#[tokio::test]
async fn an_engine_that_is_away_is_said_and_its_return_is_noticed() {
    // Given an engine's socket that is not there yet
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let stand = Stand::bare(socket_proxy::Args {
        docker_socket: socket.clone(),
        ..args()
    })
    .await;
    let list = || async {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        stand.docker.list_containers(Some(options)).await
    };

    // When it is asked for, then the answer names the reason
    let Err(Error::DockerResponseServerError {
        status_code: 503,
        message,
    }) = list().await
    else {
        panic!("not a 503")
    };
    assert!(
        message.contains("Docker Engine does not answer"),
        "{message}"
    );
    let mut presence = stand.ctx.process.presence();
    presence
        .wait_for(|p| p.detail.contains("Docker Engine does not answer"))
        .await
        .unwrap();

    // And when it comes, the next call is done
    std::os::unix::fs::symlink(DOCKER, &socket).unwrap();
    assert_eq!(list().await.unwrap().len(), 0);
    presence
        .wait_for(|p| !p.detail.contains("Docker"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_engine_whose_socket_was_removed_ends_the_process() {
    // Given a socket as a container has it, the file itself and not its name, on which nobody listens any more
    const O_PATH: i32 = 0o10_000_000;
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("docker.sock");
    drop(UnixListener::bind(&name).unwrap());
    let mut open = OpenOptions::new();
    let file = open.read(true).custom_flags(O_PATH).open(&name).unwrap();
    let stand = Stand::bare(socket_proxy::Args {
        docker_socket: format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
        ..args()
    })
    .await;
    let mut presence = stand.ctx.process.presence();
    presence
        .wait_for(|p| p.detail.contains("Docker Engine does not answer"))
        .await
        .unwrap();
    assert!(!stand.ctx.shutdown.is_cancelled());

    // When an engine that comes back removes it, then the process ends: only a new one would see the new socket
    std::fs::remove_file(&name).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), stand.ctx.shutdown.cancelled());
    ended.await.unwrap();
}
