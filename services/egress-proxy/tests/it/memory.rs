//! What exchanges hold while nobody takes what comes back, and nobody takes what is sent: the container has 128 MiB.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use bailey_mesh::MeshChannel;
use bailey_proto::egress::v1::upstream_service_client::UpstreamServiceClient;
use bailey_proto::egress::v1::{ExchangeResponse, RequestHead};
use bailey_types::Service;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::channel;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::exchange::{Outside, head, of_body, of_head};
use crate::script::{Step, chunk};

/// Connections that a client may have, as the mesh bounds them.
const CONNECTIONS: usize = 8;
/// Exchanges that each client may have.
const EXCHANGES: [(Service, usize); 2] = [(Service::Engine, 48), (Service::Worker, 16)];

/// Where nothing has moved for so long, nothing will.
const QUIET: Duration = Duration::from_millis(500);

const MIB: u64 = 1 << 20;
/// What is left of the container's memory is for the program itself, the plugins' connections and what the kernel holds.
const MOST_BYTES: u64 = 56 * MIB;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What is open, and who goes on sending.
struct Held {
    answers: Vec<Streaming<ExchangeResponse>>,
    /// Parts of bodies that were taken.
    sent: watch::Receiver<usize>,
    sending: JoinSet<()>,
    /// A way to the service over a connection that is as full as the others.
    another: UpstreamServiceClient<MeshChannel>,
}

/// Opens everything that both clients may have open, each to send 16 MiB and to get 64 MiB, and does not read.
async fn hold(outside: &Outside) -> Held {
    let engine = outside.world.stack.mesh(Service::Engine);
    let counting = watch::Sender::new(0);
    let mut held = Held {
        answers: Vec::new(),
        sent: counting.subscribe(),
        sending: JoinSet::new(),
        another: UpstreamServiceClient::new(engine.channel(Service::EgressProxy)),
    };
    let mut bodies = Vec::new();
    for (client, exchanges) in EXCHANGES {
        let mut meshes: Vec<_> = (1..CONNECTIONS)
            .map(|_| outside.world.stack.mesh(client))
            .collect();
        meshes.push(if client == Service::Engine {
            engine.clone()
        } else {
            outside.world.stack.mesh(client)
        });
        for nth in 0..exchanges {
            let asked = RequestHead {
                body_bytes: Some(16 * MIB),
                ..head("POST", "/deaf")
            };
            let (say, said) = channel(1);
            say.send(of_head(asked)).await.unwrap();
            let mut client =
                UpstreamServiceClient::new(meshes[nth % CONNECTIONS].channel(Service::EgressProxy));
            let answer = client.exchange(ReceiverStream::new(said)).await;
            held.answers.push(answer.unwrap().into_inner());
            bodies.push(say);
        }
    }
    // All have begun before the first body fills the window of its connection.
    for say in bodies {
        let counting = counting.clone();
        held.sending.spawn(async move {
            while say.send(of_body(&vec![b'x'; 64 << 10])).await.is_ok() {
                counting.send_modify(|sent| *sent += 1);
            }
        });
    }
    held
}

#[test]
fn what_nobody_takes_fits_into_the_container() {
    let (hand, handed) = mpsc::channel::<Arc<Outside>>();
    let (over, ended) = oneshot::channel();
    // Clients on a thread of their own: what is measured is the other one, with the service and the upstream.
    let clients = thread::spawn(move || {
        runtime().block_on(async {
            let outside = handed.recv().unwrap();
            let mut held = hold(&outside).await;
            let mut said = outside.server.said();
            // Until all that is in between is full.
            loop {
                let moved = tokio::select! {
                    moved = timeout(QUIET, said.changed()) => moved,
                    moved = timeout(QUIET, held.sent.changed()) => moved,
                };
                match moved {
                    Ok(moved) => moved.unwrap(),
                    Err(_) => break,
                }
            }
            // Others are heard all the same: this one, that there is no place.
            let asked = tokio_stream::iter([of_head(head("GET", ""))]);
            let refused = held.another.exchange(asked).await.unwrap_err();
            assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
            over.send(()).unwrap();
            held.answers.len()
        })
    });
    let measured = measure(|| {
        runtime().block_on(async {
            let more = "max_concurrent: 64\nrate: 100/s\ntimeout: 10m";
            let outside = Outside::keyed(more, |_| {
                let started = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                vec![
                    Step::Say(started.to_vec()),
                    Step::Repeat(chunk(&[b'x'; 16 << 10]), 4096),
                ]
            })
            .await;
            hand.send(Arc::new(outside)).unwrap();
            ended.await.unwrap();
        });
    });
    assert_eq!(clients.join().unwrap(), 64);
    let held_bytes = measured.bytes_max;
    assert!(held_bytes < MOST_BYTES, "{} KiB", held_bytes >> 10);
}
