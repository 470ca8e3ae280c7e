#![doc = include_str!("../README.md")]

mod audit;
mod authority;
pub mod callers;
mod certificate;
mod channel;
mod crowd;
mod error;
mod gate;
mod gather;
mod identity;
mod mesh;
mod presence;
mod renewal;
mod serve;
mod stream;
mod tls;
mod verify;

pub use audit::Auditor;
pub use authority::{Authority, Successor};
pub use certificate::{CaCertificate, CertificateSerial, KeyId};
pub use channel::MeshChannel;
pub use error::Error;
pub use gate::{Caller, Refusal};
pub use identity::{Identity, KeyRequest};
pub use mesh::Mesh;
pub use presence::request as beat_request;
pub use serve::{Windows, bind};
pub use stream::RemoteAddress;
pub use verify::{Peer, Root};
