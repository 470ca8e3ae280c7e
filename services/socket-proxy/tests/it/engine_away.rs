//! Without an engine the proxy says so, and goes on by itself when there is one.

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
