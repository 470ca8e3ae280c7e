//! The broker over its wires: the mesh, the enrolment listener, the management socket.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod audit;
mod binary;
mod custody;
mod enrolment;
mod harness;
mod management;
mod mesh;
mod operation;
mod pki;
mod sealed;
mod ticket;
mod vault;
