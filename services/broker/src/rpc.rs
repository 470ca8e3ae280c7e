//! What the broker serves. Nothing here decides: it reads requests, asks the module that does, and has it recorded.

mod certificate;
mod custody;
mod enrolment;
mod lock;
mod operation;
mod pki;
mod presence;
mod ticket;
mod token;
mod upstream;
mod vault;

use std::sync::Arc;

use bailey_mesh::Authority;
use bailey_proto::broker::v1::certificate_service_server::CertificateServiceServer;
use bailey_proto::broker::v1::enrolment_service_server::EnrolmentServiceServer;
use bailey_proto::broker::v1::epoch_service_server::EpochServiceServer;
use bailey_proto::broker::v1::operation_service_server::OperationServiceServer;
use bailey_proto::broker::v1::presence_service_server::PresenceServiceServer;
use bailey_proto::broker::v1::ticket_service_server::TicketServiceServer;
use bailey_proto::broker::v1::token_service_server::TokenServiceServer;
use bailey_proto::broker::v1::upstream_key_service_server::UpstreamKeyServiceServer;
use bailey_proto::management::v1::custody_service_server::CustodyServiceServer;
use bailey_proto::management::v1::lock_service_server::LockServiceServer;
use bailey_proto::management::v1::pki_service_server::PkiServiceServer;
use bailey_proto::management::v1::vault_service_server::VaultServiceServer;
use tonic::service::Routes;

use crate::state::State;

/// Largest message of everything but tickets and locks, bytes.
const SMALL: usize = 128 << 10;
/// A request of 10 MiB, a decision of 1 MiB, and what frames them.
const TICKET: usize = (11 << 20) + SMALL;
/// A message of 10 MiB, and what is said of it.
const MESSAGE: usize = (10 << 20) + SMALL;
/// An import: 1000 secrets of 4 KiB, or fewer larger ones.
const IMPORT: usize = 4 << 20;
/// A lock proposal.
const LOCK: usize = (16 << 20) + SMALL;

/// What is served on the mesh.
pub fn mesh(state: &Arc<State>, authority: &Arc<Authority>) -> Routes {
    let presence = presence::Presence::new(Arc::clone(state));
    let renewal = certificate::Renewal::new(Arc::clone(state), Arc::clone(authority));
    let renewal = CertificateServiceServer::new(renewal);
    let tokens = TokenServiceServer::new(token::Tokens::new(Arc::clone(state)));
    let operations = OperationServiceServer::new(operation::Operations::new(Arc::clone(state)));
    let keys = UpstreamKeyServiceServer::new(upstream::UpstreamKeys::new(Arc::clone(state)));
    let tickets = TicketServiceServer::new(ticket::Tickets::new(Arc::clone(state)));
    Routes::new(renewal.max_decoding_message_size(SMALL))
        .add_service(PresenceServiceServer::new(presence.clone()).max_decoding_message_size(SMALL))
        .add_service(EpochServiceServer::new(presence).max_decoding_message_size(SMALL))
        .add_service(tokens.max_decoding_message_size(SMALL))
        .add_service(operations.max_decoding_message_size(MESSAGE))
        .add_service(tickets.max_decoding_message_size(TICKET))
        .add_service(keys.max_decoding_message_size(SMALL))
}

/// What is served to those who have no certificate yet.
pub fn enrolment(state: &Arc<State>, authority: &Arc<Authority>) -> Routes {
    let enrolment = enrolment::Enrolment::new(Arc::clone(state), Arc::clone(authority));
    Routes::new(EnrolmentServiceServer::new(enrolment).max_decoding_message_size(16 << 10))
}

/// What is served on the management socket, behind the gate.
pub fn management(state: &Arc<State>) -> Routes {
    let vault = VaultServiceServer::new(vault::Vault::new(Arc::clone(state)));
    let lock = LockServiceServer::new(lock::Lock::new(Arc::clone(state)));
    let pki = PkiServiceServer::new(pki::Pki::new(Arc::clone(state)));
    let custody = CustodyServiceServer::new(custody::Custody::new(Arc::clone(state)));
    Routes::new(vault.max_decoding_message_size(IMPORT))
        .add_service(custody.max_decoding_message_size(SMALL))
        .add_service(lock.max_decoding_message_size(LOCK))
        .add_service(pki.max_decoding_message_size(SMALL))
}
