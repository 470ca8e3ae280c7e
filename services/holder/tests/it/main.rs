//! The real binary, in front of the real egress-proxy, with the clients that plugins use.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod clients;
mod process;
mod protocols;
#[expect(dead_code, reason = "egress-proxy's own tests use the rest")]
#[path = "../../../egress-proxy/tests/it/server.rs"]
mod server;
mod site;
mod way_out;
#[expect(dead_code, reason = "egress-proxy's own tests use the rest")]
#[path = "../../../egress-proxy/tests/it/world.rs"]
mod world;
