//! What one caller may have open, and what the others have meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bailey_mesh::{Caller, Mesh, Refusal};
use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::presence_service_server::{PresenceService, PresenceServiceServer};
use bailey_proto::broker::v1::{BeatRequest, BeatResponse, RollRequest, RollResponse};
use bailey_test::TestStack;
use bailey_types::Service;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::support::{adversary, issued, knock, now};

const HOUR: Duration = Duration::from_hours(1);
/// What takes longer than this will not happen.
const LIMIT: Duration = Duration::from_secs(30);

/// Answers a call when the test lets it, and counts how many of each caller have come.
#[derive(Clone)]
struct Waiting {
    came: watch::Sender<[usize; 2]>,
    go: Arc<Semaphore>,
}

#[tonic::async_trait]
impl PresenceService for Waiting {
    async fn beat(&self, request: Request<BeatRequest>) -> Result<Response<BeatResponse>, Status> {
        let policy = Caller::of(&request)?.service() == Service::Policy;
        self.came.send_modify(|[ours, others]| {
            let count = if policy { ours } else { others };
            *count += 1;
        });
        self.go.acquire().await.unwrap().forget();
        Ok(Response::new(BeatResponse::default()))
    }

    async fn roll(&self, _: Request<RollRequest>) -> Result<Response<RollResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

impl Waiting {
    async fn came(&self, enough: impl Fn(&[usize; 2]) -> bool) -> [usize; 2] {
        let mut counts = self.came.subscribe();
        let found = timeout(LIMIT, counts.wait_for(enough)).await;
        *found.unwrap().unwrap()
    }
}

async fn beat(mesh: Mesh) -> Result<(), Status> {
    let mut client = PresenceServiceClient::new(mesh.channel(Service::Broker));
    client.beat(BeatRequest::default()).await.map(drop)
}

#[tokio::test]
async fn calls_beyond_the_bound_of_a_connection_wait_and_those_of_others_do_not() {
    // Given a service whose calls last, and a caller with as many as it may have
    let stack = TestStack::new();
    let waiting = Waiting {
        came: watch::Sender::new([0, 0]),
        go: Arc::new(Semaphore::new(0)),
    };
    let routes = Routes::new(PresenceServiceServer::new(waiting.clone()));
    let _served = stack.serve(Service::Broker, routes);
    let mesh = stack.mesh(Service::Policy);
    let mut calls = JoinSet::new();
    for _ in 0..512 {
        calls.spawn(beat(mesh.clone()));
    }
    waiting.came(|came| came[0] == 512).await;

    // When it makes more, they wait; another caller's goes through at once
    for _ in 0..8 {
        calls.spawn(beat(mesh.clone()));
    }
    calls.spawn(beat(stack.mesh(Service::Runner)));
    assert_eq!(waiting.came(|came| came[1] == 1).await, [512, 1]);

    // Then each has its turn when one before it has ended, and none is lost.
    waiting.go.add_permits(4);
    waiting.came(|came| came[0] >= 515).await;
    waiting.go.add_permits(517);
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(*waiting.came.borrow(), [520, 1]);
}

fn shown(stack: &TestStack, service: Service) -> Arc<ClientConfig> {
    Arc::new(adversary(Some(issued(stack, service, now(), HOUR))))
}

#[tokio::test]
async fn a_caller_has_so_many_connections_and_leaves_the_others_theirs() {
    let stack = TestStack::new();
    let ctx = stack.context(Service::Engine);
    let mesh = stack.join(&ctx);
    let listener = bailey_mesh::bind(ctx.settings.listen).unwrap();
    let (refused, mut refusals) = mpsc::channel(100);
    let serving = ctx.clone();
    ctx.spawn("rpc", async move {
        let hook = move |refusal| refused.try_send(refusal).unwrap();
        mesh.serve_with_hook(&serving, listener, Routes::default(), hook)
            .await
    });
    let address = stack.address(Service::Engine);
    let gateway = shown(&stack, Service::Gateway);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(knock(address, &gateway).await.unwrap());
    }

    // One more is refused, and on record; another service's is not.
    assert!(knock(address, &gateway).await.is_err());
    let expected = "gateway has 8 connections open, which is as many as one caller may have";
    let refusal = Refusal::Connection {
        reason: expected.to_owned(),
    };
    assert_eq!(refusals.recv().await.unwrap(), refusal);
    let worker = shown(&stack, Service::Worker);
    knock(address, &worker).await.unwrap();

    // What has ended makes room.
    open.pop();
    let again = async {
        while knock(address, &gateway).await.is_err() {
            assert_eq!(refusals.recv().await.unwrap(), refusal);
        }
    };
    timeout(LIMIT, again).await.unwrap();
}
