//! The binary: the service, or, inside a probe, the look at its walls.

use std::process::ExitCode;

use bailey_types::Service;

fn main() -> ExitCode {
    // A verb of its own: a probe has no configuration, no secrets and no log.
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("probe") && args.next().is_none() {
        return socket_proxy::probe::run();
    }
    bailey_service::main_with(Service::SocketProxy, socket_proxy::run)
}
