//! The service over its wire, with an audit service that keeps what it is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::{Arc, Mutex};

use bailey_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use bailey_proto::audit::v1::{
    AppendRequest, AppendResponse, CheckpointRequest, CheckpointResponse, CosignRequest,
    CosignResponse, EntriesRequest, EntriesResponse, Entry,
};
use bailey_test::TestStack;
use bailey_types::Service;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

#[derive(Clone)]
struct Kept {
    entries: Arc<Mutex<Vec<Entry>>>,
    count: watch::Sender<usize>,
}

#[tonic::async_trait]
impl AuditService for Kept {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let mut entries = self.entries.lock().unwrap();
        entries.extend(request.into_inner().entries);
        self.count.send_replace(entries.len());
        Ok(Response::new(AppendResponse::default()))
    }

    async fn checkpoint(
        &self,
        _: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn cosign(&self, _: Request<CosignRequest>) -> Result<Response<CosignResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn entries(
        &self,
        _: Request<EntriesRequest>,
    ) -> Result<Response<EntriesResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tokio::test]
async fn every_way_out_is_refused_with_a_reason_and_audited() {
    // Given the service with nothing granted
    let stack = TestStack::new();
    let (count, mut counted) = watch::channel(0);
    let kept = Kept {
        entries: Arc::default(),
        count,
    };
    let _audit = stack.serve(
        Service::Audit,
        Routes::new(AuditServiceServer::new(kept.clone())),
    );
    let ctx = stack.context(Service::EgressProxy);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let auditor = stack.join(&ctx).auditor();
    let mut tasks = JoinSet::new();
    tasks.spawn(egress_proxy::serve(ctx.clone(), listener, auditor));

    // When ways out are asked for
    let asked = [
        (
            "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n",
            "api.example.com:443",
        ),
        (
            "GET http://me:secret@169.254.169.254/latest?token=x HTTP/1.1\r\nHost: x\r\n\r\n",
            "169.254.169.254",
        ),
        (
            "POST / HTTP/1.1\r\nHost: inside\r\nContent-Length: 1000000\r\n\r\n",
            "inside",
        ),
    ];
    for (request, _) in asked {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();

        // Then each is refused with a problem
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("no egress is granted"),
            "{answer}"
        );
    }

    // And audited by its host, without what else the request held
    counted
        .wait_for(|count| *count == asked.len())
        .await
        .unwrap();
    let entries = kept.entries.lock().unwrap().clone();
    for (entry, (_, host)) in entries.iter().zip(asked) {
        assert_eq!(
            (entry.kind.as_str(), entry.refusal),
            ("egress.refused", true)
        );
        assert!(
            entry.fields_json.contains(host) && !entry.fields_json.contains("secret"),
            "{}",
            entry.fields_json
        );
        assert!(
            !entry.fields_json.contains("token"),
            "{}",
            entry.fields_json
        );
    }

    // And the service stops when it is told to
    ctx.shutdown.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
}
