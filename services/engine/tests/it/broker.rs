//! A broker that makes tickets for whatever it is asked, with real signatures.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bailey_proto::broker::v1 as wire;
use bailey_proto::broker::v1::ticket_service_server::{TicketService, TicketServiceServer};
use bailey_proto::engine::v1::Assignment;
use bailey_test::{Served, TestStack};
use bailey_trust::{
    Decision, SealingSession, SessionReader, SigningKey, Ticket, TrustFile, sign, verify,
};
use bailey_types::{Clock, Service, Sha256, TicketId};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const SALT: [u8; 32] = [7; 32];

/// What it was asked, and what it makes.
pub struct Broker {
    shared: Arc<Shared>,
    socket_proxy: SessionReader,
    _served: Served,
}

struct Shared {
    trust: TrustFile,
    key: SigningKey,
    session: SealingSession,
    refusal: Mutex<Option<Status>>,
    /// No ticket is made while there is no permit.
    free: Semaphore,
    asked: AtomicUsize,
}

/// Starts it.
pub fn start(stack: &TestStack) -> Broker {
    let shared = Arc::new(Shared {
        trust: stack.trust().clone(),
        key: stack.signing_key(Service::Broker),
        session: SealingSession::new(stack.socket_proxy_key().recipient()),
        refusal: Mutex::default(),
        free: Semaphore::new(1),
        asked: AtomicUsize::new(0),
    });
    let tickets = TicketServiceServer::from_arc(Arc::clone(&shared));
    let routes = Routes::new(tickets.max_decoding_message_size(16 << 20));
    Broker {
        shared,
        socket_proxy: SessionReader::new(stack.socket_proxy_key()),
        _served: stack.serve(Service::Broker, routes),
    }
}

impl Broker {
    /// From now on it makes no ticket and says this, or makes them again.
    pub fn refuses(&self, refusal: Option<Status>) {
        *self.shared.refusal.lock().unwrap() = refusal;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Makes no ticket until the answer is dropped.
    pub async fn held_up(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.shared.free.acquire().await.unwrap()
    }

    /// The request in an assignment, as socket-proxy finds it: what the ticket and the decision in it are for.
    pub fn opened(&self, assignment: &Assignment) -> Vec<u8> {
        let signing = &self.shared.trust.signing;
        let (decision, ticket) = (assignment.decision.clone(), assignment.ticket.clone());
        let decision = verify::<Decision>(&decision.unwrap(), &signing.policy).unwrap();
        let ticket = verify::<Ticket>(&ticket.unwrap(), &signing.broker).unwrap();
        assert_eq!(ticket.statement.decision, decision.statement.id);
        let salted = self.socket_proxy.open(&assignment.sealed, 20 << 20);
        let salted = salted.unwrap();
        assert_eq!(ticket.statement.final_sha256, Sha256::of(&salted));
        salted.get(SALT.len()..).unwrap().to_vec()
    }
}

#[tonic::async_trait]
impl TicketService for Shared {
    async fn make_ticket(
        &self,
        request: Request<wire::MakeTicketRequest>,
    ) -> Result<Response<wire::MakeTicketResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        drop(self.free.acquire().await.unwrap());
        if let Some(status) = self.refusal.lock().unwrap().clone() {
            return Err(status);
        }
        let asked = request.into_inner();
        let decision = verify::<Decision>(&asked.decision.unwrap(), &self.trust.signing.policy);
        let decision = decision.unwrap().statement;
        let salted = [&SALT, &asked.request[..]].concat();
        let ticket = Ticket {
            id: TicketId::new(),
            decision: decision.id,
            final_sha256: Sha256::of(&salted),
            plugin: decision.plugin,
            image: decision.image,
            container_kind: "cell".into(),
            issued_at: Clock::system().now(),
            expires_at: decision.expires_at,
        };
        Ok(Response::new(wire::MakeTicketResponse {
            ticket: Some(sign(&ticket, &self.key).unwrap()),
            sealed: self.session.seal(&salted).unwrap().into(),
        }))
    }
}
