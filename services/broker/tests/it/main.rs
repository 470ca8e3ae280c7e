//! The broker over its wires: the mesh, the enrolment listener, the management socket.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod audit;
mod binary;
mod custody;
mod enrolment;
mod harness;
mod kept;
mod killed;
mod management;
mod mesh;
mod operation;
mod pki;
mod record;
mod rollback;
mod sealed;
mod ticket;
mod upstream;
mod vault;
