//! The forwarder over its wire.

use std::time::Duration;

use bailey_service::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

struct Door {
    address: std::net::SocketAddr,
    process: Process,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Door {
    async fn open(gateway: String) -> Self {
        Self::open_for(gateway, Duration::from_mins(1)).await
    }

    #[expect(clippy::unwrap_used, reason = "a test helper")]
    async fn open_for(gateway: String, idle: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, process) = (listener.local_addr().unwrap(), Process::new());
        let served = ingress_local::serve(process.clone(), listener, gateway, idle);
        #[expect(clippy::disallowed_methods, reason = "the test awaits it")]
        let served = tokio::spawn(served);
        Self {
            address,
            process,
            served,
        }
    }
}

#[tokio::test]
async fn bytes_and_both_ends_of_a_connection_pass() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = Door::open(gateway.local_addr().unwrap().to_string()).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut inside, _) = gateway.accept().await.unwrap();
    let mut question = Vec::new();
    inside.read_to_end(&mut question).await.unwrap();
    inside.write_all(b"answer").await.unwrap();
    drop(inside);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(
        (question.as_slice(), answer.as_slice()),
        (&b"question"[..], &b"answer"[..])
    );
}

#[tokio::test]
async fn without_a_gateway_the_connection_ends_and_the_door_stays_open() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let door = Door::open(nobody.to_string()).await;
    for _ in 0..2 {
        let mut client = TcpStream::connect(door.address).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_open_connection_does_not_delay_the_stop() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = Door::open(gateway.local_addr().unwrap().to_string()).await;
    let client = TcpStream::connect(door.address).await.unwrap();
    let inside = gateway.accept().await.unwrap();
    door.process.shutdown.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(3), door.served).await;
    stopped.unwrap().unwrap().unwrap();
    drop((client, inside));
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gateway.local_addr().unwrap().to_string();
    let door = Door::open_for(address, Duration::from_millis(50)).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    let _inside = gateway.accept().await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}
