//! The binary: the service, or, inside a probe, the look at its walls.

use std::process::ExitCode;

use bailey_cell::probe::PATHS_VERB;
use bailey_types::Service;

fn main() -> ExitCode {
    // A verb of its own: a probe has no configuration, no secrets and no log.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["probe"] => return socket_proxy::probe::run(),
        ["probe", PATHS_VERB, paths @ ..] => return socket_proxy::probe::run_paths(paths),
        _ => {}
    }
    bailey_service::main_with(Service::SocketProxy, socket_proxy::run)
}
